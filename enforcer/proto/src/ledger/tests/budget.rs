//! What is held and charged: never more than the budget together, and every job once, whatever comes first.

use super::*;
use crate::scope::TableRef;

const MIB: u64 = 1024 * 1024;

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
    (held.bytes_max, held.queries_max) = (bytes_max, u64::MAX);
    (host, grant)
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
    let judged = admit(at(101), held, &facts).and_then(|_| held.ceiling(&facts, asked));
    let ceiling = judged.map_err(|refusal| refusal.code)?;
    let query = host.ledger.next_query();
    host.ledger.apply(at(101), &starting(query, grant, ceiling));
    Ok((query, ceiling.expect("a job is started")))
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
        bytes: 5,
    };
    assert_eq!(crate::ledger::budget::ceiling_of(&run), 30 * MIB);
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
        left(&host, grant),
        55 * MIB,
        "ended, but nothing said of its cost"
    );
}

#[test]
fn a_dry_run_costs_nothing_counts_for_nothing_and_makes_no_job_the_windows_own() {
    let (mut host, grant) = host_with(100);
    let mut facts = select("p.finance.daily", 5000);
    facts.is_dry_run = true;
    let held = host.ledger.grant(grant).expect("held");
    assert!(
        admit(at(101), held, &facts).is_ok(),
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
    assert!(
        host.ledger
            .grant(grant)
            .expect("held")
            .running_jobs()
            .is_empty()
    );
}

#[test]
fn a_job_that_has_ended_is_news_once_and_not_running() {
    let (mut host, grant) = host_with(100 * MIB);
    let (query, _) = start(&mut host, grant, 0, None).expect("room");
    let named = seen(query, grant, job(query));
    assert!(host.ledger.is_news(&named));
    host.ledger.apply(at(101), &named);
    assert!(!host.ledger.is_news(&named));
    let running = |host: &Host| host.ledger.grant(grant).expect("held").running_jobs();
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
    if let Event::QueryAdmitted { method, .. } = &mut rows {
        *method = Method::TabledataList;
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
