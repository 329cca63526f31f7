//! What is held and charged: never more than the budget together, and every job once, whatever comes first.

use super::*;
use crate::admission::Start;
use crate::scope::TableRef;

const UNBOUNDED: Budget = Budget {
    bytes_max: u64::MAX,
    query_bytes_max: u64::MAX,
    returned_bytes_max: u64::MAX,
    queries_max: u64::MAX,
    jobs_at_once_max: u64::MAX,
};

fn job(query: QueryId) -> JobRef {
    JobRef {
        project: "p".into(),
        job: query.to_string(),
        location: Some("US".into()),
    }
}

/// A host whose one window has this byte budget.
fn host_with(bytes_max: u64) -> (Host, GrantId) {
    let mut host = Host::default();
    let grant = host.open(at(100), "10m");
    let held = host.ledger.grants.get_mut(&grant).expect("open");
    held.budget = Budget {
        bytes_max,
        ..UNBOUNDED
    };
    (host, grant)
}

fn budget(host: &mut Host, grant: GrantId) -> &mut Budget {
    let held = host.ledger.grants.get_mut(&grant);
    &mut held.expect("open").budget
}

/// The names of the jobs that are so far.
fn unsettled(host: &Host, grant: GrantId, is_one: impl Fn(JobState) -> bool) -> Vec<JobRef> {
    let jobs = host.ledger.grant(grant).expect("held").unsettled_jobs();
    let jobs = jobs.into_iter().filter(|job| is_one(job.state));
    jobs.map(|job| job.job).collect()
}

fn left(host: &Host, grant: GrantId) -> u64 {
    host.ledger.grant(grant).expect("held").bytes_left()
}

fn charged(host: &Host, grant: GrantId) -> u64 {
    host.ledger.grant(grant).expect("held").usage.bytes
}

/// Judges a query and takes it in, as the engine does.
fn start(
    host: &mut Host,
    grant: GrantId,
    estimate: u64,
    asked: Option<u64>,
) -> Result<(QueryId, u64), Code> {
    let held = host.ledger.grant(grant).expect("held");
    let facts = select("p.finance.daily", estimate);
    let judged = admit(at(101), held, &facts, None).and_then(|_| held.ceiling(&facts, asked));
    let ceiling = judged.map_err(|refusal| refusal.code)?;
    let query = host.ledger.next_query();
    let mut event = starting(query, grant, ceiling);
    if let Event::QueryAdmitted { job: name, .. } = &mut event {
        *name = Some(job(query));
    }
    host.ledger.apply(at(101), &event);
    Ok((query, ceiling.expect("a job is started")))
}

/// BigQuery's own description, in answer to `query`, says that the job of `of` has ended, and nothing of its cost.
fn described(host: &mut Host, grant: GrantId, query: QueryId, of: QueryId) {
    let mut event = seen(query, grant, job(of));
    if let Event::JobSeen {
        is_done,
        is_compared,
        ..
    } = &mut event
    {
        (*is_done, *is_compared) = (true, true);
    }
    host.ledger.apply(at(102), &event);
}

fn ends(
    host: &mut Host,
    grant: GrantId,
    query: QueryId,
    cost: Option<u64>,
    of_processed: Option<u64>,
) {
    let mut event = seen(query, grant, job(query));
    if let Event::JobSeen {
        is_done,
        billed,
        processed,
        ..
    } = &mut event
    {
        (*is_done, *billed, *processed) = (true, cost, of_processed);
    }
    host.ledger.apply(at(102), &event);
}

#[test]
fn a_ceiling_leaves_room_for_growth_and_for_what_bigquery_bills_at_least() {
    let (mut host, grant) = host_with(1000 * MIB);
    let mut ceiling =
        |estimate, asked| start(&mut host, grant, estimate, asked).map(|(_, most)| most);
    assert_eq!(ceiling(0, None), Ok(10 * MIB));
    assert_eq!(ceiling(80 * MIB, None), Ok(90 * MIB));
    assert_eq!(ceiling(80 * MIB, Some(200 * MIB)), Ok(200 * MIB));
    assert_eq!(ceiling(80 * MIB, Some(0)), Ok(90 * MIB));
    assert_eq!(
        ceiling(80 * MIB, Some(u64::MAX)),
        Ok(610 * MIB),
        "what is left"
    );
    assert_eq!(ceiling(0, None), Err(Code::WindowBudget), "never zero");
    let tables: Vec<TableRef> = (0..3)
        .map(|number| format!("p.finance.t{number}").parse().expect("a table"))
        .collect();
    let run = DryRun {
        statement: "SELECT".into(),
        tables,
        routines: Vec::new(),
        targets: Vec::new(),
        layout: Layout::Kept,
        to: Vec::new(),
        bytes: 5,
    };
    assert_eq!(crate::ledger::budget::ceiling_of(&run), 30 * MIB);
}

#[test]
fn what_is_less_than_bigquery_bills_at_least_is_left_for_what_costs_less_and_takes_no_query() {
    let (mut host, grant) = host_with(25 * MIB);
    for _ in 0..2 {
        let (query, ceiling) = start(&mut host, grant, 8000, None).expect("room");
        assert_eq!(ceiling, 10 * MIB);
        ends(&mut host, grant, query, Some(10 * MIB), None);
    }
    assert_eq!(left(&host, grant), 5 * MIB);
    let refused = start(&mut host, grant, 8000, None);
    assert_eq!(refused, Err(Code::WindowBudget));
    let refused = start(&mut host, grant, 8000, Some(4 * MIB));
    assert_eq!(
        refused,
        Err(Code::WindowBudget),
        "whatever the client asks for"
    );
    // What reads nothing is billed nothing.
    assert!(start(&mut host, grant, 0, None).is_ok());
}

