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

fn is_told_whole(family: Family) {
    let world = World::start(family);
    let grant = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    let outside = "SELECT * FROM finance.hr_view";
    assert!(world.query(&[outside])[0]["error"].is_string());

    let asked = world.events("query_asked");
    let texts: Vec<&str> = asked
        .iter()
        .filter_map(|event| event["sql"].as_str())
        .collect();
    assert_eq!(
        texts,
        [DAILY, outside],
        "each text that BigQuery was asked about"
    );
    let admitted = &world.events("query_admitted")[0];
    assert_eq!(admitted["sql"], DAILY);
    assert_eq!(admitted["grant"], grant.as_str());
    assert_eq!(admitted["agent"], "finance-bot");
    assert_eq!(admitted["method"], "jobs.insert");
    assert_eq!(admitted["bytes"], 8000);
    let table = admitted["tables"][0].to_string();
    assert!(
        ["demo-project", "finance", "daily"]
            .iter()
            .all(|part| table.contains(part)),
        "{table}"
    );
    let process = &admitted["process"];
    assert_eq!(process["uid"], harness::world::AGENT_UID);
    assert!(
        process["pid"].as_u64() > Some(1) && process["start_boot_ns"].as_u64() > Some(1),
        "{process}"
    );
    assert!(
        process["comm"]
            .as_str()
            .is_some_and(|comm| comm.starts_with("python")),
        "{process}"
    );

    let finished = world.events("query_finished");
    let finished = finished
        .iter()
        .find(|event| event["query"] == admitted["query"])
        .expect("its end");
    assert_eq!(finished["status"], 200);
    assert_eq!(finished["job"]["project"], "demo-project");
    assert!(
        finished["job"]["job"]
            .as_str()
            .is_some_and(|job| !job.is_empty()),
        "{finished}"
    );
    let refused = world.events("query_refused");
    let refused = refused
        .iter()
        .find(|event| event["sql"] == outside)
        .expect("the refusal");
    assert_eq!(refused["refusal"]["code"], "scope.outside");
    assert_eq!(refused["process"]["uid"], harness::world::AGENT_UID);

    reads_well(&world, &grant);
}

/// The log as people read it has the same.
fn reads_well(world: &World, grant: &str) {
    let told = world.cli(Who::Operator, &["log"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = |kind: &str| {
        told.lines()
            .find(|line| line.contains(kind))
            .unwrap_or_else(|| panic!("{kind}: {told}"))
    };
    let query = line(" query ");
    for part in [
        grant,
        "finance-bot",
        "jobs.insert",
        "uid 2001",
        "demo-project.finance.daily",
        "8 kB",
        DAILY,
    ] {
        assert!(query.contains(part), "{part} in {query}");
    }
    assert!(line(" answer ").contains("job demo-project:"), "{told}");
    assert!(line(" REFUSED ").contains("[scope.outside]"), "{told}");
    assert!(line(" approve ").contains("uid 5001"), "{told}");
}

#[test]
fn the_log_tells_each_query_with_its_text_job_tables_bytes_decision_and_process_on_ipv4() {
    is_told_whole(Family::V4);
}

#[test]
fn the_log_tells_each_query_with_its_text_job_tables_bytes_decision_and_process_on_ipv6() {
    is_told_whole(Family::V6);
}

#[test]
fn a_window_opens_serves_its_scope_and_closes_on_ipv4() {
    opens_serves_and_closes(Family::V4);
}

#[test]
fn a_window_opens_serves_its_scope_and_closes_on_ipv6() {
    opens_serves_and_closes(Family::V6);
}
