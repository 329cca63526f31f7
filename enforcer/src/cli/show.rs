//! Answers of the daemon as text or JSON. What an agent wrote is made safe to show.

use enforcer_proto::text::safe_line;
use enforcer_proto::wire::{GrantView, Reply, RequestView, Status};
use jiff::Timestamp;

use super::Failure;

/// The longest reason that is shown on one line, characters.
const REASON_CHARS: usize = 120;

pub(super) fn reply(reply: &Reply, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string(&as_json(reply)?)?);
        return Ok(());
    }
    match reply {
        Reply::Requested {
            request,
            grant: None,
        } => {
            println!(
                "{request} is pending: a person must decide. Watch it with `enforcer status`, or ask with --wait."
            );
        }
        Reply::Requested {
            request,
            grant: Some(grant),
        } => {
            println!("{request} was granted by the policy.");
            print_grant(grant);
        }
        Reply::Opened(grant) => print_grant(grant),
        Reply::Done => println!("done"),
        Reply::Status(status) => print_status(status),
        Reply::Refused(_) | Reply::Records(_) | Reply::Joined(_) => {}
    }
    Ok(())
}

fn as_json(reply: &Reply) -> Result<serde_json::Value, Failure> {
    Ok(match reply {
        Reply::Requested { request, grant } => {
            serde_json::json!({"request": request, "grant": grant})
        }
        Reply::Opened(grant) => serde_json::json!({"grant": grant}),
        Reply::Status(status) => serde_json::to_value(status)?,
        Reply::Done | Reply::Refused(_) | Reply::Records(_) | Reply::Joined(_) => {
            serde_json::json!({"done": true})
        }
    })
}

/// Unix nanoseconds as people read them, UTC.
pub(super) fn time(unix_ns: u64) -> String {
    let at = i64::try_from(unix_ns / 1_000_000)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| unix_ns.to_string(), |at| format!("{at:.3}"))
}

/// Nanoseconds as people count them.
fn left(ns: u64) -> String {
    let seconds = ns.div_ceil(1_000_000_000);
    if seconds >= 120 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

fn print_grant(grant: &GrantView) {
    let state = match &grant.closed {
        None if grant.open => format!(
            "open, closes in {} at {}",
            left(grant.closes_in_ns),
            time(grant.closes_unix_ns)
        ),
        None => "past its end".to_owned(),
        Some(why) => format!("closed at {}: {why}", time(grant.closes_unix_ns)),
    };
    println!("{}  {}  {}", grant.grant, grant.agent, grant.scope);
    println!("    {state}");
    println!(
        "    {}/{} queries, {}/{} bytes; {} decided on {}",
        grant.queries,
        grant.queries_max,
        grant.bytes,
        grant.bytes_max,
        grant.approver,
        grant.request
    );
}

fn print_request(request: &RequestView) {
    println!(
        "{}  {}  {} for {}",
        request.request, request.agent, request.ask.scope, request.ask.ttl
    );
    println!(
        "    reason: {}",
        safe_line(&request.ask.reason, REASON_CHARS)
    );
    println!(
        "    asked by pid {} (uid {}), rule {}, waits {} more",
        request.pid,
        request.uid,
        request.rule,
        left(request.expires_in_ns)
    );
    println!(
        "    approve: enforcer approve {} --seen {}",
        request.request, request.digest
    );
}

fn print_status(status: &Status) {
    println!(
        "host {}, enforcer {}, {}",
        status.host,
        status.version,
        time(status.now.unix_ns)
    );
    if status.unhealthy.is_empty() {
        println!("healthy: {} addresses protected", status.endpoints);
        for guard in &status.guards {
            println!("  {guard}");
        }
    }
    for fault in &status.unhealthy {
        println!("UNHEALTHY: {fault}");
    }
    if let Some(warning) = status.enforce.warning() {
        println!("NOTE: {warning}");
    }
    let log = &status.log;
    println!(
        "log: {} records, {} MB, {} MB free",
        log.records,
        log.bytes / 1_000_000,
        log.free_bytes.map_or_else(
            || "unknown".to_owned(),
            |free| (free / 1_000_000).to_string()
        )
    );
    let kernel = &status.kernel;
    println!(
        "kernel: {} connections led to the proxy, {} operations refused, {} packets dropped, {} events lost",
        kernel.redirected, kernel.denied, kernel.egress_dropped, kernel.events_lost
    );
    let pending: Vec<_> = status
        .requests
        .iter()
        .filter(|request| request.state == "pending")
        .collect();
    println!(
        "\n{}",
        if pending.is_empty() {
            "No request is waiting."
        } else {
            "Requests that wait:"
        }
    );
    pending.iter().for_each(|request| print_request(request));
    print_left_out(status.requests_left_out, "requests");
    let open: Vec<_> = status.grants.iter().filter(|grant| grant.open).collect();
    println!(
        "\n{}",
        if open.is_empty() {
            "No window is open. All BigQuery egress is denied."
        } else {
            "Open windows:"
        }
    );
    open.iter().for_each(|grant| print_grant(grant));
    print_left_out(status.grants_left_out, "windows");
}

fn print_left_out(count: u64, what: &str) {
    if count > 0 {
        println!("{count} more {what} are remembered and not shown here; the log has them.");
    }
}