#[test]
fn a_query_that_a_window_allows_too_little_for_is_refused_in_our_words() {
    let (host, grant) = host_with(100 * MIB);
    let mut grant = host.ledger.grant(grant).expect("open").clone();
    grant.budget.query_bytes_max = 9 * MIB;
    let facts = select("p.finance.daily", 8000);
    let refused = grant.ceilings(&facts, None).expect_err("is refused");
    assert_eq!(refused.code, Code::WindowBudget);
    assert!(refused.what.contains("BigQuery bills 10485760 at least"));
}

#[test]
fn what_a_job_costs_is_charged_once_when_it_is_known_to_have_ended() {
    let (mut host, grant) = host_with(100 * MIB);
    let (query, _) = start(&mut host, grant, 40 * MIB, None).expect("room");
    host.ledger.apply(at(101), &seen(query, grant, job(query)));
    host.ledger.apply(at(101), &finishing(query, grant));
    assert_eq!((left(&host, grant), charged(&host, grant)), (55 * MIB, 0));
    for _ in 0..2 {
        ends(&mut host, grant, query, Some(41 * MIB), None);
        assert_eq!(charged(&host, grant), 41 * MIB);
        assert_eq!(left(&host, grant), 59 * MIB);
    }
}

#[test]
fn bytes_processed_are_charged_as_the_most_that_can_be_billed_for_them() {
    for (processed, cost) in [
        (0, 0),
        (1, 10 * MIB),
        (12 * MIB + 1, 13 * MIB),
        (44 * MIB, 44 * MIB),
        (90 * MIB, 45 * MIB),
    ] {
        let (mut host, grant) = host_with(100 * MIB);
        let (query, _) = start(&mut host, grant, 40 * MIB, None).expect("room");
        ends(&mut host, grant, query, None, Some(processed));
        assert_eq!(charged(&host, grant), cost, "{processed}");
    }
}

#[test]
fn a_start_without_an_answer_stays_held_and_one_that_was_refused_is_free() {
    let (mut host, grant) = host_with(100 * MIB);
    let (lost, _) = start(&mut host, grant, 40 * MIB, None).expect("room");
    host.ledger.apply(at(101), &finishing(lost, grant));
    assert_eq!(left(&host, grant), 55 * MIB);
    let (refused, _) = start(&mut host, grant, 40 * MIB, None).expect("room");
    let mut void = finishing(refused, grant);
    if let Event::QueryFinished { is_void, .. } = &mut void {
        *is_void = true;
    }
    host.ledger.apply(at(101), &void);
    assert_eq!((left(&host, grant), charged(&host, grant)), (55 * MIB, 0));
    ends(&mut host, grant, lost, None, None);
    assert_eq!(
        (left(&host, grant), charged(&host, grant)),
        (55 * MIB, 0),
        "ended, but nothing said of its cost"
    );
    described(&mut host, grant, lost, lost);
    assert_eq!(
        (left(&host, grant), charged(&host, grant)),
        (55 * MIB, 45 * MIB),
        "nor does its description: it is charged what it can have cost"
    );
}

#[test]
fn a_dry_run_costs_nothing_counts_for_nothing_and_makes_no_job_the_windows_own() {
    let (mut host, grant) = host_with(100);
    let mut facts = select("p.finance.daily", 5000);
    facts.is_dry_run = true;
    let held = host.ledger.grant(grant).expect("held");
    assert!(
        admit(at(101), held, &facts, None).is_ok(),
        "whatever it would cost"
    );
    assert_eq!(held.ceiling(&facts, None), Ok(None));
    let mut event = starting(QueryId(1), grant, None);
    if let Event::QueryAdmitted {
        is_dry_run, bytes, ..
    } = &mut event
    {
        (*is_dry_run, *bytes) = (true, 5000);
    }
    host.ledger.apply(at(101), &event);
    ends(&mut host, grant, QueryId(1), Some(5000), None);
    host.ledger.apply(at(101), &finishing(QueryId(1), grant));
    let held = host.ledger.grant(grant).expect("held");
    assert_eq!((held.bytes_left(), held.usage.queries), (100, 0));
    assert!(held.own_job(&job(QueryId(1))).is_none());
}

/// Asks for a page of a job's result: gives what may be passed on of it.
fn read_result(
    host: &mut Host,
    grant: GrantId,
    of: QueryId,
) -> Result<(QueryId, Option<u64>), Code> {
    let held = host.ledger.grant(grant).expect("held");
    let facts = QueryFacts {
        method: Method::GetQueryResults,
        project: Some("p".into()),
        touch: Touch::Job(job(of)),
        sql: None,
        is_dry_run: false,
    };
    let judged = admit(at(101), held, &facts, None).and_then(|_| held.ceilings(&facts, None));
    let most = judged.map_err(|refusal| refusal.code)?;
    assert_eq!(most.bytes, None, "its query was charged");
    let query = host.ledger.next_query();
    let mut event = starting(query, grant, None);
    if let Event::QueryAdmitted {
        method,
        returned_ceiling,
        ..
    } = &mut event
    {
        (*method, *returned_ceiling) = (Method::GetQueryResults, most.returned_bytes);
    }
    host.ledger.apply(at(101), &event);
    Ok((query, most.returned_bytes))
}

