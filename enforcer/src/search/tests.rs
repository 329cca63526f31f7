mod answers;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::Chain;
use enforcer_proto::event::{CloseReason, Event};
use enforcer_proto::id::{GrantId, QueryId, RequestId, SessionId};
use enforcer_proto::principal::{Approver, Process};
use enforcer_proto::query::{JobRef, Method};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A log of `windows` windows, each of seven records, every other one of agent `a`, in segments of `segment` records.
struct Written {
    dir: TempDir,
    chain: Chain,
    count: usize,
    segment: usize,
}

fn process() -> Process {
    Process {
        pid: 7,
        start_boot_ns: 1,
        uid: 2001,
        comm: "python".into(),
    }
}

#[expect(clippy::too_many_lines, reason = "seven events, written out")]
fn events(n: u64) -> Vec<Event> {
    let agent: enforcer_proto::principal::AgentName = if n.is_multiple_of(2) { "a" } else { "b" }
        .parse()
        .expect("a name");
    let (grant, request, query) = (GrantId(n), RequestId(n), QueryId(n));
    let table = |name: &str| format!("p-one.d{}.{name}", n % 3).parse().expect("a table");
    let job = JobRef {
        project: "p-one".into(),
        job: format!("j-{n}"),
        location: None,
    };
    vec![
        Event::Approved {
            request,
            grant,
            agent: agent.clone(),
            approver: Approver::Person { uid: 1 },
            digest: String::new(),
            scope: format!("p-one.d{}:read", n % 3).parse().expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            bytes_max: 1_000,
            queries_max: 10,
            query_bytes_max: None,
            returned_bytes_max: None,
            jobs_at_once_max: None,
            opens_boot_ns: 0,
            closes_boot_ns: 1,
            closes_unix_ns: 1,
            agreed: Vec::new(),
            signer: None,
            rule: None,
            break_glass: None,
        },
        Event::QueryAdmitted {
            query,
            grant,
            agent: agent.clone(),
            session: SessionId(n),
            process: process(),
            container: None,
            method: Method::JobsQuery,
            sql: Some(format!(
                "SELECT amount FROM d{}.daily WHERE day = {n}",
                n % 3
            )),
            tables: vec![table("daily$20260101")],
            writes: vec![table("out")],
            imports: Vec::new(),
            exports: Vec::new(),
            resource: None,
            bytes: 10,
            ceiling: None,
            returned_ceiling: None,
            is_dry_run: false,
            dry_run_us: None,
            job: None,
            in_parts: false,
            asked: None,
        },
        Event::QueryFinished {
            query,
            grant,
            status: Some(200),
            job: Some(job.clone()),
            destination: None,
            bytes: 10,
            body_bytes: 10,
            duration_us: 10,
            trouble: None,
            is_void: false,
        },
        Event::QueryRefused {
            grant: Some(grant),
            agent: agent.clone(),
            session: SessionId(n),
            process: process(),
            container: None,
            request: "POST /queries".into(),
            sql: Some("SELECT * FROM hr.salaries".into()),
            sql_cut: None,
            refusal: Refusal::new(
                Code::ScopeOutside,
                format!(
                    "Access Denied: table p-one.hr.salaries is outside window {grant} of agent {agent}, which covers p-one.d0:read"
                ),
            ),
        },
        Event::KernelRefused {
            agent: Some(agent.clone()),
            process: process(),
            verdict: "connect4 refused: no window is open".into(),
            destination: "10.0.0.1:443".into(),
            count: 1,
        },
        Event::Closed {
            grant,
            agent,
            reason: CloseReason::Expired,
            by: None,
            queries: 1,
            bytes: 10,
        },
        Event::JobCancelled {
            grant,
            job,
            outcome: "cancelled".into(),
            is_settled: None,
        },
    ]
}

impl Written {
    fn new(segment: usize, windows: u64) -> Self {
        let mut written = Self {
            dir: TempDir::new().expect("a folder"),
            chain: Chain::default(),
            count: 0,
            segment,
        };
        (1..=windows).for_each(|n| written.add(n));
        written
    }

