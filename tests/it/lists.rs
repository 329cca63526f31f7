//! Lists are cut down to what the window may see, and the tokens of their next pages tell of nothing else.

use harness::world::{Family, Who, World};
use serde_json::{Value, json};

use crate::surface::{Answer, PROJECT, send};

fn list(world: &World, query: &str) -> Answer {
    send(
        world,
        &json!([["GET", format!("{PROJECT}/jobs?{query}"), null]]),
    )
    .remove(0)
}

fn start(world: &World, id: &str) {
    let job = json!({
        "configuration": {"query": {"query": "SELECT COUNT(*) FROM finance.daily", "useLegacySql": false}},
        "jobReference": {"jobId": id, "projectId": "demo-project"},
    });
    send(world, &json!([["POST", format!("{PROJECT}/jobs"), job]]))
        .remove(0)
        .served();
}

#[test]
fn a_token_of_a_results_page_leads_on_in_its_own_job_and_window_alone() {
    let world = World::start(Family::V4);
    world.set_faults(&json!({"pages": 8}));
    let first = world.open_window("demo-project.finance:read", "5m");
    let ask = |verb: &str, path: &str, body: Value| {
        let path = format!("{PROJECT}/{path}");
        send(&world, &json!([[verb, path, body]])).remove(0)
    };
    let begin = |id: &str| {
        let query =
            json!({"query": "SELECT id FROM finance.accounts ORDER BY id", "useLegacySql": false});
        let job = json!({"configuration": {"query": query}, "jobReference": {"jobId": id, "projectId": "demo-project"}});
        let _ = ask("POST", "jobs", job).served();
    };
    begin("one");
    begin("two");
    let token = |answer: &Value| answer["pageToken"].as_str().unwrap_or_default().to_owned();
    // All of a result, page by page.
    let (mut ids, mut next) = (Vec::new(), String::new());
    loop {
        let page = ask(
            "GET",
            &format!("queries/one?maxResults=8&pageToken={next}"),
            Value::Null,
        );
        let rows = page.served()["rows"].as_array().expect("rows").clone();
        ids.extend(rows.iter().map(|row| row["f"][0]["v"].clone()));
        next = token(&page.body);
        assert!(
            !next.starts_with("row"),
            "BigQuery's own is not told: {next}"
        );
        if next.is_empty() {
            break;
        }
    }
    let wanted: Vec<Value> = (1..=20).map(|id| json!(id.to_string())).collect();
    assert_eq!(ids, wanted);
    // What is answered at once has a first page as well.
    let query = json!({"query": "SELECT id FROM finance.accounts ORDER BY id", "useLegacySql": false, "maxResults": 8});
    let at_once = ask("POST", "queries", query);
    let (own, job) = (
        token(at_once.served()),
        at_once.body["jobReference"]["jobId"].clone(),
    );
    let job = job.as_str().expect("an id");
    let second = ask(
        "GET",
        &format!("queries/{job}?pageToken={own}"),
        Value::Null,
    );
    assert_eq!(second.served()["rows"][0]["f"][0]["v"], "9");
    let table = ask(
        "GET",
        "datasets/finance/tables/accounts/data?maxResults=8",
        Value::Null,
    );
    let of_table = token(table.served());
    let on = ask(
        "GET",
        &format!("datasets/finance/tables/accounts/data?pageToken={of_table}"),
        Value::Null,
    );
    assert_eq!(on.served()["rows"][0]["f"][0]["v"], "9");
    for (path, token) in [
        ("queries/two", own.as_str()),
        ("queries/one", &of_table),
        ("datasets/finance/tables/daily/data", &of_table),
        ("queries/one", "row-8"),
        ("datasets/finance/tables/daily/data", "row-8"),
    ] {
        ask("GET", &format!("{path}?pageToken={token}"), Value::Null).refused("api.malformed");
    }
    let _ = world.json(Who::Agent, &["close", &first]);
    let _ = world.open_window("demo-project.finance:read", "5m");
    ask(
        "GET",
        &format!("datasets/finance/tables/accounts/data?pageToken={of_table}"),
        Value::Null,
    )
    .refused("api.malformed");
}

#[test]
fn the_token_of_a_lists_next_page_tells_of_nobody_elses_jobs_and_leads_to_ones_own() {
    let world = World::start(Family::V4);
    let before = world.open_window("demo-project.finance:read", "5m");
    for id in ["others_1", "others_2", "others_3"] {
        start(&world, id);
    }
    let _ = world.json(Who::Approver, &["revoke", &before]);
    let _ = world.open_window("demo-project.finance:read", "5m");
    for id in ["own_1", "own_2"] {
        start(&world, id);
    }
    let (mut found, mut token, mut tokens) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = list(&world, &format!("maxResults=1&pageToken={token}"));
        let page = page.served();
        assert!(!page.to_string().contains("others"), "{page}");
        let jobs = page["jobs"].as_array().expect("a list").iter();
        found.extend(jobs.map(|job| job["jobReference"]["jobId"].clone()));
        let Some(next) = page["nextPageToken"].as_str() else {
            break;
        };
        next.clone_into(&mut token);
        tokens.push(token.clone());
    }
    assert_eq!(Value::from(found), json!(["own_1", "own_2"]));
    assert_eq!(
        tokens.len(),
        4,
        "one for each page but the last: {tokens:?}"
    );
    // What BigQuery calls a page is not for an agent to say.
    for made_up in ["others_2", "own_1", &tokens[0][1..]] {
        list(&world, &format!("pageToken={made_up}")).refused("api.malformed");
    }
    let other = format!("{PROJECT}/datasets?pageToken={}", tokens[0]);
    send(&world, &json!([["GET", other, null]]))
        .remove(0)
        .refused("api.malformed");
}

#[test]
fn a_list_without_anything_in_it_is_passed_on_as_it_is() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let list = list(&world, "").served().clone();
    assert_eq!(list, json!({"kind": "bigquery#jobList"}));
}