fn passed_on(host: &mut Host, grant: GrantId, query: QueryId, bytes: u64) {
    let mut event = finishing(query, grant);
    if let Event::QueryFinished { body_bytes, .. } = &mut event {
        *body_bytes = bytes;
    }
    // Heard twice, it is charged once.
    for _ in 0..2 {
        host.ledger.apply(at(101), &event);
    }
}

#[test]
fn rows_are_held_while_they_are_passed_on_and_then_charged_and_the_last_of_them_closes_the_window()
{
    let (mut host, grant) = host_with(100 * MIB);
    budget(&mut host, grant).returned_bytes_max = 50 * MIB;
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    host.ledger.apply(at(101), &seen(query, grant, job(query)));
    let (first, most) = read_result(&mut host, grant, query).expect("room");
    assert_eq!(most, Some(32 * MIB));
    let (second, most) = read_result(&mut host, grant, query).expect("room");
    assert_eq!(most, Some(18 * MIB), "what is left");
    let third = read_result(&mut host, grant, query).map(|_| ());
    assert_eq!(third, Err(Code::WindowBusy), "all is held, and not used");
    passed_on(&mut host, grant, first, MIB);
    let left = |host: &Host| {
        host.ledger
            .grant(grant)
            .expect("held")
            .returned_bytes_left()
    };
    assert_eq!(left(&host), 31 * MIB);
    passed_on(&mut host, grant, second, 18 * MIB);
    assert_eq!(left(&host), 31 * MIB);
    assert_eq!(host.ledger.tick(at(102)).first.len(), 0);
    let (last, most) = read_result(&mut host, grant, query).expect("room");
    assert_eq!(most, Some(31 * MIB));
    passed_on(&mut host, grant, last, 31 * MIB);
    assert_eq!(host.ledger.tick(at(102)).first.len(), 1, "it closes");
}

#[test]
fn a_window_whose_queries_are_used_up_closes_a_minute_after_the_last_of_them_and_of_its_results() {
    let (mut host, grant) = host_with(100 * MIB);
    budget(&mut host, grant).queries_max = 1;
    let reasons = |host: &Host, second: u64| {
        let closing = host.ledger.tick(at(second)).events;
        let reasons = closing.into_iter().filter_map(|event| {
            let Event::Closed { reason, .. } = event else {
                return None;
            };
            Some(reason)
        });
        reasons.collect::<Vec<_>>()
    };
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    host.ledger.apply(at(101), &seen(query, grant, job(query)));
    host.ledger.apply(at(101), &finishing(query, grant));
    assert_eq!(reasons(&host, 400), [], "it runs");
    // It has ended at 102, and is looked at.
    ends(&mut host, grant, query, Some(0), None);
    described(&mut host, grant, query, query);
    assert_eq!(reasons(&host, 161), []);
    // Somebody reads of its results, at 101 by the clock of this test: what is under way holds it open, and then it is a minute from its end.
    let (page, _) = read_result(&mut host, grant, query).expect("room");
    assert_eq!(reasons(&host, 400), [], "rows are being passed on");
    host.ledger.apply(at(130), &finishing(page, grant));
    assert_eq!(host.ledger.poll_timeout(), Some(at(190).boot_ns));
    // Looking at a dataset and putting rows into a table are of no result, and do not keep it open.
    for (other, second) in [(Method::DatasetsGet, 150), (Method::InsertAll, 180)] {
        let query = host.ledger.next_query();
        let mut event = starting(query, grant, None);
        if let Event::QueryAdmitted { method, sql, .. } = &mut event {
            (*method, *sql) = (other, None);
        }
        host.ledger.apply(at(second), &event);
        host.ledger.apply(at(second), &finishing(query, grant));
    }
    assert_eq!(reasons(&host, 189), []);
    assert_eq!(reasons(&host, 190), [CloseReason::BudgetSpent]);
}

#[test]
fn a_window_does_not_close_while_the_rows_of_its_last_query_are_being_sent() {
    let (mut host, grant) = host_with(100 * MIB);
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    host.ledger.apply(at(101), &finishing(query, grant));
    let sent = host.ledger.next_query();
    let mut event = starting(sent, grant, Some(8));
    if let Event::QueryAdmitted { method, sql, .. } = &mut event {
        (*method, *sql) = (Method::InsertAll, None);
    }
    host.ledger.apply(at(300), &event);
    budget(&mut host, grant).queries_max = 1;
    assert_eq!(host.ledger.tick(at(301)).events, []);
}

#[test]
fn what_is_exported_is_charged_whole_unless_it_never_began() {
    for (is_void, cost) in [(false, 30 * MIB), (true, 0)] {
        let (mut host, grant) = host_with(100 * MIB);
        let query = host.ledger.next_query();
        let mut event = starting(query, grant, None);
        if let Event::QueryAdmitted {
            exports,
            returned_ceiling,
            ..
        } = &mut event
        {
            exports.push("gs://out-1".parse().expect("a bucket"));
            *returned_ceiling = Some(30 * MIB);
        }
        host.ledger.apply(at(101), &event);
        let mut event = finishing(query, grant);
        if let Event::QueryFinished { is_void: void, .. } = &mut event {
            *void = is_void;
        }
        host.ledger.apply(at(101), &event);
        let held = host.ledger.grant(grant).expect("held");
        assert_eq!(held.usage.returned_bytes, cost);
        assert_eq!(held.returned_bytes_left(), u64::MAX - cost);
    }
}

