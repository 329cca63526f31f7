//! The console without a daemon: made-up agents, windows and queries, for a first look and for pictures. Every screen of it says so.

use std::io::{self, Write};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use enforcer_proto::audit::{Chain, GENESIS};
use enforcer_proto::event::Event;
use enforcer_proto::time::Now;
use enforcer_proto::wire::Status;
use serde_json::{Value, json};

use crate::app::tail::Entry;
use crate::app::{Mode, Model, Msg, View};
use crate::recording::Recording;
use crate::run::{self, MESSAGES_MAX, Screen};
use crate::sheet::Sheet;
use crate::theme::Theme;

/// A moment in the past, unix time, seconds.
const THEN_S: u64 = 1_790_000_000;
const DIGEST: &str = "7a1c5be04f2d9c3e8b6a7d5f4e3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a";

/// How the demonstration runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Print one screen, this large, and end: such as 120x40.
    #[arg(long, value_name = "COLUMNSxROWS", value_parser = crate::replay::size)]
    print: Option<(u16, u16)>,
    /// Which view is printed.
    #[arg(long, default_value = "windows", value_parser = named)]
    view: View,
}

fn named(text: &str) -> Result<View, String> {
    let mut all = View::ALL.into_iter();
    all.find(|view| view.name() == text)
        .ok_or_else(|| "there is no such view".to_owned())
}

pub(crate) fn run(args: &Args, theme: Theme, has_mouse: bool) -> anyhow::Result<()> {
    let mut model = Model::new(Mode::Demo);
    for msg in story()? {
        model.update(0, msg);
    }
    if let Some(size) = args.print {
        model.view = args.view;
        return print(model, theme, size);
    }
    let (to, messages) = sync_channel(MESSAGES_MAX);
    let mut screen = Screen::take(has_mouse)?;
    run::listen(&to)?;
    let status = status(0)?;
    std::thread::spawn(move || {
        for second in 1.. {
            std::thread::sleep(Duration::from_secs(1));
            let told = tells(&status, second);
            if told.into_iter().try_for_each(|msg| to.send(msg)).is_err() {
                return;
            }
        }
    });
    run::run(
        &mut screen,
        &mut model,
        theme,
        &messages,
        None,
        &mut Recording::none(),
    )
}

/// Prints a screen as text.
pub(crate) fn print(model: Model, theme: Theme, size: (u16, u16)) -> anyhow::Result<()> {
    let mut sheet = Sheet::of(model, theme, size);
    sheet.draw();
    Ok(io::stdout().lock().write_all(sheet.text().as_bytes())?)
}

/// What has happened when the demonstration begins.
pub(crate) fn story() -> anyhow::Result<Vec<Msg>> {
    Ok(vec![
        Msg::Status(Box::new(status(0)?)),
        Msg::Records(records()?, Vec::new()),
    ])
}

/// The status some seconds later.
fn tells(status: &Status, second: u64) -> Vec<Msg> {
    let mut status = status.clone();
    let passed = second.saturating_mul(1_000_000_000);
    status.now.unix_ns = status.now.unix_ns.saturating_add(passed);
    for grant in &mut status.grants {
        grant.closes_in_ns = grant.closes_in_ns.saturating_sub(passed);
        grant.queries = grant
            .queries
            .saturating_add(second % 3 * u64::from(grant.open));
        if grant.open && grant.closes_in_ns == 0 {
            grant.open = false;
            grant.closed = Some("its time was over".to_owned());
        }
    }
    for request in &mut status.requests {
        request.expires_in_ns = request.expires_in_ns.saturating_sub(passed);
        if request.expires_in_ns == 0 {
            request.state = "expired".to_owned();
        }
    }
    vec![Msg::Status(Box::new(status))]
}

