//! The index of a log of ten million records: how long it takes to build, how large it is, and how soon a search is answered, beside reading
//! the log through; and the same as the daemon answers it. The log is made for this, in the folder for temporary files; it is gone afterwards.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use enforcer::audit::SEGMENT_BYTES;
use enforcer::clock::{Clock, SystemClock};
use enforcer::search::{Answer, Asked, Given, INDEX_NAME, Index, Keeper};
use enforcer_proto::audit::Chain;
use enforcer_proto::event::{CloseReason, Event};
use enforcer_proto::id::{GrantId, QueryId, RequestId, SessionId};
use enforcer_proto::principal::{AgentName, Approver, Process};
use enforcer_proto::query::{JobRef, Method};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::search::Filter;
use enforcer_proto::time::Now;
use serde_json::{Map, Value, json};

/// How long after one another the records were written, nanoseconds: ten million of them are 46 days.
const APART_NS: u64 = 400_000_000;
/// When the first one was, unix time.
const BEGAN_NS: u64 = 1_760_000_000_000_000_000;
/// Queries of one window.
const QUERIES: u64 = 20;
/// How often a search is made; the slowest time counts.
const TIMES: u32 = 5;

/// Measures and prints.
pub(crate) fn bench(records: u64, json: bool) {
    let folder = tempfile::tempdir().expect("a folder for the log");
    let (bytes, made_ms) = timed(|| write_log(folder.path(), records));
    println!(
        "a log of {records} records, {} MB in segments of {} MB, written in {} s",
        bytes / 1_000_000,
        SEGMENT_BYTES / 1_000_000,
        made_ms / 1000.0
    );
    let file = folder.path().join(INDEX_NAME);
    let mut index = Index::open(folder.path(), &file).expect("an index");
    let (built, build_ms) = timed(|| index.update(false).expect("builds"));
    let size = std::fs::metadata(&file).expect("an index").len();
    println!(
        "the index: {} records in {:.0} s, {:.0} a second; {} MB, {:.1} bytes a record, {:.2} of the log",
        built.last,
        build_ms / 1000.0,
        built.last as f64 / build_ms * 1000.0,
        size / 1_000_000,
        size as f64 / records as f64,
        size as f64 / bytes as f64
    );
    // The daemon keeps that index from here on; one that keeps none reads through.
    let (count_of_records, durable) = tokio::sync::watch::channel(records);
    let keeper = Arc::new(Keeper::new(folder.path(), Arc::default()));
    keeper.keep(durable).expect("a thread");
    while keeper.covers() < records {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let none = Arc::new(Keeper::new(folder.path(), Arc::default()));
    println!(
        "\n{:<64}{:>9}{:>10}{:>11}{:>14}",
        "ms", "found", "by index", "by daemon", "read through"
    );
    let mut rows = Map::new();
    for (at, (what, filter, limit)) in searches(records).into_iter().enumerate() {
        let (mut found, mut slowest, mut by_daemon) = (0, 0_f64, 0_f64);
        for _ in 0..TIMES {
            let mut index = Index::open(folder.path(), &file).expect("an index");
            let (count, ms) = timed(|| {
                index.update(false).expect("is up to date");
                count(|each| index.search(filter.clone(), limit, each))
            });
            (found, slowest) = (count, slowest.max(ms));
            let (there, ms) =
                timed(|| answered(folder.path(), &keeper, filter.clone(), limit, records));
            assert_eq!(there, found, "{what}");
            by_daemon = by_daemon.max(ms);
        }
        // Reading all through is slow, and much the same for all: two show it.
        let through = (at < 2).then(|| {
            let (there, ms) =
                timed(|| answered(folder.path(), &none, filter.clone(), limit, records));
            assert_eq!(there, found, "{what}");
            ms
        });
        let shown = through.map_or_else(String::new, |ms| format!("{ms:.0}"));
        println!("{what:<64}{found:>9}{slowest:>10.1}{by_daemon:>11.1}{shown:>14}");
        rows.insert(
            what.to_owned(),
            json!({"found": found, "ms": slowest, "daemon_ms": by_daemon, "through_ms": through}),
        );
    }
    drop(count_of_records);
    if json {
        let all = json!({"records": records, "log_bytes": bytes, "index_bytes": size, "build_ms": build_ms, "searches": Value::Object(rows)});
        println!("{all}");
    }
}

/// How much the daemon finds.
fn answered(
    log: &Path,
    keeper: &Arc<Keeper>,
    filter: Filter,
    limit: Option<usize>,
    until: u64,
) -> u64 {
    let asked = Asked {
        from: 1,
        filter,
        limit,
    };
    let mut answer = Answer::new(log, keeper, asked, until);
    let mut found = 0;
    while let Given::Lines(lines) = answer.part().expect("reads") {
        found += lines.len() as u64;
    }
    found
}

fn count(
    search: impl FnOnce(&mut enforcer::search::Each<'_>) -> Result<(), enforcer::search::SearchError>,
) -> u64 {
    let mut found = 0;
    search(&mut |_, _| {
        found += 1;
        Ok(())
    })
    .expect("finds");
    found
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let began = SystemClock.now().boot_ns;
    let done = work();
    (done, (SystemClock.now().boot_ns - began) as f64 / 1e6)
}

/// What people look for.
#[expect(clippy::too_many_lines, reason = "one entry for each search")]
fn searches(records: u64) -> Vec<(&'static str, Filter, Option<usize>)> {
    let some = Filter::default;
    let middle = records / per_window() / 2;
    let agent: Option<AgentName> = Some("bot-3".parse().expect("a name"));
    let at = |share: f64| Some(BEGAN_NS + (records as f64 * share) as u64 * APART_NS);
    vec![
        (
            "a word that the queries of one window have",
            Filter {
                sql: Some(format!("order_{middle}").parse().expect("a word")),
                ..some()
            },
            None,
        ),
        (
            "all of one window",
            Filter {
                grant: Some(GrantId(middle)),
                ..some()
            },
            None,
        ),
        (
            "one query",
            Filter {
                query: Some(QueryId(middle * QUERIES)),
                ..some()
            },
            None,
        ),
        (
            "the newest 100 of an agent",
            Filter {
                agent: agent.clone(),
                ..some()
            },
            Some(100),
        ),
        (
            "the newest 100 refusals with a code, of an agent",
            Filter {
                agent: agent.clone(),
                code: Some(Code::ScopeOutside),
                ..some()
            },
            Some(100),
        ),
        (
            "the newest 100 with words that all have, one after another",
            Filter {
                sql: Some("SUM amount AS amount".parse().expect("words")),
                ..some()
            },
            Some(100),
        ),
        (
            "words that all have, and none one after another",
            Filter {
                sql: Some("SUM day FROM".parse().expect("words")),
                ..some()
            },
            Some(100),
        ),
        (
            "the newest 100 that read a table",
            Filter {
                table: Some("demo-project.finance.t17".parse().expect("a table")),
                ..some()
            },
            Some(100),
        ),
        (
            "an agent's refusals in an hour of the middle",
            Filter {
                agent,
                code: Some(Code::ScopeOutside),
                since_unix_ns: at(0.5),
                until_unix_ns: at(0.5).map(|ns| ns + 3_600_000_000_000),
                ..some()
            },
            None,
        ),
        (
            "all of ten minutes in the middle",
            Filter {
                since_unix_ns: at(0.5),
                until_unix_ns: at(0.5).map(|ns| ns + 600_000_000_000),
                ..some()
            },
            None,
        ),
        (
            "a word and an agent that never meet",
            Filter {
                agent: Some("bot-1".parse().expect("a name")),
                sql: Some("only_of_bot_2".parse().expect("a word")),
                ..some()
            },
            None,
        ),
        (
            "a word that nobody wrote",
            Filter {
                sql: Some("nobody_wrote_this".parse().expect("a word")),
                ..some()
            },
            None,
        ),
    ]
}

const fn per_window() -> u64 {
    3 + QUERIES * 4 + 2
}

/// Writes such a log, and gives its length in bytes.
fn write_log(folder: &Path, records: u64) -> u64 {
    let mut chain = Chain::default();
    let (mut segment, mut in_segment, mut bytes) = (1, 0, 0);
    let open = |number: u32| {
        let file = File::create(folder.join(format!("log-{number:06}.jsonl"))).expect("a segment");
        BufWriter::with_capacity(1 << 20, file)
    };
    let mut file = open(segment);
    let mut window = 0;
    while chain.count() < records {
        window += 1;
        for event in events(window) {
            let ns = chain.count() * APART_NS;
            let now = Now {
                boot_ns: ns,
                unix_ns: BEGAN_NS + ns,
            };
            let line = chain
                .seal(now, "9c1f5a43-5c52-4e4c-8a3b-1f0a6f0e5a77", &event)
                .expect("short");
            if in_segment >= SEGMENT_BYTES {
                file.flush().expect("writes");
                segment += 1;
                file = open(segment);
                in_segment = 0;
            }
            writeln!(file, "{line}").expect("writes");
            in_segment += line.len() as u64 + 1;
            bytes += line.len() as u64 + 1;
            if chain.count() == records {
                break;
            }
        }
    }
    file.flush().expect("writes");
    bytes
}

fn ask(scope: &enforcer_proto::scope::Scope) -> enforcer_proto::policy::Ask {
    enforcer_proto::policy::Ask {
        scope: scope.clone(),
        ttl: "15m".parse().expect("a ttl"),
        reason: "month-end close".into(),
        bytes_max: None,
        queries_max: None,
    }
}

/// What a window leaves in the log.
fn events(window: u64) -> Vec<Event> {
    let who = window % 16;
    let agent: AgentName = format!("bot-{who}").parse().expect("a name");
    let (grant, request) = (GrantId(window), RequestId(window));
    let process = Process {
        pid: 20_163,
        start_boot_ns: 8_812_345_678,
        uid: 2001,
        comm: "python".into(),
    };
    let scope: enforcer_proto::scope::Scope = "demo-project.finance:read".parse().expect("a scope");
    let mut events = vec![
        Event::Requested {
            request,
            agent: agent.clone(),
            process: process.clone(),
            ask: ask(&scope),
            rule: 1,
            digest: "a".repeat(64),
            expires_boot_ns: 1,
            from_query: None,
            ends_with_process: false,
            budget: None,
            origin: None,
        },
        Event::Approved {
            request,
            grant,
            agent: agent.clone(),
            approver: Approver::Person { uid: 5001 },
            digest: "a".repeat(64),
            scope,
            ttl: "15m".parse().expect("a ttl"),
            bytes_max: 10_000_000_000,
            queries_max: 200,
            query_bytes_max: Some(1_000_000_000),
            returned_bytes_max: Some(1_000_000_000),
            jobs_at_once_max: Some(20),
            opens_boot_ns: 1,
            closes_boot_ns: 2,
            closes_unix_ns: 2,
            agreed: Vec::new(),
            signer: None,
            rule: None,
            break_glass: None,
        },
        Event::Opened {
            grant,
            agent: agent.clone(),
        },
    ];
    for nth in 0..QUERIES {
        events.extend(query(window * QUERIES + nth, nth, grant, &agent, &process));
    }
    events.push(Event::QueryRefused {
        grant: Some(grant),
        agent: agent.clone(),
        session: SessionId(window),
        process,
        container: None,
        request: "POST /bigquery/v2/projects/demo-project/jobs".into(),
        sql: Some("SELECT * FROM hr.salaries".into()),
        sql_cut: None,
        refusal: Refusal::new(
            Code::ScopeOutside,
            format!("Access Denied: table demo-project.hr.salaries is outside window {grant} of agent {agent}, which covers demo-project.finance:read"),
        ),
    });
    events.push(Event::Closed {
        grant,
        agent,
        reason: CloseReason::Expired,
        by: None,
        queries: QUERIES,
        bytes: 8000 * QUERIES,
    });
    events
}

fn job(number: u64) -> JobRef {
    JobRef {
        project: "demo-project".into(),
        job: format!("46ade285-bcaa-4e7b-9aef-{number:012}"),
        location: Some("US".into()),
    }
}

fn query(
    number: u64,
    nth: u64,
    grant: GrantId,
    agent: &AgentName,
    process: &Process,
) -> [Event; 4] {
    let query = QueryId(number);
    let table = format!("t{}", number % 200);
    let of = if agent.as_str() == "bot-2" {
        ", only_of_bot_2"
    } else {
        ""
    };
    let sql = format!(
        "SELECT day, region, SUM(amount) AS amount{of} FROM `demo-project.finance.{table}` WHERE day BETWEEN '2026-{:02}-01' AND \
         '2026-{:02}-28' AND order_id > {nth} AND key = 'order_{}' GROUP BY day, region ORDER BY day LIMIT 1000",
        number % 12 + 1,
        number % 12 + 1,
        number / QUERIES
    );
    let job = job(number);
    let session = SessionId(number / 8);
    [
        Event::QueryAsked {
            grant,
            agent: agent.clone(),
            session,
            process: process.clone(),
            method: Method::JobsInsert,
            sql: sql.clone(),
        },
        Event::QueryAdmitted {
            query,
            grant,
            agent: agent.clone(),
            session,
            process: process.clone(),
            container: None,
            method: Method::JobsInsert,
            sql: Some(sql),
            tables: vec![
                format!("demo-project.finance.{table}")
                    .parse()
                    .expect("a table"),
            ],
            writes: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            resource: None,
            bytes: 8000,
            ceiling: Some(10_485_760),
            returned_ceiling: Some(1_000_000),
            in_parts: false,
            asked: None,
            is_dry_run: false,
            dry_run_us: None,
            job: Some(job.clone()),
        },
        Event::JobSeen {
            query,
            grant,
            job: job.clone(),
            destination: None,
            is_done: true,
            billed: Some(8000),
            processed: Some(8000),
            is_compared: true,
            names_no_table: false,
            read_outside: None,
        },
        Event::QueryFinished {
            query,
            grant,
            status: Some(200),
            job: Some(job),
            destination: None,
            bytes: 8000,
            body_bytes: 1104,
            duration_us: 59_000,
            trouble: None,
            is_void: false,
        },
    ]
}