#[test]
fn an_export_that_fails_late_is_charged_as_it_may_have_written_by_then() {
    let name = || Some(job(QueryId(7)));
    for (name, status, cost) in [
        (None, 400, 30 * MIB),
        (None, 404, 30 * MIB),
        (name(), 400, 30 * MIB),
        // By its name BigQuery says that it has no such job, or has it already.
        (name(), 404, 0),
        (name(), 409, 0),
        // Not a plain answer: it was looked for, and is not there.
        (name(), 503, 0),
    ] {
        let (mut host, grant) = host_with(100 * MIB);
        let query = host.ledger.next_query();
        let mut event = starting(query, grant, Some(0));
        if let Event::QueryAdmitted {
            exports,
            returned_ceiling,
            job,
            ..
        } = &mut event
        {
            exports.push("gs://out-1".parse().expect("a bucket"));
            *returned_ceiling = Some(30 * MIB);
            job.clone_from(&name);
        }
        host.ledger.apply(at(101), &event);
        let mut event = finishing(query, grant);
        if let Event::QueryFinished {
            is_void,
            status: said,
            ..
        } = &mut event
        {
            (*is_void, *said) = (true, Some(status));
        }
        host.ledger.apply(at(101), &event);
        let held = host.ledger.grant(grant).expect("held");
        assert_eq!(held.usage.returned_bytes, cost, "{name:?} {status}");
    }
}

#[test]
fn an_export_that_read_more_than_was_known_before_is_charged_for_it_when_it_has_ended() {
    for is_seen_first in [false, true] {
        let (mut host, grant) = host_with(100 * MIB);
        let query = host.ledger.next_query();
        let mut event = starting(query, grant, Some(0));
        if let Event::QueryAdmitted {
            exports,
            returned_ceiling,
            ..
        } = &mut event
        {
            exports.push("gs://out-1".parse().expect("a bucket"));
            *returned_ceiling = Some(MIB);
        }
        host.ledger.apply(at(101), &event);
        if is_seen_first {
            ends(&mut host, grant, query, Some(0), Some(5 * MIB));
            host.ledger.apply(at(102), &finishing(query, grant));
        } else {
            host.ledger.apply(at(101), &seen(query, grant, job(query)));
            host.ledger.apply(at(101), &finishing(query, grant));
            let held = host.ledger.grant(grant).expect("held");
            assert_eq!(held.usage.returned_bytes, MIB);
            for _ in 0..2 {
                ends(&mut host, grant, query, Some(0), Some(5 * MIB));
            }
        }
        let held = host.ledger.grant(grant).expect("held");
        assert_eq!(held.usage.returned_bytes, 5 * MIB, "{is_seen_first}");
    }
}

#[test]
fn rows_that_were_on_their_way_when_the_daemon_ended_are_charged_as_they_were_held() {
    let (mut host, grant) = host_with(100 * MIB);
    budget(&mut host, grant).returned_bytes_max = 100 * MIB;
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    host.ledger.apply(at(101), &seen(query, grant, job(query)));
    let _ = read_result(&mut host, grant, query).expect("room");
    let again = host.ledger.resume(at(102), true, |_| true);
    assert!(again.first.is_empty(), "the window stays open");
    host.record(at(102), &again);
    let held = host.ledger.grant(grant).expect("held");
    assert_eq!(held.usage.returned_bytes, 32 * MIB);
    assert_eq!(held.returned_bytes_left(), 68 * MIB);
    let once = host.ledger.resume(at(103), true, |_| true);
    assert!(once.events.is_empty(), "{once:?}");
}

/// Tries a start of this name, which is to do this, and takes it in as the engine does.
fn try_start(host: &mut Host, grant: GrantId, asked: &str, estimate: u64) -> Result<QueryId, Code> {
    let name = JobRef {
        project: "p".into(),
        job: "again".into(),
        location: Some("US".into()),
    };
    let held = host.ledger.grant(grant).expect("held");
    let facts = select("p.finance.daily", estimate);
    let start = Start {
        name: &name,
        asked: Some(asked),
    };
    let judged = admit(at(101), held, &facts, Some(start));
    let ceiling = judged.and_then(|_| held.ceiling(&facts, None));
    let ceiling = ceiling.map_err(|refusal| refusal.code)?;
    let query = host.ledger.next_query();
    let mut event = starting(query, grant, ceiling);
    if let Event::QueryAdmitted { job, asked: to, .. } = &mut event {
        (*job, *to) = (Some(name), Some(asked.to_owned()));
    }
    host.ledger.apply(at(101), &event);
    Ok(query)
}

