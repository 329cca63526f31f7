//! Starting jobs: what one would read and write is known, judged and on record before it goes.

use std::sync::Arc;

use bytes::Bytes;
use enforcer_proto::audit::sha256_hex;
use enforcer_proto::event::Event;
use enforcer_proto::query::{Destination, JobRef, Method, QueryFacts, Touch, Transfer, Uncompared};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{Access, DatasetRef, TableRef};
use enforcer_proto::{admission, audit};
use http::{HeaderMap, Response};

use super::compare::{Trail, compare, compare_all};
use super::forward::{self, Answer, Finish, Parcel};
use super::relay::{Sending, passed_on, stream, worded};
use super::request::{Body, No, admit, current_window, window_closed, within, writing};
use super::verdicts::{self, Verdict, Writing};
use super::{Proxy, Session, upload};
use crate::bigquery::answer::{JobFacts, is_marked, job_facts};
use crate::bigquery::job::{Job, Limits, Moves, QueryJob, TransferJob};
use crate::bigquery::relations::{Reading, Relations};
use crate::bigquery::route::Route;
use crate::bigquery::upload::Boundary;
use crate::bigquery::words::{Text, Words};
use crate::bigquery::{dry_run, text};
use crate::engine::{OpenWindow, Plan, too_long_to_record};
use crate::random;

/// What is known of a job before it is admitted.
struct Known {
    facts: QueryFacts,
    /// Where it runs, where that is known.
    location: Option<String>,
    /// The most bytes that the client lets it bill, where it says so.
    bytes_asked: Option<u64>,
    /// How long its dry run took, microseconds, where it needs one.
    dry_run_us: Option<u64>,
    /// What its text says, where it is a query.
    text: Option<Arc<Text>>,
}

/// Judgement, record, and only then the job itself.
pub(super) async fn start_job(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    headers: &HeaderMap,
    window: &Arc<OpenWindow>,
    route: Route,
    (job, data): (Job, Option<Bytes>),
    project: &str,
) -> Result<Response<Body>, No> {
    admission::may_bill(project, window.grant, &window.scope)?;
    let known = match &job {
        Job::Query(query) => of_query(proxy, session, window, &route, query, project).await?,
        Job::Transfer(transfer) => {
            let asked = (&route, transfer, data.as_ref());
            let mut known = of_transfer(proxy, session, window, asked, project).await?;
            if job.location().is_none() {
                known.location = location_of(proxy, session, window, &known.facts.touch).await?;
            }
            known
        }
    };
    let name = name_of(&job, &route, project, known.location)?;
    let packing = Packing::of(&job, &route, data)?;
    let plan = Plan {
        job: name.clone(),
        bytes_max: known.bytes_asked,
        asked: name.as_ref().and_then(|name| packing.asked(&job, name)),
        dry_run_us: known.dry_run_us,
    };
    let writing = writing(proxy, &known.facts.touch).filter(|_| !job.is_dry_run());
    let permit = admit(proxy, session, window, known.facts, plan).await?;
    let reads = !permit.admitted().tables().is_empty();
    let limits = Limits {
        bytes_max: permit.ceiling(),
        timeout_ms: (window
            .closes_boot_ns
            .saturating_sub(proxy.clock.now().boot_ns)
            / 1_000_000)
            .max(1),
        job: name.as_ref().map(|job| job.job.clone()),
        labels: vec![
            ("agent", window.agent.to_string()),
            ("grant", window.grant.to_string()),
            ("host", proxy.host.clone()),
            ("session", session.requester.session.to_string()),
        ],
    };
    let body = job.forward_body(&limits).to_string();
    let finish = Finish::new(proxy, permit);
    let parcel = match packing {
        Packing::Alone => Parcel::json(Bytes::from(body)),
        Packing::Whole(data, boundary) => Parcel::whole(&body, &data, &boundary),
        Packing::Parts { id, into } => {
            let sent = (headers, &route, Bytes::from(body));
            let load = (id, into, name);
            return Ok(upload::begin(proxy, session, window, finish, sent, load).await?);
        }
    };
    // On its own task: a job whose start is under way when the window closes must still be learnt of. The engine has it cancelled then.
    let started = tokio::spawn(run_job(
        Arc::clone(proxy),
        Arc::clone(session),
        Arc::clone(window),
        finish,
        Start {
            headers: headers.clone(),
            how: How {
                method: route.method,
                is_dry_run: job.is_dry_run(),
                words: known.text.map_or(Words::Cut, Words::OfText),
            },
            route,
            parcel,
            name,
            reads,
            writing,
        },
    ));
    let done = within(proxy, window, async {
        started
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Code::UpstreamFailed, "The request was lost")))
    });
    Ok(done.await?)
}

