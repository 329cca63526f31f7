//! What a screen of the console costs: a thousand windows open, five thousand queries a second coming, each frame with all that came since the one
//! before; beside it the same screen with nothing on it. Reading the records is part of it here, though the console has a thread of its own for that.

use enforcer::clock::{Clock, SystemClock};
use enforcer_console::sheet::Sheet;
use enforcer_proto::wire::Status;
use serde_json::{Map, Value, json};

use crate::proxy::figures::Samples;

const WINDOWS: u64 = 1_000;
const QUERIES_A_SECOND: u64 = 5_000;
/// How long a frame is, milliseconds.
const FRAME_MS: u64 = 16;
/// How many frames are drawn of each view at each size.
const FRAMES: u64 = 400;
/// How often the daemon says how things are: every so many frames.
const FRAMES_PER_STATUS: u64 = 30;
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];
const VIEWS: [&str; 7] = [
    "windows", "requests", "sessions", "log", "refusals", "agents", "health",
];
const SQL: &str = "SELECT day, SUM(amount) AS total FROM finance.daily WHERE day >= '2026-10-01' GROUP BY day ORDER BY day";

/// Measures it, and prints what it found.
pub(crate) fn bench(json: bool) {
    println!(
        "a frame with {WINDOWS} windows open and {QUERIES_A_SECOND} queries a second coming, and one with nothing, {FRAMES} each, ms"
    );
    println!(
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>12}{:>12}",
        "", "size", "p50", "p99", "max", "empty p50", "empty p99"
    );
    let mut figures = Map::new();
    for view in VIEWS {
        for size in SIZES {
            let busy = frames(view, size, true);
            let empty = frames(view, size, false);
            let ms = |us: f64| us / 1000.0;
            println!(
                "{view:<12}{:>10}{:>10.2}{:>10.2}{:>10.2}{:>12.2}{:>12.2}",
                format!("{}x{}", size.0, size.1),
                ms(busy.p50()),
                ms(busy.p99()),
                ms(busy.max()),
                ms(empty.p50()),
                ms(empty.p99())
            );
            let name = format!("{view}_{}x{}_us", size.0, size.1);
            figures.insert(
                name,
                json!({"busy": busy.figure(), "empty": empty.figure()}),
            );
        }
    }
    if json {
        println!("{}", Value::Object(figures));
    }
}

fn frames(view: &str, size: (u16, u16), is_busy: bool) -> Samples {
    let mut sheet = Sheet::new(size);
    sheet.go(view);
    let mut samples = Samples::default();
    let mut seq = 0;
    for frame in 0..FRAMES {
        let came = if is_busy {
            records(&mut seq)
        } else {
            Vec::new()
        };
        let status = (frame % FRAMES_PER_STATUS == 0).then(|| status(frame, is_busy));
        let began = SystemClock.now().boot_ns;
        if let Some(status) = status {
            sheet.take_status(0, status);
        }
        sheet.take_records(FRAME_MS, &came);
        sheet.draw();
        samples.push(SystemClock.now().boot_ns - began);
    }
    samples
}

/// What comes in one frame: of each query that it was asked, admitted and answered; one in ten is refused.
fn records(seq: &mut u64) -> Vec<String> {
    let count = QUERIES_A_SECOND * FRAME_MS / 1000;
    let mut lines = Vec::new();
    for _ in 0..count {
        let query = *seq;
        let grant = format!("g-{}", query % WINDOWS + 1);
        let process =
            json!({"pid": query % 30_000, "start_boot_ns": 1, "uid": 2001, "comm": "python3"});
        let agent = format!("bot-{}", query % WINDOWS);
        let session = format!("s-{}", query % 500 + 1);
        if query.is_multiple_of(10) {
            lines.push(line(seq, json!({
                "kind": "query_refused", "grant": grant, "agent": agent, "session": session, "process": process, "request": "jobs.query", "sql": SQL,
                "refusal": {"code": "scope.outside", "what": "Access Denied: table shop.hr.salaries is outside the window"},
            })));
            continue;
        }
        lines.push(line(seq, json!({
            "kind": "query_asked", "grant": grant, "agent": agent, "session": session, "process": process, "method": "jobs.query", "sql": SQL,
        })));
        lines.push(line(seq, json!({
            "kind": "query_admitted", "query": format!("q-{query}"), "grant": grant, "agent": agent, "session": session, "process": process,
            "method": "jobs.query", "sql": SQL, "tables": ["shop.finance.daily"], "bytes": 81_000_000,
        })));
        lines.push(line(seq, json!({
            "kind": "query_finished", "query": format!("q-{query}"), "grant": grant, "status": 200, "job": null, "destination": null,
            "bytes": 81_000_000, "body_bytes": 5120, "duration_us": 90_000, "trouble": null,
        })));
    }
    lines
}

fn line(seq: &mut u64, event: Value) -> String {
    *seq += 1;
    json!({
        "seq": *seq, "boot_id": "b", "boot_ns": *seq, "unix_ns": 1_790_000_000_000_000_000 + *seq * 1_000_000, "event": event, "prev": "0".repeat(64),
    })
    .to_string()
}

fn status(frame: u64, is_busy: bool) -> Status {
    let count = if is_busy { WINDOWS } else { 0 };
    let grant = |number: u64| {
        json!({
            "grant": format!("g-{}", number + 1), "request": format!("r-{}", number + 1), "agent": format!("bot-{number}"),
            "scope": "shop.finance:read", "approver": "uid 5001", "break_glass": null, "open": true,
            "closes_in_ns": (number + 60) * 1_000_000_000, "lasts_ns": 3_600_000_000_000_u64, "closes_unix_ns": 1_790_000_000_000_000_000_u64,
            "closed": null, "queries": frame * 10, "queries_max": 100_000, "jobs_at_once": 1, "jobs_at_once_max": 4,
            "bytes": frame * 1_000_000, "held_bytes": 0, "bytes_max": 1_000_000_000_000_u64, "query_bytes_max": 1_000_000_000,
            "returned_bytes": 1, "returned_bytes_max": 2,
        })
    };
    let agent = |number: u64| {
        json!({
            "agent": format!("bot-{number}"), "workload": "unit bot.service", "processes": 3, "some": [], "day": vec![50; 96],
            "held_in_day_s": 9000, "approved": 1, "denied": 0, "undecided": 0, "locked": null,
        })
    };
    let grants: Vec<Value> = (0..count).map(grant).collect();
    let agents: Vec<Value> = (0..count.min(128)).map(agent).collect();
    serde_json::from_value(json!({
        "now": {"boot_ns": frame, "unix_ns": frame}, "host": "host", "version": "0", "unhealthy": [], "endpoints": 10, "guards": [], "enforce": "host",
        "kernel": {"redirected": 0, "denied": 0, "egress_dropped": 0, "events_lost": 0},
        "log": {"records": frame, "first_record": 1, "bytes": 1, "free_bytes": 1, "checkpoint": null},
        "requests": [], "requests_waiting_left_out": 0, "requests_left_out": 0, "grants": grants, "grants_left_out": 0, "hooks": [], "agents": agents,
    }))
    .expect("it is well made")
}