    fn add(&mut self, n: u64) {
        for event in events(n) {
            let at = self.count as u64;
            // The wall clock goes back once in the middle.
            let unix_ns = if at < 60 { 1_000 + at } else { 970 + at };
            let now = Now {
                boot_ns: at,
                unix_ns,
            };
            let line = self.chain.seal(now, "boot", &event).expect("short");
            let file = self
                .path()
                .join(format!("log-{:06}.jsonl", self.count / self.segment + 1));
            let mut file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(file)
                .expect("opens");
            writeln!(file, "{line}").expect("writes");
            self.count += 1;
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn index(&self) -> Index {
        Index::open(self.path(), &self.file()).expect("opens")
    }

    fn file(&self) -> PathBuf {
        self.path().join(INDEX_NAME)
    }

    fn scanned(&self, filter: Filter, limit: Option<usize>) -> Vec<u64> {
        let mut found = Vec::new();
        scan(self.path(), filter, limit, &mut |record, _| {
            found.push(record.seq);
            Ok(())
        })
        .expect("reads");
        found
    }
}

fn asked(index: &Index, filter: Filter, limit: Option<usize>) -> Result<Vec<u64>, SearchError> {
    let mut found = Vec::new();
    index.search(filter, limit, &mut |record, line| {
        assert!(line.contains(&format!("\"seq\":{},", record.seq)));
        found.push(record.seq);
        Ok(())
    })?;
    Ok(found)
}

fn sql(text: &str) -> Filter {
    Filter {
        sql: Some(text.parse().expect("words")),
        ..Filter::default()
    }
}

fn filters() -> impl Strategy<Value = Filter> {
    let some =
        |texts: &'static [&'static str]| prop::option::weighted(0.3, prop::sample::select(texts));
    let number = || prop::option::weighted(0.2, 1_u64..25);
    let time = || prop::option::weighted(0.3, 990_u64..1_200);
    let names = (
        some(&["a", "b", "nobody"]),
        some(&["p-one.d0", "p-one.hr"]),
        some(&["p-one.d0.daily", "p-one.d1.out", "p-one.hr.salaries"]),
        some(&["closed", "query_admitted", "job_cancelled", "detached"]),
        some(&["SELECT amount", "d1.daily", "amount day", "nothing"]),
        prop::option::weighted(
            0.2,
            prop::sample::select(&[Code::ScopeOutside, Code::WindowNone][..]),
        ),
    );
    let numbers = (number(), number(), number(), number());
    (names, numbers, (time(), time(), number(), number())).prop_map(
        |(
            (agent, dataset, table, kind, sql, code),
            (grant, request, query, session),
            (since, until, first, last),
        )| Filter {
            agent: agent.map(|agent| agent.parse().expect("a name")),
            grant: grant.map(GrantId),
            request: request.map(RequestId),
            query: query.map(QueryId),
            session: session.map(SessionId),
            dataset: dataset.map(|dataset| dataset.parse().expect("a dataset")),
            table: table.map(|table| table.parse().expect("a table")),
            code,
            kind: kind.map(str::to_owned),
            sql: sql.map(|sql| sql.parse().expect("words")),
            since_unix_ns: since,
            until_unix_ns: until,
            first,
            last,
        },
    )
}

#[test]
fn an_index_finds_what_reading_through_finds() {
    let written = Written::new(50, 20);
    let mut index = written.index();
    let built = index.update(false).expect("builds");
    assert_eq!((built.last, built.added), (140, 140));
    let found = BTreeSet::new();
    let found = std::cell::RefCell::new(found);
    proptest!(ProptestConfig::with_cases(400), |(filter in filters(), limit in prop::option::of(1_usize..12))| {
        let through = written.scanned(filter.clone(), limit);
        let looked_up = asked(&index, filter, limit).expect("finds");
        found.borrow_mut().insert(looked_up.len());
        prop_assert_eq!(through, looked_up);
    });
    assert!(found.borrow().len() > 5, "the filters find something");
}

#[test]
fn a_limit_gives_the_newest_in_their_order() {
    let written = Written::new(50, 20);
    let mut index = written.index();
    index.update(false).expect("builds");
    let closed = Filter {
        kind: Some("closed".into()),
        ..Filter::default()
    };
    assert_eq!(written.scanned(closed.clone(), Some(2)), [132, 139]);
    assert_eq!(asked(&index, closed, Some(2)).expect("finds"), [132, 139]);
}

#[test]
fn an_index_takes_in_what_the_log_has_more() {
    let mut written = Written::new(50, 3);
    let mut index = written.index();
    index.update(false).expect("builds");
    assert_eq!(
        asked(&index, sql("day 4"), None).expect("finds"),
        Vec::<u64>::new()
    );
    (4..20).for_each(|n| written.add(n));
    let built = index.update(false).expect("goes on");
    assert_eq!((built.last, built.added, built.is_anew), (133, 112, false));
    assert_eq!(asked(&index, sql("day 4"), None).expect("finds"), [23]);
    assert_eq!(index.update(false).expect("nothing to do").added, 0);
}

#[test]
fn a_line_that_is_being_written_waits_for_its_end() {
    let written = Written::new(50, 1);
    let file = written.path().join("log-000001.jsonl");
    let mut whole = std::fs::read(&file).expect("reads");
    let torn = whole.split_off(whole.len() - 20);
    std::fs::write(&file, &whole).expect("writes");
    let mut index = written.index();
    assert_eq!(index.update(false).expect("builds").last, 6);
    whole.extend(torn);
    std::fs::write(&file, &whole).expect("writes");
    assert_eq!(index.update(false).expect("goes on").last, 7);
}

#[test]
fn the_index_of_another_chain_is_built_anew() {
    let (one, other) = (Written::new(50, 3), Written::new(60, 2));
    let file = one.file();
    Index::open(one.path(), &file)
        .expect("opens")
        .update(false)
        .expect("builds");
    let mut index = Index::open(other.path(), &file).expect("opens");
    // The first records are the same: it is the last one that counts.
    let built = index.update(false).expect("builds");
    assert_eq!((built.last, built.added, built.is_anew), (14, 14, true));
    assert_eq!(
        asked(&index, Filter::default(), None).expect("finds").len(),
        14
    );
}

#[test]
fn a_record_that_is_not_what_the_index_says_is_an_error_that_says_what_to_do() {
    let written = Written::new(500, 3);
    let mut index = written.index();
    index.update(false).expect("builds");
    let file = written.path().join("log-000001.jsonl");
    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, text.replace("day = 2", "day = 9")).expect("writes");
    let error = asked(&index, sql("day 2"), None).expect_err("was changed");
    assert!(
        matches!(error, SearchError::Stale { seq: 9, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("enforcer log index --rebuild"),
        "{error}"
    );
    let error = index.update(true).expect_err("is bad");
    assert!(error.to_string().contains("enforcer log verify"), "{error}");
}

#[test]
fn a_file_that_is_no_index_is_left_alone() {
    let written = Written::new(50, 1);
    let file = written.path().join("notes.txt");
    std::fs::write(&file, "do not lose this\n".repeat(100)).expect("writes");
    let error = Index::open(written.path(), &file).expect_err("is a text");
    assert!(matches!(error, SearchError::Foreign(_)), "{error:?}");
    let text = std::fs::read_to_string(&file).expect("reads");
    assert_eq!(text, "do not lose this\n".repeat(100));
    let database = written.path().join("other.sqlite");
    let other = rusqlite::Connection::open(&database).expect("opens");
    other
        .execute_batch("CREATE TABLE theirs (x)")
        .expect("writes");
    let error = Index::open(written.path(), &database).expect_err("is theirs");
    assert!(matches!(error, SearchError::Foreign(_)), "{error:?}");
}

#[test]
fn segments_that_are_not_kept_any_more_are_passed_over() {
    let written = Written::new(50, 20);
    let mut index = written.index();
    index.update(false).expect("builds");
    std::fs::remove_file(written.path().join("log-000001.jsonl")).expect("removes");
    let found = asked(&index, Filter::default(), None).expect("finds");
    assert_eq!(found, (51..=140).collect::<Vec<u64>>());
    let built = index.update(true).expect("builds what is left");
    assert_eq!((built.last, built.added), (140, 90));
}

#[test]
fn only_its_owner_may_read_an_index() {
    use std::os::unix::fs::PermissionsExt;
    let written = Written::new(50, 1);
    written.index().update(false).expect("builds");
    let mode = std::fs::metadata(written.file())
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