/// How a job goes out: settled before it is admitted, so that nothing but sending it comes after.
enum Packing {
    Alone,
    /// With what it loads.
    Whole(Bytes, Boundary),
    /// Before what it loads, which comes as an upload of this name.
    Parts {
        id: String,
        into: TableRef,
    },
}

impl Packing {
    fn of(job: &Job, route: &Route, data: Option<Bytes>) -> Result<Self, Refusal> {
        let sent = match job {
            Job::Transfer(job) => match job.moves() {
                Moves::Sent { into } => Some(into),
                Moves::Copy { .. } | Moves::Import { .. } | Moves::Export { .. } => None,
            },
            Job::Query(_) => None,
        };
        Ok(match (sent, data) {
            (Some(into), None) if route.is_resumable() => Self::Parts {
                id: fresh_id()?,
                into: into.clone(),
            },
            (_, Some(data)) => {
                let boundary = Boundary::new(fresh_id()?, &data)?;
                Self::Whole(data, boundary)
            }
            (Some(_) | None, None) => Self::Alone,
        })
    }
}

impl Packing {
    /// The digest of what a job is asked to do; none where what it loads comes beside it.
    fn asked(&self, job: &Job, name: &JobRef) -> Option<String> {
        match self {
            Self::Whole(..) | Self::Parts { .. } => None,
            Self::Alone => {
                // As it is sent, but for what the window adds, which changes from one try to the next.
                let limits = Limits {
                    bytes_max: None,
                    timeout_ms: u64::MAX,
                    job: Some(name.job.clone()),
                    labels: Vec::new(),
                };
                Some(sha256_hex(job.forward_body(&limits).to_string().as_bytes()))
            }
        }
    }
}

/// What a query does: what its text says, as far as it can be judged before BigQuery is asked, and then what BigQuery's dry run says.
async fn of_query(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    route: &Route,
    job: &QueryJob,
    project: &str,
) -> Result<Known, No> {
    let scope = &window.scope;
    let outside = |what: &str| admission::outside(what, window.grant, &window.agent, scope);
    let named = text::read(job.sql())?;
    let default = job.default_dataset();
    let default_project = default
        .as_ref()
        .and_then(|default| default.project.as_deref());
    if let Some(default) = &default {
        let project = default.project.as_deref().unwrap_or(project);
        let dataset = DatasetRef::new(project, &default.dataset);
        if !dataset.is_ok_and(|dataset| scope.covers(&dataset)) {
            let what = format!("dataset {project}.{}", default.dataset);
            return Err(No::New(outside(&what)));
        }
    }
    if let Some(Destination { table, layout }) = job.destination() {
        admission::may_fill(table, *layout, window.grant, &window.agent, scope)?;
    }
    named.within(scope, default_project.unwrap_or(project), outside)?;
    let reading =
        Reading::with_room(job.sql(), named.tokens, scope, project, default.as_ref()).await;
    // What the text says is ground enough to refuse, and BigQuery is not asked: how it answers would tell what there is outside.
    match &reading.relations {
        Relations::None | Relations::Within => {}
        Relations::Outside(table) => {
            let what = format!("table {}", reading.shown(table));
            return Err(No::New(outside(&what)));
        }
        Relations::Unknown(why) => return Err(No::New(why.refusal())),
    }
    if let Some(table) = &reading.target {
        admission::may_write(table, window.grant, &window.agent, scope)?;
    }
    if let Some(bucket) = &reading.export {
        admission::may_use(bucket, Access::Write, window.grant, &window.agent, scope)?;
    }
    let (verdict, took_us) =
        judged(proxy, session, window, route, job, (project, &reading)).await?;
    Ok(Known {
        facts: QueryFacts {
            method: route.method,
            project: Some(project.to_owned()),
            touch: Touch::Query(verdict.run),
            sql: Some(job.sql().to_owned()),
            is_dry_run: job.is_dry_run(),
        },
        location: verdict.location,
        bytes_asked: job.bytes_asked(),
        dry_run_us: Some(took_us),
        text: Some(Arc::new(Text {
            sql: job.sql().to_owned(),
            reading,
            is_dry_run: job.is_dry_run(),
        })),
    })
}