#[test]
fn a_start_that_is_tried_again_is_one_start_and_goes_out_only_when_the_last_came_to_nothing() {
    let (mut host, grant) = host_with(100 * MIB);
    budget(&mut host, grant).queries_max = 2;
    let usage = |host: &Host| host.ledger.grant(grant).expect("held").usage.clone();
    let came_to_nothing = |host: &mut Host, query: QueryId| {
        let mut void = finishing(query, grant);
        if let Event::QueryFinished {
            status, is_void, ..
        } = &mut void
        {
            (*status, *is_void) = (Some(404), true);
        }
        host.ledger.apply(at(101), &void);
    };
    let first = try_start(&mut host, grant, "x", 40 * MIB).expect("room");
    for (asked, code) in [("x", Code::JobUnanswered), ("y", Code::JobIdUsed)] {
        assert_eq!(try_start(&mut host, grant, asked, MIB), Err(code));
    }
    came_to_nothing(&mut host, first);
    let other = try_start(&mut host, grant, "y", MIB);
    assert_eq!(other, Err(Code::JobIdUsed), "another job");
    for _ in 0..3 {
        // Whatever it would hold now: the first may have come to something.
        let again = try_start(&mut host, grant, "x", MIB).expect("once more");
        assert_eq!((left(&host, grant), usage(&host).queries), (55 * MIB, 1));
        let meanwhile = try_start(&mut host, grant, "x", MIB);
        assert_eq!(meanwhile, Err(Code::JobUnanswered), "one at a time");
        came_to_nothing(&mut host, again);
    }
    let last = try_start(&mut host, grant, "x", MIB).expect("once more");
    let name = JobRef {
        project: "p".into(),
        job: "again".into(),
        location: Some("US".into()),
    };
    host.ledger.apply(at(101), &seen(last, grant, name));
    for (asked, code) in [("x", Code::JobDuplicate), ("y", Code::JobIdUsed)] {
        assert_eq!(try_start(&mut host, grant, asked, MIB), Err(code));
    }
    assert_eq!(unsettled(&host, grant, |_| true).len(), 1, "one job");
    assert_eq!((left(&host, grant), usage(&host).queries), (55 * MIB, 1));
}

#[test]
fn a_second_try_that_could_not_be_recorded_leaves_the_first_as_it_was() {
    let (mut host, grant) = host_with(100 * MIB);
    let first = try_start(&mut host, grant, "x", MIB).expect("room");
    let mut void = finishing(first, grant);
    if let Event::QueryFinished {
        status, is_void, ..
    } = &mut void
    {
        (*status, *is_void) = (Some(404), true);
    }
    host.ledger.apply(at(101), &void);
    let before = host.ledger.grant(grant).expect("held").usage.clone();
    let second = try_start(&mut host, grant, "x", MIB).expect("once more");
    let mut event = starting(second, grant, Some(10 * MIB));
    if let Event::QueryAdmitted { job, asked, .. } = &mut event {
        *job = Some(JobRef {
            project: "p".into(),
            job: "again".into(),
            location: Some("US".into()),
        });
        *asked = Some("x".to_owned());
    }
    host.ledger.withdraw(&event);
    assert_eq!(host.ledger.grant(grant).expect("held").usage, before);
}

#[test]
fn a_start_that_came_to_nothing_leaves_its_place_and_its_name_for_the_close() {
    let (mut host, grant) = host_with(1000 * MIB);
    let name = |query: QueryId| JobRef {
        location: Some("US".into()),
        ..job(query)
    };
    let begin = |host: &mut Host, same: Option<&JobRef>| {
        let query = host.ledger.next_query();
        let mut event = starting(query, grant, Some(10 * MIB));
        if let Event::QueryAdmitted { job, .. } = &mut event {
            *job = Some(same.cloned().unwrap_or_else(|| name(query)));
        }
        host.ledger.apply(at(101), &event);
        query
    };
    let answered = |host: &mut Host, query, code, void| {
        let mut event = finishing(query, grant);
        if let Event::QueryFinished {
            status, is_void, ..
        } = &mut event
        {
            (*status, *is_void) = (Some(code), void);
        }
        host.ledger.apply(at(102), &event);
    };
    let places = |host: &Host| host.ledger.grant(grant).expect("held").usage.jobs_at_once();
    // BigQuery has not got it, as far as it says.
    let first = begin(&mut host, None);
    answered(&mut host, first, 503, true);
    assert_eq!((places(&host), left(&host, grant)), (0, 1000 * MIB));
    let looked_for = |host: &Host| unsettled(host, grant, |state| state >= JobState::Unanswered);
    assert_eq!(looked_for(&host), [name(first)]);
    // Nor where no answer came, and it is not there when it is looked for.
    let lost = begin(&mut host, None);
    answered(&mut host, lost, 404, true);
    assert_eq!(places(&host), 0);
    assert_eq!(looked_for(&host), [name(first), name(lost)]);
    let gone = Event::JobCancelled {
        grant,
        job: name(lost),
        outcome: "not there".into(),
        is_settled: Some(true),
    };
    host.ledger.apply(at(102), &gone);
    // Nor may another be started under its name.
    let is_used = |host: &Host, name: &JobRef| {
        host.ledger.grant(grant).expect("held").name_use(name, None) != NameUse::None
    };
    assert!(is_used(&host, &name(first)));
    let second = begin(&mut host, None);
    assert!(is_used(&host, &name(second)), "it is on its way");
    host.ledger
        .apply(at(102), &seen(second, grant, name(second)));
    assert_eq!(looked_for(&host), [name(first)]);
    assert_eq!((places(&host), left(&host, grant)), (1, 990 * MIB));
    // One without a name cannot be looked for: the most that it can cost is charged.
    let nameless = host.ledger.next_query();
    host.ledger
        .apply(at(101), &starting(nameless, grant, Some(10 * MIB)));
    answered(&mut host, nameless, 503, false);
    assert_eq!((places(&host), left(&host, grant)), (1, 980 * MIB));
    assert_eq!(charged(&host, grant), 10 * MIB);
}

