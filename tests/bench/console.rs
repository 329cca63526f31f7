//! What a screen of the console costs: a thousand windows open, five thousand queries a second coming, each frame with all that came since the one
//! before; beside it the same screen with nothing on it. Reading the records is part of it here, though the console has a thread of its own for that.
//! And what a console in a real terminal takes of a processor, before a real daemon where nothing happens.

use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use enforcer_console::sheet::Sheet;
use enforcer_proto::wire::Status;
use harness::terminal::Terminal;
use harness::world::{Family, Who, World};
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
    idle(&mut figures);
    if json {
        println!("{}", Value::Object(figures));
    }
}

/// How long an idle console is watched.
const IDLE: Duration = Duration::from_secs(20);

fn idle(figures: &mut Map<String, Value>) {
    let world = World::start(Family::V4);
    let terminal = Terminal::start(&world, Who::Approver, (120, 40), "enforcer-console");
    terminal.sees(&["No window is open."]);
    let shell = terminal.says("pane_pid");
    let pids = [of_command(&shell, "enforcer-console"), world.daemon_pid()];
    println!(
        "\nof one processor, while nothing happens: console and daemon, in parts of a hundred"
    );
    for what in ["no window", "a window open"] {
        if what != "no window" {
            let _grant = world.open_window("demo-project.finance:read", "10m");
            terminal.sees(&["1 open"]);
        }
        let before = pids.map(busy_ns);
        std::thread::sleep(IDLE);
        let after = pids.map(busy_ns);
        let share = |nth: usize| {
            let busy = after[nth].saturating_sub(before[nth]);
            busy as f64 * 100.0 / IDLE.as_nanos() as f64
        };
        println!("{what:<16}{:>8.2} %{:>8.2} %", share(0), share(1));
        let name = format!("idle_{}", what.replace(' ', "_"));
        figures.insert(
            name,
            json!({"console_percent": share(0), "daemon_percent": share(1)}),
        );
    }
}

/// The process of this name that a terminal's shell became, or started.
fn of_command(shell: &str, name: &str) -> u32 {
    let is_it = |pid: &str| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with(comm.trim()) && !comm.trim().is_empty()
    };
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
    let children = children.unwrap_or_default();
    let mut all = std::iter::once(shell).chain(children.split_whitespace());
    let found = all.find(|pid| is_it(pid)).expect("the console runs");
    found.parse().expect("a pid")
}

/// How long a process, all its threads together, has been on a processor.
fn busy_ns(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_one = |thread: std::io::Result<std::fs::DirEntry>| {
        let said = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        said.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(of_one).sum()
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
            "held_in_day_s": 9000, "approved": 1, "denied": 0, "undecided": 0, "refused": 0, "locked": null,
        })
    };
    let grants: Vec<Value> = (0..count).map(grant).collect();
    let agents: Vec<Value> = (0..count).map(agent).collect();
    serde_json::from_value(json!({
        "now": {"boot_ns": frame, "unix_ns": frame}, "host": "host", "version": "0", "started_unix_ns": 0, "unhealthy": [], "endpoints": 10, "checks": [], "rules": [], "enforce": "host",
        "kernel": {"redirected": 0, "denied": 0, "egress_dropped": 0, "events_lost": 0},
        "log": {"records": frame, "first_record": 1, "bytes": 1, "free_bytes": 1, "checkpoint": null},
        "requests": [], "requests_waiting_left_out": 0, "requests_left_out": 0, "grants": grants, "grants_left_out": 0, "agents_left_out": 0, "hooks": [], "agents": agents,
    }))
    .expect("it is well made")
}
