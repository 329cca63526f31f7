//! The log as people look for something in it: by the daemon, from its folder, as a story, as an explanation, and for other programs.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use harness::world::{Family, Who, World, enforcer, wait_for};
use serde_json::Value;

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
/// A text that would clear the screen of whoever reads it, and turn it around.
const HOSTILE: &str = "SELECT COUNT(*) AS n, '\u{1b}[2J\u{202e}' AS x FROM finance.daily";

/// Output of a command that must succeed.
#[track_caller]
fn said(world: &World, args: &[&str]) -> String {
    let output = world.cli(Who::Operator, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Error of a command that must fail so.
#[track_caller]
fn failed(world: &World, who: Who, args: &[&str], code: i32) -> String {
    let output = world.cli(who, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A world in which a window was used, refused something, and given back.
fn lived() -> World {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let answers = world.query(&[DAILY, HOSTILE, "SELECT * FROM hr.salaries"]);
    assert_eq!(answers[0]["rows"], serde_json::json!([["1000"]]));
    assert!(answers[2]["error"].is_string());
    let _ = world.json(Who::Agent, &["close", &grant]);
    world
}

#[test]
fn a_search_finds_the_same_by_the_daemon_and_by_the_index_of_the_folder() {
    let world = lived();
    let dir = world.state_dir().join("audit").display().to_string();
    let index = world
        .stage
        .dir()
        .join("an-index.sqlite")
        .display()
        .to_string();
    for (filter, is_found) in [
        (&["--agent", "finance-bot"][..], true),
        (&["--grant", "g-1"], true),
        (&["--request", "r-1"], true),
        (&["--query", "q-1"], true),
        (&["--dataset", "demo-project.finance"], true),
        (&["--table", "demo-project.finance.daily"], true),
        (&["--table", "demo-project.hr.salaries"], true),
        (&["--code", "scope.outside"], true),
        (&["--kind", "closed"], true),
        (&["--sql", "sum from finance.daily"], false),
        (&["--sql", "FROM finance.daily"], true),
        (&["--since", "1h", "--agent", "finance-bot"], true),
        (&["--until", "1h", "--agent", "finance-bot"], false),
        (&["--agent", "finance-bot", "--limit", "2"], true),
        (
            &["--code", "scope.outside", "--sql", "hr.salaries", "--json"],
            true,
        ),
    ] {
        let by_daemon = said(&world, &[&["log"], filter].concat());
        let by_index = said(
            &world,
            &[&["log", "--dir", &dir, "--index", &index], filter].concat(),
        );
        assert_eq!(by_daemon, by_index, "{filter:?}");
        assert_eq!(!by_daemon.is_empty(), is_found, "{filter:?}: {by_daemon}");
    }
    let built = said(&world, &["log", "index", "--dir", &dir, "--rebuild"]);
    assert!(built.contains("built anew, up to record"), "{built}");
    let all = said(&world, &["log"]);
    assert_eq!(all.lines().count(), world.records().len());
    assert!(
        !all.contains('\u{1b}') && !all.contains('\u{202e}'),
        "{all}"
    );
}

#[test]
fn the_daemon_keeps_an_index_beside_its_log_and_answers_the_same_when_it_breaks() {
    let world = lived();
    let dir = world.state_dir().join("audit");
    let file = dir.join("index.sqlite");
    let closed = || said(&world, &["log", "--kind", "closed", "--limit", "5"]);
    let before = closed();
    assert_eq!(before.lines().count(), 1, "{before}");
    let is_kept = || std::fs::metadata(&file).is_ok_and(|file| file.len() > 4096);
    wait_for("the index", is_kept);
    assert_eq!(closed(), before);
    let broken = std::fs::File::options().write(true).open(&file);
    let broken = broken.expect("opens");
    let bytes = broken.metadata().expect("is there").len();
    for at in (100..bytes).step_by(100) {
        broken.write_all_at(&[0xa5; 100], at).expect("writes");
    }
    drop(broken);
    assert_eq!(closed(), before);
    let is_whole = || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        bytes.len() > 4096 && !bytes.windows(100).any(|some| some == [0xa5; 100])
    };
    wait_for("an index that was built anew", is_whole);
    wait_for("health", || {
        world.status()["unhealthy"] == serde_json::json!([])
    });
    assert_eq!(closed(), before);
}

#[test]
fn what_cannot_be_looked_for_is_said_with_what_can_and_agents_read_nothing() {
    let world = World::start(Family::V4);
    for (args, says) in [
        (&["log", "--code", "window.gone"][..], "window.none"),
        (&["log", "--kind", "query"], "query_admitted"),
        (&["log", "--since", "yesterday"], "15m"),
        (&["log", "--sql", "!?"], "finance.daily"),
        (&["log", "--limit", "0"], "from 1 to"),
        (&["log", "show", "x-1"], "g-17"),
        (&["log", "--follow", "--dir", "/tmp"], "cannot be used with"),
    ] {
        let error = failed(&world, Who::Operator, args, 2);
        assert!(error.contains(says), "{args:?}: {error}");
    }
    for args in [
        &["log", "--agent", "finance-bot"][..],
        &["why", "1"],
        &["log", "show", "g-1"],
    ] {
        let error = failed(&world, Who::Agent, args, 3);
        assert!(error.contains("[caller.forbidden]"), "{args:?}: {error}");
    }
    let error = failed(&world, Who::Operator, &["log", "show", "g-99"], 1);
    assert!(
        error.contains("nothing in the log concerns g-99"),
        "{error}"
    );
}

#[test]
fn a_window_is_told_as_one_story_and_each_decision_in_it_is_explained() {
    let world = lived();
    let story = said(&world, &["log", "show", "g-1"]);
    for part in [
        "asked     r-1 by agent finance-bot",
        "month end",
        "covered by rule",
        "approved  by uid 5001: window g-1",
        "open      g-1",
        "admitted  q-",
        "reads demo-project.finance.daily",
        "judged by BigQuery's dry run, in ",
        "| SELECT COUNT(*) FROM finance.daily",
        "REFUSED   [scope.outside]",
        "closed    g-1: the agent gave it back",
        "in all  ",
        " billed, ",
    ] {
        assert!(story.contains(part), "{part} in {story}");
    }
    assert!(
        !story.contains('\u{1b}') && !story.contains('\u{202e}'),
        "{story}"
    );
    assert_eq!(said(&world, &["log", "show", "r-1"]), story);
    let told = world.json(Who::Operator, &["log", "show", "g-1"]);
    assert_eq!(
        (&told["id"], &told["totals"]["refused"]),
        (&"g-1".into(), &1.into()),
        "{told}"
    );
    let records = told["records"].as_array().expect("a list").iter();
    let seqs: Vec<u64> = records
        .filter_map(|record| record["seq"].as_u64())
        .collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");

    let policy = world.events("daemon_started")[0]["policy_digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let admitted = world.json(Who::Operator, &["why", "q-1"]);
    let facts = &admitted["decisions"][0]["facts"];
    assert_eq!(admitted["decisions"][0]["outcome"], "allowed");
    for (name, said) in [
        ("policy", policy.as_str()),
        ("judged", "by BigQuery's dry run, in "),
    ] {
        let begins = facts[name]
            .as_str()
            .is_some_and(|all| all.starts_with(said));
        assert!(begins, "{name}: {facts}");
    }
    assert!(
        facts["rule"]
            .as_str()
            .is_some_and(|said| said.contains("of the policy")),
        "{facts}"
    );
    let record = world
        .records()
        .into_iter()
        .find(|record| record["event"]["kind"] == "query_refused")
        .expect("was refused");
    let text = said(&world, &["why", &record["seq"].to_string()]);
    for part in [
        "refused:",
        "[scope.outside]",
        "outside the window's scope",
        "next step",
        &policy,
        "| SELECT * FROM hr.salaries",
        "queries then",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let closed = said(&world, &["why", "g-1"]);
    assert!(
        closed.contains("allowed:") && closed.contains("ended:") && closed.contains("gave it back"),
        "{closed}"
    );
    assert!(said(&world, &["why", "r-1"]).contains("uid 5001"));
}

#[test]
fn the_log_is_exported_for_other_programs() {
    let world = lived();
    let records = world.records();
    let lines = said(&world, &["log", "export", "--format", "json"]);
    let back: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(back, records);
    let csv = said(
        &world,
        &[
            "log",
            "export",
            "--format",
            "csv",
            "--kind",
            "query_refused",
        ],
    );
    assert!(csv.starts_with("seq,time,kind,agent,"), "{csv}");
    assert_eq!(csv.matches("\r\n").count(), 2, "{csv}");
    let events = said(&world, &["log", "export", "--format", "ocsf"]);
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events.len(), records.len());
    let host = records[0]["event"]["host"].as_str().expect("a host");
    let query = events
        .iter()
        .find(|event| event["metadata"]["event_code"] == "query_admitted")
        .expect("a query");
    assert_eq!(
        (&query["class_uid"], &query["src_endpoint"]["hostname"]),
        (&6003.into(), &host.into()),
        "{query}"
    );
}

#[test]
fn a_search_that_is_followed_goes_on_with_what_is_wanted_only() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let _ = world.json(Who::Agent, &["close", &grant]);
    let mut follower = world
        .run_as(Who::Operator, enforcer())
        .args([
            "log", "--follow", "--limit", "1", "--kind", "closed", "--json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        serde_json::from_str(&lines.next().expect("goes on").expect("reads")).expect("JSON")
    };
    assert_eq!(next()["event"]["grant"], grant);
    let later = world.open_window("demo-project.finance:read", "5m");
    let _ = world.json(Who::Agent, &["close", &later]);
    assert_eq!(next()["event"]["grant"], later);
    follower.kill().expect("ends");
    follower.wait().expect("ends");
}
