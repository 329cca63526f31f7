//! A request line and a body. What is understood of a line is written anew and understood alike; a job that is let through is let through once
//! more as it is sent on, and says the same.
#![no_main]

use enforcer::bigquery::job::{Job, Limits};
use enforcer::bigquery::{json, route};
use libfuzzer_sys::fuzz_target;

fn limits() -> Limits {
    Limits {
        bytes_max: Some(1000),
        timeout_ms: 5000,
        job: Some("job".to_owned()),
        labels: vec![("grant", "g-1".to_owned())],
    }
}

fn line(line: &str) {
    let Some((method, address)) = line.split_once(' ') else {
        return;
    };
    let (path, query) = address
        .split_once('?')
        .map_or((address, None), |(path, query)| (path, Some(query)));
    let Ok(understood) = route::route(method, path, query) else {
        return;
    };
    let written = understood.path_and_query();
    let (path, query) = written
        .split_once('?')
        .map_or((written.as_str(), None), |(path, query)| {
            (path, Some(query))
        });
    let again = route::route(method, path, query).expect("what is sent on is understood");
    assert_eq!(again.method, understood.method, "{written}");
    assert_eq!(again.target, understood.target, "{written}");
    assert_eq!(again.parameters, understood.parameters, "{written}");
    assert!(again.dropped.is_empty(), "{written}");
}

fn body(body: &[u8]) {
    let Ok(object) = json::object(body) else {
        return;
    };
    let Ok(job) = Job::from_insert(object) else {
        return;
    };
    let sent = job.forward_body(&limits()).to_string();
    let again = json::object(sent.as_bytes()).expect("what is sent on is strict JSON");
    let again = Job::from_insert(again).expect("what is sent on is let through");
    assert_eq!(again.sql(), job.sql());
    assert_eq!(again.named_project(), job.named_project());
    assert_eq!(again.chosen_id(), Some("job"));
}

fuzz_target!(|data: &[u8]| {
    let (first, rest) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[data.len()..]),
    };
    if let Ok(first) = std::str::from_utf8(first) {
        line(first);
    }
    body(rest);
});
