//! What it costs a process that is no agent to reach another name where BigQuery answers too: by way of the proxy, which reads its hello
//! and passes it on, against a connection straight to a host that nobody protects. Same client, same server, same wire.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use harness::programs::tls_hello;
use harness::stage::{BIGQUERY4, OTHER4, Side};
use harness::world::World;
use serde_json::{Map, Value, json};

use crate::turns::{in_turns, said, worker};
use crate::worker::raise_files;

/// A uid that is no agent's.
const UID: u32 = 3001;
const EXCHANGES: &str = "400";
/// How much is sent over one connection, bytes.
const BYTES: &str = "1000000000";

/// Measures it with a daemon of its own, and prints it.
pub(crate) fn bench(figures: &mut Map<String, Value>) {
    raise_files();
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    let hello = world.stage.dir().join("hello");
    std::fs::write(&hello, tls_hello("storage.googleapis.com")).expect("writes");
    let hello = hello.display().to_string();
    let mut server = worker(&world.stage, Side::Internet, None, &["serve", &hello]);
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("says that it serves");
    let place = world.stage.cgroups.make("other");
    let client = |work: &str, to: Ipv4Addr, count: &str| {
        let to = SocketAddr::from((to, 443)).to_string();
        let who: (&Path, u32) = (&place, UID);
        said(worker(
            &world.stage,
            Side::Host,
            Some(who),
            &[work, &to, &hello, count],
        ))
    };
    println!(
        "{:<48}{:>10}{:>10}{:>8}",
        "", "straight", "passed on", "ratio"
    );
    for (key, what, work, count) in [
        (
            "exchange_us",
            "a new connection, a request and its answer, µs",
            "exchange",
            EXCHANGES,
        ),
        ("fetch_mb_s", "one connection's bytes, MB/s", "fetch", BYTES),
    ] {
        let [straight, passed] = in_turns([OTHER4, BIGQUERY4], |to| client(work, to, count));
        let ratio = passed as f64 / straight as f64;
        println!("{what:<48}{straight:>10}{passed:>10}{ratio:>8.2}");
        let figure = json!({"straight": straight, "passed_on": passed, "ratio": ratio});
        figures.insert(key.to_owned(), figure);
    }
    server.kill().expect("kills");
    server.wait().expect("ends");
}
