//! The main job: no window, no query; a window, the query; the window's end, no query.

use harness::capture::Capture;
use harness::world::{Family, Who, World};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

fn opens_serves_and_closes(family: Family) {
    let world = World::start(family);
    let capture = Capture::start(&world.stage, World::bigquery());

    let refused = &world.query(&[DAILY])[0];
    let error = refused["error"].as_str().expect("refused");
    assert!(
        error.contains("agent finance-bot has no open window")
            && error.contains("enforcer request"),
        "{error}"
    );
    assert_eq!(capture.packets(), 0, "nothing left the host");

    let grant = world.open_window("demo-project.finance:read", "10s");
    let mut client = world.client();
    let served = client.query(DAILY);
    assert_eq!(served["rows"], serde_json::json!([["1000"]]), "{served}");
    for outside in ["SELECT * FROM hr.salaries", "SELECT * FROM finance.hr_view"] {
        let answer = client.query(outside);
        let error = answer["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned();
        assert!(
            error.contains("demo-project.hr.salaries is outside window"),
            "{error}"
        );
    }

    let status = world.json(Who::Operator, &["status"]);
    let open = status["grants"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|view| view["grant"] == grant.as_str())
        .expect("listed")
        .clone();
    std::thread::sleep(std::time::Duration::from_nanos(
        open["closes_in_ns"].as_u64().expect("a number"),
    ));
    let error = client.query(DAILY)["error"]
        .as_str()
        .expect("refused")
        .to_owned();
    assert!(
        error.contains("no open window") || error.contains("has closed"),
        "{error}"
    );

    let kinds: Vec<String> = world
        .records()
        .iter()
        .map(|record| record["event"]["kind"].as_str().expect("a kind").to_owned())
        .collect();
    for kind in [
        "query_refused",
        "requested",
        "approved",
        "opened",
        "query_admitted",
        "query_finished",
        "closed",
    ] {
        assert!(
            kinds.iter().any(|found| found == kind),
            "{kind} in {kinds:?}"
        );
    }
}

#[test]
fn a_window_opens_serves_its_scope_and_closes_on_ipv4() {
    opens_serves_and_closes(Family::V4);
}

#[test]
fn a_window_opens_serves_its_scope_and_closes_on_ipv6() {
    opens_serves_and_closes(Family::V6);
}
