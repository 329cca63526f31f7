//! Answers of the daemon as text or JSON. What an agent wrote is made safe to show.

use enforcer_proto::principal::{ProcessOrigin, shown_name};
use enforcer_proto::size;
use enforcer_proto::text::{safe_json, safe_line, utc, wrapped};
use enforcer_proto::time::NS_PER_S;
use enforcer_proto::wire::{GrantView, Reply, RequestView, Status};

use super::Failure;

/// How wide reasons and SQL are shown, characters. They are shown whole: what is decided on is what was read.
const WIDTH: usize = 100;
/// The most requests that wait, and the most open windows, that a status prints for people: more scroll away what is above them.
const PRINTED_MAX: usize = 32;

pub(super) fn reply(reply: &Reply, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", safe_json(&serde_json::to_string(&as_json(reply)?)?));
        return Ok(());
    }
    match reply {
        Reply::Requested {
            request,
            grant: None,
            ..
        } => {
            println!(
                "{request} is pending: a person must decide. Watch it with `enforcer status`, or ask with --wait."
            );
        }
        Reply::Requested {
            request,
            grant: Some(grant),
            ..
        } => {
            println!("{request} was granted by the policy.");
            print_grant(grant);
        }
        Reply::Opened(grant) => print_grant(grant),
        Reply::Counted(waiting) => println!(
            "counted: {} waits on for {}",
            waiting.request,
            waiting.wanting.as_deref().unwrap_or("nobody")
        ),
        Reply::GivenBack(grants) => grants.iter().for_each(print_grant),
        Reply::Done => println!("done"),
        Reply::Status(status) => print_status(status),
        Reply::Refused(_)
        | Reply::Records(_)
        | Reply::Joined(_)
        | Reply::Notified(_)
        | Reply::Checked(_) => {}
    }
    Ok(())
}

fn as_json(reply: &Reply) -> Result<serde_json::Value, Failure> {
    Ok(match reply {
        Reply::Requested {
            request,
            grant,
            wanting,
            expires_in_ns,
        } => {
            let state = grant.as_ref().map_or("pending", |_| "open");
            serde_json::json!({
                "state": state, "request": request, "grant": grant, "wanting": wanting, "expires_in_ns": expires_in_ns,
            })
        }
        Reply::Counted(request) => serde_json::json!({"waiting": request}),
        Reply::Opened(grant) => {
            serde_json::json!({"state": "open", "request": grant.request, "grant": grant})
        }
        Reply::GivenBack(grants) => serde_json::json!({"given_back": grants}),
        Reply::Status(status) => serde_json::to_value(status)?,
        Reply::Done
        | Reply::Refused(_)
        | Reply::Records(_)
        | Reply::Joined(_)
        | Reply::Notified(_)
        | Reply::Checked(_) => {
            serde_json::json!({"done": true})
        }
    })
}

/// Nanoseconds as people count them.
pub(super) fn left(ns: u64) -> String {
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
            utc(grant.closes_unix_ns)
        ),
        None => "past its end".to_owned(),
        Some(why) => format!("closed at {}: {why}", utc(grant.closes_unix_ns)),
    };
    println!("{}  {}  {}", grant.grant, grant.agent, grant.scope);
    println!("    {state}");
    println!(
        "    {}/{} queries, {} of {} and {} held, {} of {} of rows, {}/{} jobs at once; {} decided on {}",
        grant.queries,
        grant.queries_max,
        size::whole(grant.bytes),
        size::whole(grant.bytes_max),
        size::whole(grant.held_bytes),
        size::whole(grant.returned_bytes),
        size::whole(grant.returned_bytes_max),
        grant.jobs_at_once,
        grant.jobs_at_once_max,
        grant.approver,
        grant.request
    );
    if let Some(reason) = &grant.break_glass {
        print_text("OPENED IN AN EMERGENCY", reason);
    }
}

/// A request as approvers are shown it.
pub(super) fn request(request: &RequestView) {
    println!(
        "{}  {}  {} for {}",
        request.request, request.agent, request.scope, request.ttl
    );
    if (&request.scope, request.ttl) != (&request.ask.scope, request.ask.ttl) {
        println!(
            "    narrowed: {} for {} was asked for",
            request.ask.scope, request.ask.ttl
        );
    }
    println!("    at most: {}", request.budget);
    print_text("reason", &request.ask.reason);
    if request.ends_with_process {
        println!("    for a command: it ends with that process");
    }
    if !request.joined.is_empty() {
        let uids: Vec<String> = request.joined.iter().map(u32::to_string).collect();
        println!(
            "    queries of uids {} wait with it as well",
            uids.join(", ")
        );
    }
    if let Some(from) = &request.from_query {
        println!(
            "    made of a query without a window, {} so far; {}",
            request.queries.max(1),
            from.said()
        );
        if let Some(named) = &from.named {
            println!("    its text names: {}", named.scope);
        }
        if let Some(estimate) = &from.estimate {
            println!("    {}", estimate.said());
        }
        if let Some(sql) = &from.sql {
            print_text("SQL", sql);
        }
        if let Some(cut) = &from.sql_cut {
            println!(
                "    it goes on: all of it is {} bytes, SHA-256 {}",
                cut.bytes, cut.sha256
            );
        }
    }
    println!(
        "    asked by pid {} (uid {}), rule {}, waits {} more",
        request.pid,
        request.uid,
        request.rule,
        left(request.expires_in_ns)
    );
    if let Some(origin) = &request.origin {
        print_origin(request, origin);
    }
    println!(
        "    held windows for {} of the last 24 h, of {} that the policy allows",
        minutes(request.held_in_day_s),
        minutes(request.held_in_day_s_max)
    );
    if !request.agreed.is_empty() {
        let agreed: Vec<String> = request.agreed.iter().map(ToString::to_string).collect();
        println!("    agreed: uids {}", agreed.join(", "));
    }
}