/// What BigQuery's dry run says of a query, and how long that took, microseconds: it is asked, once the text is on record, unless it has been just
/// now, which takes no time.
async fn judged(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    route: &Route,
    job: &QueryJob,
    (project, reading): (&str, &Reading),
) -> Result<(Verdict, u64), No> {
    let asked = job.dry_run_body();
    let (key, grant) = (verdicts::key(&session.name, project, &asked), window.grant);
    let now = proxy.clock.now().boot_ns;
    if let Some(verdict) = proxy.verdicts.of(grant, &key, now) {
        return Ok((verdict, 0));
    }
    let epoch = proxy.verdicts.epoch();
    ask(proxy, session, window, route, job).await?;
    let since_ns = proxy.clock.now().boot_ns;
    let answer = within(
        proxy,
        window,
        forward::dry_run(proxy, session, window, project, &asked),
    )
    .await?;
    let took_ns = proxy.clock.now().boot_ns.saturating_sub(since_ns);
    let said = answer.json();
    let outside = |what: &str| admission::outside(what, grant, &window.agent, &window.scope);
    let verdict = Verdict {
        run: dry_run::read(
            answer.status,
            &said,
            (job.sql(), reading),
            job.destination(),
            outside,
        )?,
        location: said["jobReference"]["location"].as_str().map(str::to_owned),
    };
    let windows = proxy.engine.windows();
    let open = windows.borrow().clone();
    proxy
        .verdicts
        .keep(grant, key, verdict.clone(), (now, epoch), &open);
    Ok((verdict, (took_ns / 1000).max(1)))
}

/// What a job does that is no query: its body says it, but for how much an export takes along.
async fn of_transfer(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    (route, job, data): (&Route, &TransferJob, Option<&Bytes>),
    project: &str,
) -> Result<Known, No> {
    let moved = match job.moves().clone() {
        Moves::Copy { reads, into } => Transfer {
            reads,
            into: Some(into),
            layout: job.layout(),
            ..Transfer::default()
        },
        Moves::Sent { .. } if route.method == Method::JobsInsert => {
            return Err(No::New(Refusal::new(
                Code::RequestMalformed,
                "A load without what is to be loaded: it is sent by /upload/bigquery/v2",
            )));
        }
        Moves::Sent { into } => Transfer {
            into: Some(into),
            layout: job.layout(),
            in_parts: route.is_resumable(),
            bytes: data.map_or(0, |data| data.len() as u64),
            ..Transfer::default()
        },
        Moves::Import { from, into } => Transfer {
            from,
            into: Some(into),
            layout: job.layout(),
            ..Transfer::default()
        },
        Moves::Export { table, to } => Transfer {
            exported: size_of(proxy, session, window, &table).await?,
            reads: vec![table],
            to,
            ..Transfer::default()
        },
    };
    Ok(Known {
        facts: QueryFacts {
            method: route.method,
            project: Some(project.to_owned()),
            touch: Touch::Transfer(moved),
            sql: None,
            is_dry_run: false,
        },
        location: None,
        bytes_asked: None,
        dry_run_us: None,
        text: None,
    })
}

/// Where a job runs that moves data: where its tables lie. BigQuery is asked, once it is known that they are in scope.
async fn location_of(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    touch: &Touch,
) -> Result<Option<String>, Refusal> {
    let Touch::Transfer(moved) = touch else {
        return Ok(None);
    };
    let mut tables = moved.into.iter().chain(&moved.reads);
    let Some(table) = tables.next() else {
        return Ok(None);
    };
    in_scope(window, table)?;
    let asked = forward::location_of(proxy, session, window, table.dataset());
    within(proxy, window, asked).await
}

fn in_scope(window: &OpenWindow, table: &TableRef) -> Result<(), Refusal> {
    if window.scope.covers(table.dataset()) {
        return Ok(());
    }
    let (what, scope) = (format!("table {table}"), &window.scope);
    Err(admission::outside(
        &what,
        window.grant,
        &window.agent,
        scope,
    ))
}

/// How long a table is, bytes: BigQuery is asked, once it is known that the table is in scope.
async fn size_of(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    table: &TableRef,
) -> Result<u64, Refusal> {
    in_scope(window, table)?;
    let described = forward::describe_table(proxy, session, window, table);
    let answer = within(proxy, window, described).await?;
    let size = answer.json()["numBytes"]
        .as_str()
        .and_then(|size| size.parse().ok());
    size.ok_or_else(|| {
        Refusal::new(
            Code::NotVouched,
            format!("BigQuery does not say how long table {table} is, so it is not exported"),
        )
    })
}