#[test]
fn an_upload_takes_a_place_from_its_last_part_on_and_none_where_that_was_never_sent() {
    let (mut host, grant) = host_with(1000 * MIB);
    let begun = host.ledger.next_query();
    let mut event = starting(begun, grant, Some(0));
    if let Event::QueryAdmitted {
        method,
        sql,
        in_parts,
        job: name,
        ..
    } = &mut event
    {
        (*method, *sql, *in_parts) = (Method::JobsUpload, None, true);
        *name = Some(job(begun));
    }
    host.ledger.apply(at(101), &event);
    host.ledger.apply(at(101), &finishing(begun, grant));
    let places = |host: &Host| host.ledger.grant(grant).expect("held").usage.jobs_at_once();
    let send = |host: &mut Host, of: Option<JobRef>| {
        let part = host.ledger.next_query();
        let mut event = starting(part, grant, Some(8));
        if let Event::QueryAdmitted {
            method, sql, job, ..
        } = &mut event
        {
            (*method, *sql, *job) = (Method::UploadPart, None, of);
        }
        host.ledger.apply(at(101), &event);
        part
    };
    let first = send(&mut host, None);
    assert_eq!(places(&host), 0);
    // A window whose queries are used up does not close while it goes on.
    budget(&mut host, grant).queries_max = 0;
    assert_eq!(host.ledger.tick(at(400)).events, []);
    budget(&mut host, grant).queries_max = u64::MAX;
    host.ledger.apply(at(101), &finishing(first, grant));
    assert!(
        unsettled(&host, grant, |_| true).is_empty(),
        "no job can run"
    );
    // The answer to the last part is lost, and there is no such job when it is looked for.
    let last = send(&mut host, Some(job(begun)));
    assert_eq!(places(&host), 1);
    let mut lost = finishing(last, grant);
    if let Event::QueryFinished {
        status, is_void, ..
    } = &mut lost
    {
        (*status, *is_void) = (Some(404), true);
    }
    host.ledger.apply(at(102), &lost);
    assert_eq!(places(&host), 0);
    assert_eq!(
        unsettled(&host, grant, |_| true),
        [job(begun)],
        "the close looks once more"
    );
    // The client sends it again: now there is one.
    let again = send(&mut host, Some(job(begun)));
    host.ledger.apply(at(102), &seen(again, grant, job(begun)));
    host.ledger.apply(at(102), &finishing(again, grant));
    assert_eq!(places(&host), 1);
    described(&mut host, grant, again, begun);
    assert_eq!(places(&host), 0);
    assert_eq!(charged(&host, grant), 16);
}

#[test]
fn what_is_read_through_a_wildcard_or_a_part_counts_as_read_of_the_table_that_a_job_has_written() {
    let (mut host, grant) = host_with(1000 * MIB);
    let query = host.ledger.next_query();
    let mut event = starting(query, grant, Some(10 * MIB));
    if let Event::QueryAdmitted { writes, .. } = &mut event {
        writes.push("p.finance.loot_1".parse().expect("a table"));
    }
    host.ledger.apply(at(101), &event);
    host.ledger.apply(at(101), &seen(query, grant, job(query)));
    let is_compared_first = |table: &str| {
        let held = host.ledger.grant(grant).expect("held");
        let table: TableRef = table.parse().expect("a table");
        !held.uncompared_jobs_of(&[table]).is_empty()
    };
    for table in [
        "loot_1",
        "loot_1$20260101",
        "loot_1@-1",
        "loot_*",
        "loot_1*",
        "*",
    ] {
        assert!(is_compared_first(&format!("p.finance.{table}")), "{table}");
    }
    for table in [
        "p.finance.loot_2",
        "p.finance.lo",
        "p.finance.loot_10*",
        "p.hr.loot_*",
    ] {
        assert!(!is_compared_first(table), "{table}");
    }
}

#[test]
fn a_job_whose_query_reads_tables_is_compared_only_once_it_names_some() {
    let (mut host, grant) = host_with(1000 * MIB);
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    let mut event = seen(query, grant, job(query));
    for names_none in [true, false] {
        if let Event::JobSeen {
            is_done,
            is_compared,
            names_no_table,
            ..
        } = &mut event
        {
            (*is_done, *is_compared, *names_no_table) = (true, true, names_none);
        }
        host.ledger.apply(at(102), &event);
        let held = host.ledger.grant(grant).expect("held");
        assert_eq!(held.uncompared(&job(query)).is_some(), names_none);
    }
}

#[test]
fn one_query_may_not_take_more_than_its_share() {
    let (mut host, grant) = host_with(1000 * MIB);
    budget(&mut host, grant).query_bytes_max = 50 * MIB;
    let mut ceiling =
        |estimate, asked| start(&mut host, grant, estimate, asked).map(|(_, most)| most);
    assert_eq!(ceiling(51 * MIB, None), Err(Code::WindowBudget));
    assert_eq!(ceiling(50 * MIB, None), Ok(50 * MIB), "no room for growth");
    assert_eq!(ceiling(0, Some(900 * MIB)), Ok(50 * MIB));
}

#[test]
fn as_many_jobs_run_at_once_as_the_window_allows() {
    let (mut host, grant) = host_with(1000 * MIB);
    budget(&mut host, grant).jobs_at_once_max = 2;
    let (first, _) = start(&mut host, grant, 0, None).expect("room");
    let (second, _) = start(&mut host, grant, 0, None).expect("room");
    host.ledger.apply(at(101), &seen(first, grant, job(first)));
    host.ledger.apply(at(101), &finishing(first, grant));
    let third = start(&mut host, grant, 0, None).map(|_| ());
    assert_eq!(
        third,
        Err(Code::WindowBusy),
        "its answer is through, it runs"
    );
    // What it cost is not said: its bytes stay held.
    ends(&mut host, grant, first, None, None);
    let _ = start(&mut host, grant, 0, None).expect("one has ended");
    assert_eq!(left(&host, grant), 970 * MIB);
    let mut event = finishing(second, grant);
    if let Event::QueryFinished { is_void, .. } = &mut event {
        *is_void = true;
    }
    host.ledger.apply(at(102), &event);
    let _ = start(&mut host, grant, 0, None).expect("one never began");
    let last = start(&mut host, grant, 0, None).map(|_| ());
    assert_eq!(last, Err(Code::WindowBusy));
}

