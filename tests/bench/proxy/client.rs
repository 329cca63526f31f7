//! The client's side: one kept-alive connection with as little of its own as possible, and the loops over it that are measured.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use clap::{Args, Subcommand};
use enforcer::clock::{Clock, SystemClock};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::json;

use super::bigquery::{self, ROW_BYTES};
use super::{closes, crowd, tls, token};

/// Requests before those that are measured.
const WARM_UP: u32 = 20;
/// Rows of a page of a result: 16 MiB of them. BigQuery's own pages end at 20 MB.
const PAGE_ROWS: usize = 16 * 1024;
/// How much is read at once, bytes.
const PART: usize = 256 * 1024;
/// What the records of a request take, about, bytes.
const RECORD_BYTES: usize = 1000;
/// How far apart they are made durable.
const BETWEEN_RECORDS: Duration = Duration::from_micros(200);
/// What is asked for where an answer is waited for.
pub(super) const TABLE: &str = "/bigquery/v2/projects/demo-project/datasets/finance/tables/daily";
pub(super) const JOBS: &str = "/bigquery/v2/projects/demo-project/jobs";

/// What a worker does in a process of its own.
#[derive(Subcommand, Clone)]
pub(crate) enum Work {
    /// Plays BigQuery, until killed.
    Bigquery {
        dir: PathBuf,
        addresses: Vec<SocketAddr>,
    },
    /// `tables.get`, one after the other: nanoseconds of each.
    Ask {
        #[command(flatten)]
        to: To,
        count: u32,
    },
    /// A job's result of so many rows, on so many connections at once: megabytes a second of all together.
    Stream {
        #[command(flatten)]
        to: To,
        connections: usize,
        rows: usize,
    },
    /// `jobs.insert`, one after the other, each with a text of its own or all with the same: nanoseconds of each.
    Query {
        #[command(flatten)]
        to: To,
        count: u32,
        #[arg(long)]
        same: bool,
    },
    /// A record's bytes appended to a file of this folder and made durable, one after the other: nanoseconds of each.
    Record { dir: PathBuf, count: u32 },
    /// In the workloads of many agents, one after the other.
    Crowd(crowd::Crowd),
    /// Windows that close while something is asked and something is sent: a line for each.
    Closes(closes::Closes),
    /// Windows' first queries, before a token was minted and after: a line for each.
    First(token::First),
}

/// Whom a client speaks to, and whom it trusts.
#[derive(Args, Clone, Debug)]
pub(crate) struct To {
    /// A name or address, and a port.
    pub(super) server: String,
    /// Roots.
    pub(super) roots: PathBuf,
}

/// Works, and prints what came of it.
pub(crate) fn run(work: &Work) {
    match work {
        Work::Bigquery { dir, addresses } => bigquery::serve(dir, addresses),
        Work::Ask { to, count } => {
            let mut link = Link::to(to);
            print(&timed(*count, |_| link.must("GET", TABLE, "")));
        }
        Work::Stream {
            to,
            connections,
            rows,
        } => println!("{}", stream(to, *connections, *rows)),
        Work::Query { to, count, same } => {
            let mut link = Link::to(to);
            print(&timed(*count, |at| {
                let body = job(&name_of(at), if *same { 0 } else { at });
                link.must("POST", JOBS, &body);
            }));
        }
        Work::Record { dir, count } => print(&record(dir, *count)),
        Work::Crowd(crowd) => crowd::run(crowd),
        Work::Closes(closes) => closes::run(closes),
        Work::First(first) => token::run(first),
    }
}

/// Nanoseconds of each.
fn timed(count: u32, mut work: impl FnMut(u32)) -> Vec<u64> {
    (0..WARM_UP).for_each(&mut work);
    let each = |at| {
        let began = SystemClock.now().boot_ns;
        work(at);
        SystemClock.now().boot_ns - began
    };
    (WARM_UP..WARM_UP + count).map(each).collect()
}

fn print(samples: &[u64]) {
    let samples: Vec<String> = samples.iter().map(ToString::to_string).collect();
    println!("{}", samples.join(" "));
}

pub(super) fn name_of(at: u32) -> String {
    format!("bench-{}-{at}", std::process::id())
}

pub(super) fn job(name: &str, at: u32) -> String {
    let sql = format!("SELECT day, amount FROM finance.daily WHERE amount > {at} ORDER BY day");
    json!({
        "jobReference": {"projectId": "demo-project", "jobId": name},
        "configuration": {"query": {"query": sql, "useLegacySql": false}},
    })
    .to_string()
}

