//! A daemon for tests, which has a log and says so: what is asked of it is answered as the daemon does it, newest where there is a limit.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use enforcer_proto::audit::Record;
use enforcer_proto::search::{Filter, Search};
use enforcer_proto::wire::{self, Ask, Hello, RECORDS_PER_REPLY_MAX, Reply};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::Msg;

/// Its socket, and its log. It is gone with this.
#[derive(Debug)]
pub(crate) struct Fake {
    path: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// One with such a log.
    pub(crate) fn with(name: &str, log: Vec<String>) -> Self {
        let name = format!("console-{name}-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).expect("binds");
        let log = Arc::new(Mutex::new(log));
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log) = (stream.expect("a console comes"), Arc::clone(&kept));
                thread::spawn(move || serve(&mut stream, &log));
            }
        });
        Self { path, log }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.path
    }

    /// From here on it has another log.
    pub(crate) fn becomes(&self, log: Vec<String>) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A line of its log.
pub(crate) fn line(seq: u64, hash: &str, event: &Value) -> String {
    json!({"seq": seq, "boot_id": "b", "boot_ns": 1, "unix_ns": seq * 1_000, "event": event, "prev": "x", "hash": hash}).to_string()
}

fn frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; wire::body_length(head, wire::FRAME_BYTES_MAX).ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn says(stream: &mut UnixStream, reply: &impl Serialize) -> Option<()> {
    stream.write_all(&wire::encode(reply).ok()?).ok()
}

/// Serves one connection until it ends, or until a log that is followed has been told: it says no more then, and closes where it becomes another.
fn serve(stream: &mut UnixStream, log: &Mutex<Vec<String>>) -> Option<()> {
    frame(stream)?;
    says(stream, &Hello::ours())?;
    loop {
        let ask: Ask = wire::decode(&frame(stream)?).ok()?;
        let lines = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ask::Status = ask {
            let status = crate::demo::story().ok()?.into_iter().find_map(|msg| {
                let Msg::Status(status) = msg else {
                    return None;
                };
                Some(status)
            });
            let mut status = status?;
            status.log.records = lines.last().map_or(0, |line| number_of(line));
            status.log.first_record = lines.first().map_or(1, |line| number_of(line));
            says(stream, &Reply::Status(status))?;
        } else if let Ask::Log {
            from,
            follow,
            limit,
            filter,
        } = ask
        {
            for part in wanted(&lines, from, limit, *filter).chunks(RECORDS_PER_REPLY_MAX) {
                says(stream, &Reply::Records(part.to_vec()))?;
            }
            loop {
                if !follow {
                    break;
                }
                if *log.lock().unwrap_or_else(PoisonError::into_inner) != lines {
                    return None;
                }
                thread::sleep(std::time::Duration::from_millis(5));
            }
            says(stream, &Reply::Records(Vec::new()))?;
        } else {
            return None;
        }
    }
}

fn number_of(line: &str) -> u64 {
    serde_json::from_str::<Record>(line).map_or(0, |record| record.seq)
}

fn wanted(lines: &[String], from: u64, limit: Option<u32>, filter: Filter) -> Vec<String> {
    let mut search = Search::new(filter);
    let mut is_wanted = |line: &&String| {
        let record: Record = serde_json::from_str(line).expect("a record");
        record.seq >= from && search.wants(&record)
    };
    let mut wanted: Vec<String> = lines.iter().filter(&mut is_wanted).cloned().collect();
    let most = limit.map_or(usize::MAX, |limit| limit as usize);
    wanted.drain(..wanted.len().saturating_sub(most));
    wanted
}