fn rows(table: &str) -> QueryFacts {
    QueryFacts {
        method: Method::TabledataList,
        project: Some("p".into()),
        touch: Touch::Rows(table.parse().expect("a table")),
        sql: None,
        is_dry_run: false,
    }
}

/// Reads rows: gives the ceiling, and charges what was passed on.
fn read_rows(host: &mut Host, grant: GrantId, passed_on: u64) -> Result<u64, Code> {
    let held = host.ledger.grant(grant).expect("held");
    let ceiling = held.ceiling(&rows("p.finance.daily"), None);
    let ceiling = ceiling.map_err(|refusal| refusal.code)?;
    let query = host.ledger.next_query();
    let mut event = starting(query, grant, ceiling);
    if let Event::QueryAdmitted { method, .. } = &mut event {
        *method = Method::TabledataList;
    }
    host.ledger.apply(at(101), &event);
    let mut event = finishing(query, grant);
    if let Event::QueryFinished { body_bytes, .. } = &mut event {
        *body_bytes = passed_on.min(ceiling.expect("held"));
    }
    host.ledger.apply(at(101), &event);
    Ok(ceiling.expect("held"))
}

#[test]
fn rows_that_are_read_directly_are_charged_as_they_are_passed_on_and_results_are_free() {
    let (mut host, grant) = host_with(50 * MIB);
    assert_eq!(read_rows(&mut host, grant, 30 * MIB), Ok(32 * MIB));
    assert_eq!(read_rows(&mut host, grant, 30 * MIB), Ok(20 * MIB));
    assert_eq!(charged(&host, grant), 50 * MIB);
    let held = host.ledger.grant(grant).expect("held");
    assert_eq!(held.usage.queries, 0);
    assert_eq!(read_rows(&mut host, grant, 1), Err(Code::WindowBudget));
    assert_eq!(host.ledger.tick(at(102)).first.len(), 1, "it closes");

    let (mut host, grant) = host_with(50 * MIB);
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    let mut named = seen(query, grant, job(query));
    if let Event::JobSeen { destination, .. } = &mut named {
        *destination = Some("p._anon.a1".parse().expect("a table"));
    }
    host.ledger.apply(at(101), &named);
    let held = host.ledger.grant(grant).expect("held");
    assert_eq!(held.ceiling(&rows("p._anon.a1"), None), Ok(None));
    assert_eq!(held.ceiling(&rows("p._anon.b2"), None), Ok(Some(32 * MIB)));
}

#[test]
fn only_what_the_window_started_is_its_own() {
    let (mut host, grant) = host_with(100 * MIB);
    let other = seen(QueryId(77), grant, job(QueryId(77)));
    assert!(!host.ledger.is_news(&other));
    host.ledger.apply(at(101), &other);
    assert!(unsettled(&host, grant, |_| true).is_empty());
}

#[test]
fn a_job_that_has_ended_is_news_once_and_not_running() {
    let (mut host, grant) = host_with(100 * MIB);
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    let named = seen(query, grant, job(query));
    assert!(host.ledger.is_news(&named));
    host.ledger.apply(at(101), &named);
    assert!(!host.ledger.is_news(&named));
    let running = |host: &Host| unsettled(host, grant, |state| state == JobState::Running);
    assert_eq!(running(&host), [job(query)]);
    ends(&mut host, grant, query, Some(0), None);
    assert!(running(&host).is_empty());
}

#[test]
fn a_log_that_knew_no_ceilings_is_read_as_it_was_meant() {
    let (mut host, grant) = host_with(100 * MIB);
    let text = r#"{"kind":"query_admitted","query":"q-1","grant":"g-1","agent":"bot","session":"s-1","process":{"pid":1,"start_boot_ns":1,"uid":1,"comm":"x"},"method":"jobs.insert","sql":null,"tables":[],"bytes":500}"#;
    let old: Event = serde_json::from_str(text).expect("an old record");
    host.ledger.apply(at(101), &old);
    assert_eq!(left(&host, grant), 100 * MIB - 500);
    let text = r#"{"kind":"query_finished","query":"q-1","grant":"g-1","status":200,"job":{"project":"p","job":"q-1","location":"US"},"destination":null,"bytes":700,"body_bytes":1,"duration_us":1,"trouble":null}"#;
    let old: Event = serde_json::from_str(text).expect("an old record");
    host.ledger.apply(at(101), &old);
    assert_eq!(
        (left(&host, grant), charged(&host, grant)),
        (100 * MIB - 700, 700)
    );
    let held = host.ledger.grant(grant).expect("held");
    assert!(held.own_job(&job(QueryId(1))).is_some());
}

#[test]
fn an_admission_that_is_taken_back_leaves_nothing() {
    let (mut host, grant) = host_with(100 * MIB);
    let _ = start(&mut host, grant, 0, None).expect("room");
    let before = host.ledger.clone();
    let query = host.ledger.next_query();
    let started = starting(query, grant, Some(MIB));
    let mut dry = starting(query.next(), grant, None);
    if let Event::QueryAdmitted { is_dry_run, .. } = &mut dry {
        *is_dry_run = true;
    }
    let mut rows = starting(query.next().next(), grant, Some(MIB));
    if let Event::QueryAdmitted {
        method,
        returned_ceiling,
        ..
    } = &mut rows
    {
        (*method, *returned_ceiling) = (Method::TabledataList, Some(MIB));
    }
    let events = [started, dry, rows];
    for event in &events {
        host.ledger.apply(at(102), event);
    }
    assert_ne!(host.ledger, before);
    for event in events.iter().rev() {
        host.ledger.withdraw(event);
    }
    assert_eq!(host.ledger, before);
}