/// Puts on record what BigQuery's dry run is about to be asked: its text leaves the host whatever comes of it.
async fn ask(
    proxy: &Proxy,
    session: &Session,
    window: &OpenWindow,
    route: &Route,
    job: &QueryJob,
) -> Result<(), No> {
    let event = Event::QueryAsked {
        grant: window.grant,
        agent: window.agent.clone(),
        session: session.requester.session,
        process: session.requester.process.clone(),
        method: route.method,
        sql: job.sql().to_owned(),
    };
    if !audit::fits(&event) {
        return Err(No::New(too_long_to_record()));
    }
    proxy.engine.record(event).await.map_err(No::New)
}

/// The name under which a job goes out: on record before it is sent, so that it can be looked for when no answer comes. The client's,
/// or one of ours; where it runs is known from the dry run. `jobs.query` and a dry run take none.
fn name_of(
    job: &Job,
    route: &Route,
    project: &str,
    location: Option<String>,
) -> Result<Option<JobRef>, Refusal> {
    let is_named = matches!(route.method, Method::JobsInsert | Method::JobsUpload);
    if !is_named || job.is_dry_run() {
        return Ok(None);
    }
    let id = match job.chosen_id() {
        Some(id) if is_job_id(id) => id.to_owned(),
        Some(_) => {
            return Err(Refusal::new(
                Code::RequestMalformed,
                "The job's id is not one to 1024 letters, digits, underscores and hyphens",
            ));
        }
        None => fresh_id()?,
    };
    let location = job.location().map(str::to_owned).or(location);
    // Without it the job could be told from no other of its id, and not be found where its answer is lost.
    let location = location.filter(|name| is_job_id(name)).ok_or_else(|| {
        Refusal::new(
            Code::NotVouched,
            "BigQuery does not say where the job would run, so it could not be found again",
        )
    })?;
    Ok(Some(JobRef {
        project: project.to_owned(),
        job: id,
        location: Some(location),
    }))
}

fn is_job_id(text: &str) -> bool {
    (1..=1024).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// A job id that nobody else has.
fn fresh_id() -> Result<String, Refusal> {
    let random = random::bytes()?;
    Ok(format!("enforcer_{:032x}", u128::from_be_bytes(random)))
}

/// A job as it is sent.
struct Start {
    headers: HeaderMap,
    route: Route,
    parcel: Parcel,
    how: How,
    /// The name under which it goes out.
    name: Option<JobRef>,
    /// It reads tables.
    reads: bool,
    /// It writes one.
    writing: Option<Writing>,
}

/// How the answer to it is taken.
struct How {
    method: Method,
    is_dry_run: bool,
    /// What becomes of BigQuery's words where they are all that is known of it. What is moved without a query is of tables that were judged by
    /// name; a query may have read what its dry run did not say, and name what its text does not.
    words: Words,
}

/// How far the job is whose start was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing runs, and what it has read is told with it.
    Over,
    /// It has ended, and the answer has rows but does not describe it: what it has read is looked at first, and what it cost is known then.
    Results,
    /// It has not ended.
    Running,
}

impl State {
    fn of(facts: &JobFacts, is_dry_run: bool) -> Self {
        match (facts.is_done, facts.is_compared) {
            _ if is_dry_run => Self::Over,
            (true, true) => Self::Over,
            (true, false) => Self::Results,
            (false, true | false) => Self::Running,
        }
    }
}

async fn run_job(
    proxy: Arc<Proxy>,
    session: Arc<Session>,
    window: Arc<OpenWindow>,
    mut finish: Finish,
    start: Start,
) -> Result<Response<Body>, Refusal> {
    let Start {
        headers,
        route,
        parcel,
        how,
        name,
        reads,
        writing,
    } = start;
    let trail = Trail::new((&proxy, &session, &window), name, reads, writing);
    if let Err(refusal) = compare_all(&proxy, &session, &window, &mut finish).await {
        finish.void();
        return Err(refusal);
    }
    let sent = forward::send(&proxy, &session, &finish, &route, &headers, Some(parcel)).await;
    let answer = match sent {
        Ok(answer) => forward::read_whole(answer).await,
        Err(refusal) => Err(refusal),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => {
            finish.failed(&refusal);
            trail.lost(finish, Some(&refusal));
            return Err(refusal);
        }
    };
    finish.status(answer.status);
    if answer.status >= 500 && trail.is_named() {
        finish.trouble("BigQuery did not say whether it has started the job");
        let response = passed_on(worded(answer, &how.words));
        trail.lost(finish, None);
        return Ok(response);
    }
    let at = (&proxy, &session, &window);
    if answer.status == 409 && trail.is_named() {
        return there_already(at, finish, answer, how, trail).await;
    }
    answered(at, finish, answer, how, trail).await
}