/// Each connection has a job of its own before any of them begins.
fn stream(to: &To, connections: usize, rows: usize) -> u64 {
    let barrier = Barrier::new(connections + 1);
    std::thread::scope(|scope| {
        for at in 0..connections {
            let barrier = &barrier;
            scope.spawn(move || {
                let name = name_of(u32::try_from(at).expect("few"));
                let mut link = Link::to(to);
                link.must("POST", JOBS, &job(&name, 0));
                let path = format!("/bigquery/v2/projects/demo-project/queries/{name}");
                barrier.wait();
                let path = format!("{path}?location=US&maxResults={PAGE_ROWS}");
                let pages = rows / PAGE_ROWS;
                let bytes: usize = (0..pages).map(|_| link.drain(&path)).sum();
                assert_eq!(bytes, rows * ROW_BYTES, "the whole result");
                barrier.wait();
            });
        }
        barrier.wait();
        let began = SystemClock.now().boot_ns;
        barrier.wait();
        let bytes = (connections * rows * ROW_BYTES) as u64;
        bytes * 1000 / (SystemClock.now().boot_ns - began)
    })
}

/// With a pause before each, as there is between requests: a disk that was asked a moment ago answers sooner.
fn record(dir: &Path, count: u32) -> Vec<u64> {
    let path = dir.join("record");
    let mut file = File::create(&path).expect("makes a file");
    let each = |_| {
        std::thread::sleep(BETWEEN_RECORDS);
        let began = SystemClock.now().boot_ns;
        file.write_all(&[b'x'; RECORD_BYTES]).expect("writes");
        file.sync_data().expect("makes it durable");
        SystemClock.now().boot_ns - began
    };
    let samples = (0..count).map(each).collect();
    std::fs::remove_file(path).expect("removes it");
    samples
}

/// One connection.
pub(super) struct Link(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Link {
    pub(super) fn to(to: &To) -> Self {
        let stream = TcpStream::connect(&to.server)
            .unwrap_or_else(|error| panic!("connecting to {}: {error}", to.server));
        stream.set_nodelay(true).expect("sets it");
        let name = ServerName::try_from(tls::NAME).expect("a name");
        let config = Arc::new(tls::client(&to.roots));
        let tls = ClientConnection::new(config, name).expect("a connection");
        Self(BufReader::new(StreamOwned::new(tls, stream)))
    }

    /// Asks, and reads the head of the answer: its status and the length of its body; none where it comes in chunks.
    pub(super) fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<(u16, Option<usize>)> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer ya29.the-agents-own-token\r\naccept: application/json\r\n\
             user-agent: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}",
            tls::NAME
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        self.0.get_mut().flush()?;
        let mut first = String::new();
        self.0.read_line(&mut first)?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut length = None;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok((status, length))
    }

    /// Asks, and reads the whole answer.
    pub(super) fn exchange(&mut self, method: &str, path: &str, body: &str) -> io::Result<u16> {
        let (status, length) = self.ask(method, path, body)?;
        self.count(length)?;
        Ok(status)
    }

    /// The socket alone: what TLS needs to go on is forgotten.
    pub(super) fn into_socket(self) -> TcpStream {
        self.0.into_inner().into_parts().1
    }

    pub(super) fn must(&mut self, method: &str, path: &str, body: &str) {
        let status = self.exchange(method, path, body).expect("an answer");
        let to = self.0.get_ref().sock.peer_addr();
        assert_eq!(status, 200, "{to:?} {method} {path}");
    }

    /// Gets what streams, and counts it.
    fn drain(&mut self, path: &str) -> usize {
        let (status, length) = self.ask("GET", path, "").expect("an answer");
        assert_eq!(status, 200, "GET {path}");
        self.count(length).expect("reads")
    }

    /// Reads a whole body, and counts it.
    fn count(&mut self, length: Option<usize>) -> io::Result<usize> {
        if let Some(length) = length {
            return self.count_part(length);
        }
        let mut got = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let chunk = usize::from_str_radix(line.trim_end(), 16);
            let chunk = chunk.map_err(|_| io::ErrorKind::UnexpectedEof)?;
            got += self.count_part(chunk)?;
            self.0.read_line(&mut line)?;
            if chunk == 0 {
                return Ok(got);
            }
        }
    }

    fn count_part(&mut self, length: usize) -> io::Result<usize> {
        let (mut got, mut part) = (0, vec![0; PART]);
        while got < length {
            let most = PART.min(length - got);
            match self.0.read(&mut part[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => got += more,
            }
        }
        Ok(got)
    }

    /// What comes next of a body.
    pub(super) fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        self.0.read(part)
    }
}