#[derive(Debug, Clone)]
enum Move {
    /// Asks for a query.
    Start { estimate: u64, asked: Option<u64> },
    /// BigQuery's answer to one of the starts names its job; it bills this share of the ceiling.
    Seen {
        which: usize,
        is_done: bool,
        thousandths: u64,
        says_billed: bool,
    },
    /// The answer to one is through, or lost.
    Finish { which: usize, is_void: bool },
}

fn one_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        (0..60 * MIB, prop::option::of(0..80 * MIB))
            .prop_map(|(estimate, asked)| Move::Start { estimate, asked }),
        (0..12_usize, any::<bool>(), 0..=1000_u64, any::<bool>()).prop_map(
            |(which, is_done, thousandths, says_billed)| Move::Seen {
                which,
                is_done,
                thousandths,
                says_billed
            }
        ),
        (0..12_usize, any::<bool>()).prop_map(|(which, is_void)| Move::Finish { which, is_void }),
    ]
}

proptest! {
    #[test]
    fn no_order_of_starts_answers_and_ends_exceeds_the_budget_or_charges_twice(moves in prop::collection::vec(one_move(), 0..40)) {
        let (mut host, grant) = host_with(100 * MIB);
        // Each start: its ceiling, whether it was refused or named, and what was charged for it.
        let mut started: Vec<(QueryId, u64, bool, Option<u64>)> = Vec::new();
        for step in moves {
            match step {
                Move::Start { estimate, asked } => {
                    if let Ok((query, ceiling)) = start(&mut host, grant, estimate, asked) {
                        prop_assert!(ceiling > 0);
                        started.push((query, ceiling, false, None));
                    }
                }
                Move::Seen { which, is_done, thousandths, says_billed } => {
                    let Some((query, ceiling, is_void, cost)) = started.get_mut(which).filter(|one| !one.2) else { continue };
                    let bytes = *ceiling / 1000 * thousandths;
                    let mut event = seen(*query, grant, job(*query));
                    if let Event::JobSeen { is_done: done, billed, processed, .. } = &mut event {
                        *done = is_done;
                        *(if says_billed { billed } else { processed }) = Some(bytes);
                    }
                    host.ledger.apply(at(102), &event);
                    if is_done && says_billed && cost.is_none() && !*is_void {
                        *cost = Some(bytes);
                    } else if is_done && cost.is_none() {
                        *cost = Some(if bytes == 0 { 0 } else { bytes.next_multiple_of(MIB).max(10 * MIB).min(*ceiling) });
                    }
                }
                Move::Finish { which, is_void } => {
                    let Some(one) = started.get_mut(which) else { continue };
                    let is_named = host.ledger.grant(grant).expect("held").own_job(&job(one.0)).is_some();
                    let mut event = finishing(one.0, grant);
                    if let Event::QueryFinished { is_void: void, .. } = &mut event {
                        *void = is_void && !is_named;
                        one.2 |= *void;
                    }
                    host.ledger.apply(at(102), &event);
                }
            }
            let costs: u64 = started.iter().filter_map(|one| one.3).sum();
            prop_assert_eq!(charged(&host, grant), costs, "each job once");
            let held: u64 = started.iter().filter(|one| one.3.is_none() && !one.2).map(|one| one.1).sum();
            prop_assert!(costs + held <= 100 * MIB);
            prop_assert_eq!(left(&host, grant), 100 * MIB - costs - held);
        }
    }
}

#[test]
fn a_look_at_an_older_job_takes_nothing_of_what_a_new_start_holds() {
    let mut host = Host::default();
    let grant = host.open(at(100), "10m");
    host.ledger
        .grants
        .get_mut(&grant)
        .expect("open")
        .budget
        .bytes_max = u64::MAX;
    let start = |host: &mut Host, query: u64, name: &str| {
        let mut started = starting(QueryId(query), grant, Some(100));
        let named = JobRef {
            project: "p".into(),
            job: name.into(),
            location: Some("US".into()),
        };
        if let Event::QueryAdmitted { job, .. } = &mut started {
            *job = Some(named.clone());
        }
        host.ledger.apply(at(101), &started);
        named
    };
    let (older, newer) = (start(&mut host, 1, "older"), start(&mut host, 2, "newer"));
    let held = |host: &Host| host.ledger.grant(grant).expect("open").usage.held_bytes();
    // Whoever starts the second looks at the first: under the number of either, and whether or not it was heard of.
    for query in [2, 1, 2] {
        host.ledger
            .apply(at(102), &seen(QueryId(query), grant, older.clone()));
        assert_eq!(held(&host), 200);
    }
    host.ledger
        .apply(at(103), &seen(QueryId(2), grant, newer.clone()));
    let usage = &host.ledger.grant(grant).expect("open").usage;
    assert_eq!((usage.held_bytes(), usage.jobs_at_once()), (200, 2));
    let running = usage.unsettled_jobs();
    let names: Vec<_> = running.iter().map(|job| (job.query, &job.job)).collect();
    assert_eq!(names, [(QueryId(1), &older), (QueryId(2), &newer)]);
}
