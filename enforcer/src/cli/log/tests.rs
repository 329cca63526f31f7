use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::search::Filter;
use enforcer_proto::time::Now;
use tempfile::TempDir;

use super::source::Source;
use super::why::facts_of;
use crate::audit::Log;

/// A log of one window of 10 queries and 1000 bytes, in which one query ran and another was refused, under the second of two policies.
const EVENTS: &[&str] = &[
    r#"{"kind":"daemon_started","host":"h","version":"1","policy_digest":"old"}"#,
    r#"{"kind":"daemon_started","host":"h","version":"1","policy_digest":"new"}"#,
    r#"{"kind":"requested","request":"r-1","agent":"bot","process":{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"bq"},"ask":{"scope":"p-one.finance:read","ttl":"15m","reason":"month end","bytes_max":null,"queries_max":null},"rule":3,"digest":"d","expires_boot_ns":1}"#,
    r#"{"kind":"approved","request":"r-1","grant":"g-1","agent":"bot","approver":{"Person":{"uid":5001}},"digest":"d","scope":"p-one.finance:read","ttl":"15m","bytes_max":1000,"queries_max":10,"opens_boot_ns":1,"closes_boot_ns":900000000000,"closes_unix_ns":2}"#,
    r#"{"kind":"query_admitted","query":"q-1","grant":"g-1","agent":"bot","session":"s-1","process":{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"bq"},"method":"jobs.query","sql":"SELECT 1","tables":["p-one.finance.daily"],"bytes":100,"ceiling":400}"#,
    r#"{"kind":"query_refused","grant":"g-1","agent":"bot","session":"s-1","process":{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"bq"},"request":"POST /queries","sql":"SELECT 2","refusal":{"code":"scope.outside","what":"Access Denied: table p-one.hr.salaries is outside window g-1 of agent bot, which covers p-one.finance:read"}}"#,
    r#"{"kind":"closed","grant":"g-1","agent":"bot","reason":"expired","by":null,"queries":1,"bytes":100}"#,
    r#"{"kind":"kernel_refused","agent":"bot","process":{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"bq"},"verdict":"connect4 refused: no window is open","destination":"10.1.2.3:443","count":2}"#,
    r#"{"kind":"daemon_started","host":"h","version":"1","policy_digest":"later"}"#,
];

fn log() -> (TempDir, Source) {
    log_of(EVENTS)
}

fn log_of(events: &[&str]) -> (TempDir, Source) {
    let dir = TempDir::new().expect("a folder");
    let mut log = Log::open(dir.path(), "boot", |_| ()).expect("opens").log;
    let event = |(nth, text): (usize, &&str)| {
        let at = nth as u64 + 1;
        let event: Event =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (
            Now {
                boot_ns: at,
                unix_ns: at,
            },
            event,
        )
    };
    let events: Vec<(Now, Event)> = events.iter().enumerate().map(event).collect();
    log.append(&events).expect("writes");
    let source = Source::Folder {
        dir: dir.path().to_owned(),
        index: dir.path().join("index.sqlite"),
    };
    (dir, source)
}

fn facts(seq: u64) -> Vec<(&'static str, String)> {
    facts_in(EVENTS, seq)
}

fn facts_in(events: &[&str], seq: u64) -> Vec<(&'static str, String)> {
    let (_dir, source) = log_of(events);
    let filter = Filter {
        first: Some(seq),
        last: Some(seq),
        ..Filter::default()
    };
    let found = source.few(filter, 1).unwrap_or_else(|_| panic!("reads"));
    facts_of(&source, &found[0]).unwrap_or_else(|_| panic!("explains"))
}

#[track_caller]
fn says(facts: &[(&'static str, String)], name: &str, fact: &str) {
    let found = facts.iter().find(|(named, _)| *named == name);
    assert!(
        found.is_some_and(|(_, said)| said.contains(fact)),
        "{name}: {fact} in {facts:?}"
    );
}

#[test]
fn an_admission_is_explained_by_its_rule_policy_facts_and_what_was_left_before_it() {
    let facts = facts(5);
    says(&facts, "rule", "3 of the policy");
    says(&facts, "policy", "new, in force since");
    says(&facts, "method", "jobs.query");
    says(&facts, "reads", "p-one.finance.daily");
    says(&facts, "held for it", "400 bytes");
    says(&facts, "decided by", "uid 5001");
    says(&facts, "queries then", "0 of 10");
    says(&facts, "bytes then", "1 kB left");
}

#[test]
fn the_rule_is_that_of_the_policy_in_force_when_it_was_decided() {
    let decided = EVENTS[3].replace("\"bytes_max\"", "\"rule\":4,\"bytes_max\"");
    let loaded = |digest| format!(r#"{{"kind":"policy_loaded","digest":"{digest}","rules":4}}"#);
    let (second, third) = (loaded("second"), loaded("third"));
    let events = [EVENTS[0], EVENTS[2], &second, &decided, &third, EVENTS[4]];
    for seq in [4, 6] {
        let facts = facts_in(&events, seq);
        says(&facts, "rule", "4 of the policy second");
        says(&facts, "rule when asked", "3 of the policy in force then");
    }
    says(&facts_in(&events, 6), "policy", "third, in force since");
    says(&facts_in(&events, 4), "shown", "digest d");
}

#[test]
fn a_refusal_is_explained_by_its_code_and_the_budget_of_that_moment() {
    let facts = facts(6);
    says(&facts, "code", "scope.outside");
    says(&facts, "means", "outside the window's scope");
    says(&facts, "next step", "enforcer request");
    says(&facts, "sentence", "p-one.hr.salaries");
    says(&facts, "queries then", "1 of 10");
    says(&facts, "bytes then", "600 bytes left");
    says(&facts, "policy", "new, in force since");
}

#[test]
fn a_refusal_of_the_kernel_is_explained_by_its_verdict_and_the_last_window() {
    let facts = facts(8);
    says(&facts, "verdict", "connect4 refused: no window is open");
    says(&facts, "means", "no open window");
    says(&facts, "next step", "enforcer request");
    says(&facts, "last window", "g-1, closed at");
    says(&facts, "destination", "10.1.2.3:443");
}

#[test]
fn a_log_is_looked_up_in_its_index_and_answers_as_if_it_were_read() {
    let (dir, source) = log();
    let filter = Filter {
        grant: Some(GrantId(1)),
        ..Filter::default()
    };
    let found = source.few(filter, 100).unwrap_or_else(|_| panic!("reads"));
    assert_eq!(
        found.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [4, 5, 6, 7]
    );
    assert!(dir.path().join("index.sqlite").exists());
}
