//! A client that says exactly what it is told, over TLS, to where BigQuery answers.

use std::process::Stdio;

use harness::world::{Who, World};
use serde_json::json;

/// Makes each connection that it is told, with the server's name that it is told, sends one part after the other, each once the one before
/// is answered, and prints the answers; or the error that ended them.
const TALK: &str = r#"
import json, socket, ssl, sys

def answer(stream):
    got = b""
    while b"\r\n\r\n" not in got:
        part = stream.recv(65536)
        if not part:
            return got
        got += part
    head, body = got.split(b"\r\n\r\n", 1)
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0].split(b":")[1]):
        part = stream.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body

def talk(context, address, name, parts):
    said = []
    try:
        stream = context.wrap_socket(socket.create_connection((address, 443), 15), server_hostname=name)
        for part in parts:
            stream.sendall(part.encode("latin-1"))
            said.append(answer(stream).decode("latin-1"))
    except OSError as error:
        said.append(type(error).__name__)
    return said

context = ssl.create_default_context(cafile=sys.argv[2])
print(json.dumps([talk(context, sys.argv[1], name, parts) for name, parts in json.load(sys.stdin)]))
"#;

pub(super) const BIGQUERY: &str = "bigquery.googleapis.com";
pub(super) const JOBS: &str = "/bigquery/v2/projects/demo-project/jobs";
pub(super) const QUERIES: &str = "/bigquery/v2/projects/demo-project/queries";
pub(super) const DATASETS: &str = "/bigquery/v2/projects/demo-project/datasets";

/// One connection: the server's name in its hello, and what is sent over it, each byte a character.
pub(super) type Talk = (&'static str, Vec<String>);

/// What somebody's connections are answered.
pub(super) fn talk(world: &World, who: Who, talks: &[Talk]) -> Vec<Vec<String>> {
    use std::io::Write;
    let mut child = world
        .run_as(who, "/usr/bin/python3")
        .args(["-c", TALK, &world.bigquery_here().to_string()])
        .arg(world.stage.dir().join("run/ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = child.stdin.take().expect("piped");
    write!(input, "{}", json!(talks)).expect("writes");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    serde_json::from_slice(&output.stdout).expect("prints JSON")
}

/// What the agent's requests are answered, each sent over a connection of its own.
pub(super) fn each(world: &World, requests: &[String]) -> Vec<String> {
    let talks: Vec<Talk> = requests
        .iter()
        .map(|request| (BIGQUERY, vec![request.clone()]))
        .collect();
    let answers = talk(world, Who::Agent, &talks);
    answers.into_iter().map(|said| said.concat()).collect()
}

/// Each request is refused with its code.
pub(super) fn each_is_refused(world: &World, cases: &[(&str, String)]) {
    let requests: Vec<String> = cases.iter().map(|(_, request)| request.clone()).collect();
    for ((code, request), answer) in cases.iter().zip(each(world, &requests)) {
        let asked: String = request.chars().take(300).collect();
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains(&format!("[{code}]")),
            "{code}: {asked}\n{answer}"
        );
    }
}

/// A request without a body.
pub(super) fn get(path: &str) -> String {
    get_of(path, BIGQUERY)
}

/// The same, for a host.
pub(super) fn get_of(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A request with a body, and with more lines in its head.
pub(super) fn post(path: &str, more: &str, body: &str) -> String {
    let length = body.chars().count();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {BIGQUERY}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    )
}

/// A query at once.
pub(super) fn query(sql: &str) -> String {
    post(
        QUERIES,
        "",
        &json!({"query": sql, "useLegacySql": false}).to_string(),
    )
}