/// Where the process that asked comes from: names that it and others chose.
fn print_origin(request: &RequestView, origin: &ProcessOrigin) {
    let above = origin.chain(request.uid);
    let above = if above.is_empty() {
        String::new()
    } else {
        format!(" ← {above}")
    };
    let name = shown_name(&request.comm);
    println!("    process: {name} {}{above}", request.pid);
    if let Some(place) = origin.place() {
        println!("    unit: {place}");
    }
    if let Some(container) = origin.container() {
        println!("    container: {container}");
    }
}

/// A text that somebody else chose: whole, made safe to show, on as many lines as it takes.
fn print_text(name: &str, text: &str) {
    for (nth, line) in wrapped(text, WIDTH).iter().enumerate() {
        match nth {
            0 => println!("    {name}: {line}"),
            _ => println!("    | {line}"),
        }
    }
}

fn minutes(seconds: u64) -> String {
    format!("{} min", seconds.div_ceil(60))
}

/// A request that was asked for by its number: it may wait no more.
pub(super) fn request_and_state(shown: &RequestView) {
    if shown.state == "pending" {
        return print_request(shown);
    }
    request(shown);
    println!("    {}", shown.state);
}

fn print_request(waiting: &RequestView) {
    request(waiting);
    match &waiting.wanting {
        Some(wanting) => println!("    wanting: {wanting}"),
        None => println!("    no rule of the policy covers it any more: nobody can approve it"),
    }
    // It is told to those who may decide.
    if !waiting.digest.is_empty() {
        println!(
            "    approve: enforcer approve {} --seen {}",
            waiting.request, waiting.digest
        );
    }
}

/// Whether all is well, and each thing that is looked at.
fn print_health(status: &Status) {
    if status.unhealthy.is_empty() {
        println!("healthy: {} addresses protected", status.endpoints);
    }
    for fault in &status.unhealthy {
        println!("UNHEALTHY: {fault}");
    }
    if let Some(warning) = status.enforce.warning() {
        println!("NOTE: {warning}");
    }
    for check in &status.checks {
        let said = safe_line(&check.said, usize::MAX);
        println!("  {} {}: {said}", check.state.mark(), check.what);
    }
}

fn print_status(status: &Status) {
    println!(
        "host {}, enforcer {}, {}",
        status.host,
        status.version,
        utc(status.now.unix_ns)
    );
    print_health(status);
    // An agent is not told of them; a log that is told of has a record.
    if status.log.records > 0 {
        print_log(status);
        let kernel = &status.kernel;
        println!(
            "kernel: {} connections led to the proxy, {} operations refused, {} packets dropped, {} events lost",
            kernel.redirected, kernel.denied, kernel.egress_dropped, kernel.events_lost
        );
    }
    for hook in &status.hooks {
        let trouble = hook.trouble.as_ref().map_or_else(String::new, |why| {
            format!("; the last attempt failed: {why}")
        });
        println!(
            "hook {}: {} notices delivered, {} wait, {} given up{trouble}",
            hook.hook, hook.delivered, hook.waiting, hook.given_up
        );
    }
    for rule in &status.rules {
        println!("rule {}: {}", rule.rule, rule.said);
    }
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
    for request in pending.iter().take(PRINTED_MAX) {
        print_request(request);
    }
    print_not_printed(pending.len(), "wait");
    let wait = status.requests_waiting_left_out;
    if wait > 0 {
        println!(
            "{wait} more wait and are not shown here: `enforcer status --request REQUEST` shows one."
        );
    }
    print_left_out(status.requests_left_out, "requests that have ended");
    let open: Vec<_> = status.grants.iter().filter(|grant| grant.open).collect();
    println!(
        "\n{}",
        if open.is_empty() {
            "No window is open. All BigQuery egress is denied."
        } else {
            "Open windows:"
        }
    );
    for grant in open.iter().take(PRINTED_MAX) {
        print_grant(grant);
    }
    print_not_printed(open.len(), "are open");
    print_left_out(status.grants_left_out, "windows");
    if status.agents_left_out > 0 {
        println!(
            "\n{} agents more than a status has room for, none of which holds a window or waits for one before those that are told of.",
            status.agents_left_out
        );
    }
}

fn print_log(status: &Status) {
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
    if log.first_record > 1 {
        println!(
            "  records before {} were removed, as the retention says",
            log.first_record
        );
    }
    match &log.checkpoint {
        Some(checkpoint) => println!(
            "  checkpoint: record {}, {} s ago",
            checkpoint.records,
            status.now.unix_ns.saturating_sub(checkpoint.unix_ns) / NS_PER_S
        ),
        None => println!("  checkpoint: none was signed yet"),
    }
}

/// How many more than were printed, and where they are.
fn print_not_printed(count: usize, what: &str) {
    if let Some(line) = not_printed(count, what) {
        println!("{line}");
    }
}

fn not_printed(count: usize, what: &str) -> Option<String> {
    let more = count.checked_sub(PRINTED_MAX).filter(|more| *more > 0)?;
    Some(format!(
        "{more} more {what}: `enforcer status --json` prints all, `enforcer-console` shows them."
    ))
}

fn print_left_out(count: u64, what: &str) {
    if count > 0 {
        println!("{count} more {what} are remembered and not shown here; the log has them.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printed_for_people_is_counted_with_where_it_is() {
        assert_eq!(not_printed(0, "are open"), None);
        assert_eq!(not_printed(PRINTED_MAX, "are open"), None);
        let said = not_printed(1000, "are open").expect("more than are printed");
        assert!(said.starts_with("968 more are open") && said.contains("--json"));
    }
}