/// BigQuery has a job of this name: somebody else's, or the one that an earlier try of this very start has come to after all. That is the
/// window's own, before the client asks for it.
async fn there_already(
    (proxy, _, window): (&Arc<Proxy>, &Arc<Session>, &Arc<OpenWindow>),
    mut finish: Finish,
    answer: Answer,
    how: How,
    trail: Trail,
) -> Result<Response<Body>, Refusal> {
    let response = passed_on(worded(answer, &how.words));
    match trail.described().await.map(|said| (said.status, said)) {
        Ok((200, said)) if is_marked(&said.json(), window.grant, &proxy.host) => {
            let facts = JobFacts {
                // Looked at by whoever follows it.
                is_compared: false,
                ..job_facts(&said.json())
            };
            let job = facts.job.clone();
            finish.seen(facts).await?;
            if let Some((job, query)) = job.zip(finish.query()) {
                trail.runs(query, job);
            }
            finish.complete();
        }
        Ok((200, _)) => finish.void(),
        Ok(_) | Err(_) => trail.lost(finish, None),
    }
    Ok(response)
}

/// Takes in what the answer to a start says of its job, and passes it on.
async fn answered(
    (proxy, session, window): (&Arc<Proxy>, &Arc<Session>, &Arc<OpenWindow>),
    mut finish: Finish,
    answer: Answer,
    how: How,
    trail: Trail,
) -> Result<Response<Body>, Refusal> {
    let How {
        method,
        is_dry_run,
        words,
    } = how;
    let mut facts = match answer.status {
        200 => job_facts(&answer.json()),
        400..500 => {
            finish.void();
            JobFacts::default()
        }
        _ => JobFacts::default(),
    };
    if is_dry_run {
        // It reads nothing; what it would read is judged when it is run.
        facts.tables.clear();
    }
    let job = facts.job.clone();
    let state = State::of(&facts, is_dry_run);
    if state == State::Results {
        (facts.is_done, facts.billed, facts.processed) = (false, None, None);
    }
    let seen = finish.seen(facts).await;
    seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    if answer.status == 200 && !is_dry_run && job.as_ref().is_none_or(|job| job.location.is_none())
    {
        let what = "BigQuery's answer does not name the job and its location, so its results could not be told from others'";
        finish.trouble(what);
        return Err(Refusal::new(Code::UpstreamFailed, what));
    }
    let sealing = job.as_ref();
    let sealing = sealing.map(|job| proxy.pages.sealing_of(window.grant, job));
    match (state, job, finish.query()) {
        (State::Results, Some(job), Some(query)) => {
            let reads = trail.reads;
            let job = Uncompared { query, job, reads };
            let compared = compare(proxy, session, window, &mut finish, &job).await;
            if let Err(refusal) = compared {
                // The client has not learnt of it: whoever follows it does.
                trail.runs(query, job.job);
                return Err(refusal);
            }
        }
        (State::Running, Some(job), Some(query)) => trail.runs(query, job),
        (State::Over | State::Results | State::Running, _, _) => {}
    }
    if !current_window(proxy, session).is_ok_and(|open| open.grant == window.grant) {
        finish.trouble("cut: the window closed");
        return Err(window_closed(window));
    }
    let mut sending = Sending::begun(started(method, answer, &words), None);
    // The first page of a result comes with the answer to `jobs.query`.
    if let Some(sealing) = sealing.filter(|_| method == Method::JobsQuery) {
        sending = sending.sealed(sealing);
    }
    Ok(stream(proxy, session, window, sending, finish))
}

/// What a start is answered with. What has rows is counted as rows, its words among them.
fn started(method: Method, answer: Answer, words: &Words) -> Answer {
    if method == Method::JobsQuery && answer.status == 200 {
        answer
    } else {
        worded(answer, words)
    }
}
