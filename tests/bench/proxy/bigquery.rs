//! BigQuery as fast as it can be played: the answers that are measured are made before they are asked for, a thread for each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::tls;

/// Bytes of a row of a result: so many rows, so many bytes.
pub(super) const ROW_BYTES: usize = 1024;
/// How much is written at once, bytes.
const PART: usize = 64 * 1024;
/// A table's rows come slowly: so much each time, bytes, and so long in between.
const DRIP: usize = 4096;
const PAUSE: Duration = Duration::from_millis(10);
/// How much a table's rows are, bytes: more than is sent while a short window is open.
pub(super) const DRIPPED: usize = 16 * 1024 * 1024;

type Wire = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// Serves on these addresses until killed, with the certificate in `dir`.
pub(super) fn serve(dir: &Path, addresses: &[SocketAddr]) {
    let tls = Arc::new(tls::server(dir));
    let listeners: Vec<TcpListener> = addresses
        .iter()
        .map(|address| TcpListener::bind(address).expect("binds"))
        .collect();
    println!("serves");
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| {
                for stream in listener.incoming() {
                    let (stream, tls) = (stream.expect("accepts"), Arc::clone(&tls));
                    // A connection ends when its client goes, or breaks off: neither is news.
                    std::thread::spawn(move || answer_all(stream, tls));
                }
            });
        }
    });
}

fn answer_all(stream: TcpStream, tls: Arc<ServerConfig>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let tls = ServerConnection::new(tls).expect("a connection");
    let mut wire = BufReader::new(StreamOwned::new(tls, stream));
    while let Some((line, body)) = read(&mut wire)? {
        answer(wire.get_mut(), &line, &body)?;
    }
    Ok(())
}

/// The next request's line and body.
fn read(wire: &mut Wire) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut first = String::new();
    if wire.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        wire.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().expect("a number");
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    wire.read_exact(&mut body)?;
    Ok(Some((first, body)))
}

fn answer(wire: &mut impl Write, line: &str, body: &[u8]) -> std::io::Result<()> {
    let target = line.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if line.starts_with("POST") {
        return whole(wire, &job(body).to_string());
    }
    if path.ends_with("/data") {
        return dripped(wire);
    }
    if path.contains("/queries/") {
        let rows = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("maxResults="));
        let rows: usize = rows.map_or(0, |rows| rows.parse().expect("a number"));
        return streamed(wire, rows * ROW_BYTES);
    }
    whole(wire, TABLE)
}

fn head(bytes: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=UTF-8\r\ncontent-length: {bytes}\r\n\r\n"
    )
}

fn whole(wire: &mut impl Write, body: &str) -> std::io::Result<()> {
    wire.write_all(format!("{}{body}", head(body.len())).as_bytes())?;
    wire.flush()
}

fn streamed(wire: &mut impl Write, bytes: usize) -> std::io::Result<()> {
    wire.write_all(head(bytes).as_bytes())?;
    let part = vec![b' '; PART];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PART);
        wire.write_all(&part[..now])?;
        left -= now;
    }
    wire.flush()
}

fn dripped(wire: &mut impl Write) -> std::io::Result<()> {
    wire.write_all(head(DRIPPED).as_bytes())?;
    for _ in 0..DRIPPED / DRIP {
        wire.write_all(&[b' '; DRIP])?;
        wire.flush()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// A job, done at once, or what its dry run says.
fn job(body: &[u8]) -> Value {
    let asked: Value = serde_json::from_slice(body).expect("JSON");
    let configuration = &asked["configuration"];
    let id = asked["jobReference"]["jobId"].as_str().unwrap_or("job_1");
    let table = json!({"projectId": "demo-project", "datasetId": "finance", "tableId": "daily"});
    let mut query = json!({"statementType": "SELECT", "totalBytesProcessed": "8000", "referencedTables": [table]});
    if configuration["dryRun"] != true {
        query["totalBytesBilled"] = "10485760".into();
    }
    json!({
        "kind": "bigquery#job", "id": format!("demo-project:US.{id}"),
        "jobReference": {"projectId": "demo-project", "jobId": id, "location": "US"},
        "configuration": configuration, "status": {"state": "DONE"},
        "statistics": {"creationTime": "1", "startTime": "1", "endTime": "2", "totalBytesProcessed": "8000", "query": query},
    })
}

/// An answer to `tables.get`, as long as those of a table of ten columns are.
const TABLE: &str = r#"{"kind":"bigquery#table","etag":"6wHWOuLgYZGPzTnDoKzUZQ==","id":"demo-project:finance.daily","selfLink":"https://bigquery.googleapis.com/bigquery/v2/projects/demo-project/datasets/finance/tables/daily","tableReference":{"projectId":"demo-project","datasetId":"finance","tableId":"daily"},"schema":{"fields":[{"name":"day","type":"DATE","mode":"NULLABLE"},{"name":"amount","type":"INTEGER","mode":"NULLABLE"},{"name":"currency","type":"STRING","mode":"NULLABLE"},{"name":"account","type":"STRING","mode":"NULLABLE"},{"name":"region","type":"STRING","mode":"NULLABLE"},{"name":"booked","type":"TIMESTAMP","mode":"NULLABLE"},{"name":"booked_by","type":"STRING","mode":"NULLABLE"},{"name":"is_final","type":"BOOLEAN","mode":"NULLABLE"},{"name":"remark","type":"STRING","mode":"NULLABLE"},{"name":"rate","type":"NUMERIC","mode":"NULLABLE"}]},"numBytes":"8000","numLongTermBytes":"0","numRows":"1000","creationTime":"1795680000000","lastModifiedTime":"1795680000000","type":"TABLE","location":"US","numTotalLogicalBytes":"8000","numActiveLogicalBytes":"8000","numLongTermLogicalBytes":"0"}"#;