/// What is looked at.
fn checks() -> Value {
    let all = [
        (
            "programs",
            "well",
            "11 programs are attached at the cgroup root /sys/fs/cgroup",
        ),
        ("pins", "well", "13 of the kernel's maps are pinned"),
        (
            "security hooks",
            "well",
            "security hooks (BPF LSM): bpf, socket_sendmsg",
        ),
        (
            "map use",
            "well",
            "the kernel's maps hold 4 of 1024 agents' cgroups, 2 of 1024 windows, 4 of 4096 uids and 0 of 1024 ranges subordinate to them",
        ),
        (
            "protected",
            "well",
            "42 addresses and prefixes in the kernel",
        ),
        (
            "uplinks",
            "well",
            "uplinks guarded against frames made by hand: eth0",
        ),
        (
            "probes",
            "well",
            "the daemon's own probes: 31 ways out were refused in the last round, rounds are 20 s apart",
        ),
        (
            "not probed",
            "unknown",
            "the daemon's own probes show nothing of these, to which this host has no route: raw-echo/v6",
        ),
        (
            "DNS",
            "well",
            "the resolvers answered 4 s ago; 2 look-ups of the daemon's failed since the start; agents' questions for names since the start: 310 answered, 2 refused, 0 without an answer of the resolvers",
        ),
        (
            "DNS marks",
            "well",
            "the daemon's own question came back in the last round, rounds are 20 s apart; agents' questions for names are marked within 0xffff3fff, with 23 bits that nobody else knows",
        ),
        (
            "token endpoint",
            "well",
            "tokens since the start: 14 minted, 0 that could not be had, the last minted 31 s ago",
        ),
        (
            "connections",
            "well",
            "38 of 16384 are open, and 2 of 2048 to shared addresses are passed on for others",
        ),
    ];
    all.map(|(what, state, said)| json!({"what": what, "state": state, "said": said}))
        .into_iter()
        .collect()
}

fn status(second: u64) -> serde_json::Result<Status> {
    let grant = |number: u64, agent: &str, scope: &str, left_s: u64, closed: Option<&str>| {
        json!({
            "grant": format!("g-{number}"), "request": format!("r-{number}"), "agent": agent, "scope": scope,
            "approver": "uid 5001", "break_glass": null, "open": closed.is_none(), "closes_in_ns": left_s * 1_000_000_000, "lasts_ns": 900_000_000_000_u64,
            "closes_unix_ns": (THEN_S + left_s) * 1_000_000_000, "closed": closed, "queries": 7 * number % 40, "queries_max": 100,
            "jobs_at_once": 1, "jobs_at_once_max": 4, "bytes": 420_000_000 * number, "held_bytes": 10_485_760,
            "bytes_max": 10_000_000_000_u64, "query_bytes_max": 1_000_000_000, "returned_bytes": 31_000, "returned_bytes_max": 1_000_000_000,
        })
    };
    let above = |pid: u32, uid: u32, comm: &str| json!({"pid": pid, "start_boot_ns": 1, "uid": uid, "comm": comm});
    let request = |number: u64, agent: &str, scope: &str, reason: &str, left_s: u64| {
        json!({
            "request": format!("r-{number}"), "agent": agent, "uid": 2001, "pid": 4711, "comm": "python3",
            "origin": {"ancestors": [above(4700, 2001, "bash"), above(4650, 0, "sshd"), above(1, 0, "systemd")], "cgroup": format!("/system.slice/{agent}.service")},
            "ask": {"scope": scope, "ttl": "15m", "reason": reason, "bytes_max": null, "queries_max": null},
            "scope": scope, "ttl": "15m",
            "budget": {"bytes_max": 10_000_000_000_u64, "queries_max": 100, "query_bytes_max": 1_000_000_000, "returned_bytes_max": 1_000_000_000, "jobs_at_once_max": 4},
            "digest": DIGEST, "joined": [], "agreed": [], "wanting": "one more person, of: group data-owners",
            "held_in_day_s": 5400, "held_in_day_s_max": 21_600, "rule": 1, "state": "pending", "grant": null, "reason": null,
            "from_query": null, "queries": 0, "ends_with_process": false, "expires_in_ns": left_s * 1_000_000_000,
        })
    };
    let agent = |name: &str, every: usize, held_s: u64, locked: Value| {
        let day: Vec<u8> = (0..96)
            .map(|slot| if slot % every == every - 1 { 60 } else { 0 })
            .collect();
        json!({
            "agent": name, "workload": format!("systemd unit {name}.service"), "processes": 3,
            "some": [{"pid": 4711, "uid": 2001, "comm": "python3"}], "day": day, "held_in_day_s": held_s,
            "approved": 11, "denied": 1, "undecided": 2, "refused": 3, "locked": locked,
        })
    };
    let lock = json!({"by": "uid 5002", "reason": "asks for hr at night", "since_unix_ns": THEN_S * 1_000_000_000});
    serde_json::from_value(json!({
        "now": {"boot_ns": 1_000_000_000_000_u64, "unix_ns": (THEN_S + second) * 1_000_000_000},
        "host": "demo-host", "version": env!("CARGO_PKG_VERSION"), "started_unix_ns": (THEN_S - 5 * 3600) * 1_000_000_000, "unhealthy": [], "endpoints": 42,
        "checks": checks(), "rules": [{"rule": 1, "said": "agents report-bot, support-bot; decided by one of members of gids 6000; at most 30m, 360 min a day, 10 GB, 100 queries"}], "enforce": "host",
        "kernel": {"redirected": 1204, "denied": 3, "egress_dropped": 0, "events_lost": 0},
        "log": {"records": 12, "first_record": 1, "bytes": 48_000, "free_bytes": 21_000_000_000_u64, "checkpoint": {"records": 8, "unix_ns": (THEN_S - 30) * 1_000_000_000, "note": ""}},
        "requests": [
            request(7, "report-bot", "shop.finance:read", "month end: the totals of October", 520),
            request(8, "support-bot", "shop.orders:read", "ticket 4711: why was order 99 sent twice", 250),
        ],
        "requests_waiting_left_out": 0, "requests_left_out": 0,
        "grants": [
            grant(3, "support-bot", "shop.orders:read", 0, Some("given back")),
            grant(5, "finance-bot", "shop.finance:read", 611, None),
            grant(6, "loader", "shop.staging:write", 41, None),
        ],
        "grants_left_out": 0, "agents_left_out": 0,
        "hooks": [{"hook": "pager", "delivered": 12, "given_up": 0, "waiting": 0, "trouble": null}],
        "agents": [
            agent("finance-bot", 7, 9000, Value::Null), agent("loader", 2, 45_000, Value::Null),
            agent("report-bot", 11, 5400, Value::Null), agent("support-bot", 97, 0, lock),
        ],
    }))
}

fn records() -> anyhow::Result<Vec<Entry>> {
    let process = json!({"pid": 4711, "start_boot_ns": 1, "uid": 2001, "comm": "python3"});
    let sql = "SELECT day, SUM(amount) AS total FROM finance.daily WHERE day >= '2026-10-01' GROUP BY day ORDER BY day";
    let asked = |query: u64, sql: &str| {
        json!({"kind": "query_admitted", "query": format!("q-{query}"), "grant": "g-5", "agent": "finance-bot", "session": "s-2", "process": process,
            "method": "jobs.query", "sql": sql, "tables": ["shop.finance.daily"], "bytes": 81_000_000, "ceiling": 90_000_000})
    };
    let through = |query: u64, ms: u64| {
        json!({"kind": "query_finished", "query": format!("q-{query}"), "grant": "g-5", "status": 200, "job": null, "destination": null,
            "bytes": 81_000_000, "body_bytes": 5120, "duration_us": ms * 1000, "trouble": null})
    };
    let refused = json!({"kind": "query_refused", "grant": "g-5", "agent": "finance-bot", "session": "s-2", "process": process, "request": "jobs.query",
        "sql": "SELECT * FROM hr.salaries", "refusal": {"code": "scope.outside", "what": "Access Denied: table shop.hr.salaries is outside window g-5"}});
    let around = json!({"kind": "kernel_refused", "agent": null, "process": {"pid": 900, "start_boot_ns": 1, "uid": 1000, "comm": "curl"},
        "verdict": "connect4 refused: the process is in no agent's workload", "destination": "142.250.74.106:443", "count": 14});
    let events = [
        json!({"kind": "opened", "grant": "g-5", "agent": "finance-bot"}),
        asked(11, sql),
        through(11, 912),
        asked(12, "SELECT COUNT(*) FROM finance.daily"),
        through(12, 430),
        refused,
        around,
        json!({"kind": "opened", "grant": "g-6", "agent": "loader"}),
        asked(
            13,
            "SELECT account, SUM(amount) FROM finance.daily GROUP BY account",
        ),
    ];
    // Those before did not come.
    let mut chain = Chain::after(3, GENESIS);
    let mut entries = Vec::new();
    for event in events {
        let event: Event = serde_json::from_value(event)?;
        let seq = chain.count() + 1;
        let now = Now {
            boot_ns: seq,
            unix_ns: (THEN_S - 60 + seq * 4) * 1_000_000_000,
        };
        entries.extend(Entry::read(&chain.seal(now, "demo", &event)?));
    }
    Ok(entries)
}
