//! One request: read, understood, judged, and only then forwarded. Every refusal is on record before it is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::query::{JobRef, Method, QueryFacts, Touch};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::DatasetRef;
use enforcer_proto::{admission, audit};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::cut::{BodyError, CutBody, Source, closed};
use super::forward::{self, Answer, Finish};
use super::{Proxy, Session};
use crate::bigquery::answer::{JobFacts, filter_list, job_facts, keep_own_jobs};
use crate::bigquery::job::{Limits, QueryJob};
use crate::bigquery::relations::Relations;
use crate::bigquery::route::{Route, Target, route};
use crate::bigquery::{dry_run, json, methods, refuse, text};
use crate::causes::Causes;
use crate::dns::protected::{Service, service};
use crate::engine::{OpenWindow, Permit, Plan, too_long_to_record};
use tokio_util::sync::CancellationToken;

/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(30);
/// How long after the close a streamed answer may still sit in a socket whose client does not read.
const SLOW_CLIENT: Duration = Duration::from_millis(5);

/// An answer's body.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A "no", and whether it is on record already.
enum No {
    /// To be recorded before it is answered.
    New(Refusal),
    /// Recorded by the engine.
    Recorded(Refusal),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::New(refusal)
    }
}

/// A request as understood so far; what a record of its refusal names.
struct Understood {
    route: Route,
    job: Option<QueryJob>,
}

/// Answers one request.
pub(super) async fn answer(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    request: Request<Incoming>,
) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri().path());
    let (head, body) = request.into_parts();
    // Held until the answer's head is there. Without a turn the body is not read at all.
    let turn = proxy.quota.request_of(&session.requester.agent).await;
    let stands_in = session
        .barred
        .clone()
        .or_else(|| session.unreadable.stood_in_for(head.uri.path()));
    let read = match (&turn, stands_in) {
        (Ok(_), Some(refusal)) => Err(refusal),
        (Ok(_), None) => match read_body(&head.headers, body).await {
            Ok(body) => keep_pace(proxy, session, body.len())
                .and_then(|()| understand(session, &head, &body)),
            Err(refusal) => Err(session.unreadable.refusal().unwrap_or(refusal)),
        },
        (Err(refusal), _) => Err(refusal.clone()),
    };
    let sql = read
        .as_ref()
        .ok()
        .and_then(|read| read.job.as_ref())
        .map(|job| job.sql().to_owned());
    let window = current_window(proxy, session);
    let grant = window.as_ref().ok().map(|window| window.grant);
    // Without a window that is the answer, whatever else is wrong with the request.
    let done = match (window, read) {
        (Err(refusal), _) | (Ok(_), Err(refusal)) => Err(No::New(refusal)),
        (Ok(window), Ok(read)) => serve(proxy, session, &head.headers, &window, read).await,
    };
    match done {
        Ok(response) => response,
        Err(No::Recorded(refusal)) => refusal_response(&refusal),
        Err(No::New(refusal)) => {
            let refusal = record(proxy, session, grant, line, sql, refusal).await;
            refusal_response(&refusal)
        }
    }
}

/// Whether the agent keeps its pace: what it asks takes records, and no budget bounds those that are free.
fn keep_pace(proxy: &Proxy, session: &Session, body_bytes: usize) -> Result<(), Refusal> {
    let now = proxy.clock.now();
    proxy
        .quota
        .pace_of(&session.requester.agent, body_bytes, now.boot_ns)
}

pub(super) async fn record(
    proxy: &Proxy,
    session: &Session,
    grant: Option<GrantId>,
    request: String,
    sql: Option<String>,
    refusal: Refusal,
) -> Refusal {
    let event = Event::QueryRefused {
        grant,
        agent: session.requester.agent.clone(),
        session: session.requester.session,
        process: session.requester.process.clone(),
        request,
        sql,
        sql_cut: None,
        refusal: refusal.clone(),
    };
    proxy.engine.record(event).await.err().unwrap_or(refusal)
}

/// The agent's window that is open now, by the list and by the clock.
fn current_window(proxy: &Proxy, session: &Session) -> Result<Arc<OpenWindow>, Refusal> {
    let agent = &session.requester.agent;
    let windows = proxy.engine.windows();
    let window = windows.borrow().get(agent).cloned();
    match window {
        Some(window) if proxy.clock.now().boot_ns < window.closes_boot_ns => Ok(window),
        Some(window) => Err(window_closed(&window)),
        None => Err(Refusal::new(
            Code::WindowNone,
            format!("Access Denied: BigQuery: agent {agent} has no open window"),
        )),
    }
}

fn window_closed(window: &OpenWindow) -> Refusal {
    Refusal::new(
        Code::WindowClosed,
        format!(
            "Access Denied: BigQuery: window {} of agent {} has closed",
            window.grant, window.agent
        ),
    )
}

async fn read_body(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Refusal> {
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes() != b"identity")
    {
        return Err(Refusal::new(
            Code::RequestMalformed,
            "A compressed body is not read, and what is not read is not forwarded",
        ));
    }
    let read = Limited::new(body, json::BODY_BYTES_MAX).collect();
    let Ok(read) = tokio::time::timeout(BODY, read).await else {
        return Err(Refusal::new(
            Code::RequestMalformed,
            format!("The body took longer than {} s", BODY.as_secs()),
        ));
    };
    let body = read.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            Refusal::new(
                Code::BodyTooLarge,
                format!(
                    "The body has more than the {} bytes that are inspected",
                    json::BODY_BYTES_MAX
                ),
            )
        } else {
            Refusal::new(
                Code::RequestMalformed,
                format!("The body could not be read: {}", Causes(error.as_ref())),
            )
        }
    })?;
    Ok(body.to_bytes())
}

fn understand(
    session: &Session,
    head: &http::request::Parts,
    body: &Bytes,
) -> Result<Understood, Refusal> {
    check_host(session, head)?;
    check_service(session)?;
    if head.headers.contains_key("x-http-method-override") {
        return Err(Refusal::new(
            Code::RequestMalformed,
            "A method override is not let through",
        ));
    }
    let route = route(head.method.as_str(), head.uri.path(), head.uri.query())?;
    let job = match route.method {
        Method::JobsInsert => Some(QueryJob::from_insert(json::object(body)?)?),
        Method::JobsQuery => Some(QueryJob::from_query(json::object(body)?)?),
        Method::Discovery
        | Method::ProjectsList
        | Method::DatasetsList
        | Method::DatasetsGet
        | Method::TablesList
        | Method::TablesGet
        | Method::TabledataList
        | Method::ModelsList
        | Method::ModelsGet
        | Method::RoutinesList
        | Method::RoutinesGet
        | Method::JobsList
        | Method::JobsGet
        | Method::GetQueryResults
        | Method::JobsCancel
        | Method::JobsDelete => None,
    };
    if let (Some(job), Target::NewJob { project }) = (&job, &route.target) {
        // A job reference that names another project than the path could be billed elsewhere.
        if job.named_project().is_some_and(|named| named != project) {
            return Err(Refusal::new(
                Code::RequestMalformed,
                "The job reference and the path name different projects",
            ));
        }
    }
    Ok(Understood { route, job })
}

/// The host of the request must be the name that TLS agreed on: Google's front ends choose by the former.
pub(super) fn check_host(session: &Session, head: &http::request::Parts) -> Result<(), Refusal> {
    let hosts: Vec<&[u8]> = head
        .headers
        .get_all(header::HOST)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let is_name = |host: &[u8]| {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(b":443").unwrap_or(&host);
        host.strip_suffix(b".").unwrap_or(host) == session.name.as_bytes()
    };
    let named = hosts.iter().copied().chain(authority);
    let (count, all) = named.fold((0, true), |(count, all), host| {
        (count + 1, all && is_name(host))
    });
    if count > 0 && hosts.len() <= 1 && all {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::HostMismatch,
            format!(
                "The request is not for {}, the name the connection was made for",
                session.name
            ),
        ))
    }
}

/// Only BigQuery's own API is judged here, and so only it is let through.
fn check_service(session: &Session) -> Result<(), Refusal> {
    let why = match service(&session.name) {
        Service::Api => return Ok(()),
        Service::Storage => methods::STORAGE,
        Service::Neighbour => methods::NEIGHBOUR,
    };
    let what = format!(
        "Access Denied: BigQuery: nothing at {} is let through: {why}",
        session.name
    );
    Err(Refusal::new(Code::MethodUnknown, what))
}

async fn serve(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    headers: &HeaderMap,
    window: &Arc<OpenWindow>,
    read: Understood,
) -> Result<Response<Body>, No> {
    let Understood { route, job } = read;
    match (job, &route.target) {
        (Some(job), Target::NewJob { project }) => {
            let project = project.clone();
            start_job(proxy, session, headers, window, route, job, &project).await
        }
        (_, target) => {
            let (touch, project) = touched(target);
            let facts = QueryFacts {
                method: route.method,
                project,
                touch,
                sql: None,
                is_dry_run: false,
            };
            let permit = admit(proxy, session, window, facts, Plan::default()).await?;
            let route = match permit.admitted().job() {
                Some(job) => route.of_job(job),
                None => route,
            };
            Ok(relay(
                proxy,
                session,
                headers,
                Finish::new(proxy, permit),
                window,
                &route,
            )
            .await?)
        }
    }
}

/// What a request without a body of SQL reaches for, and the project it names.
fn touched(target: &Target) -> (Touch, Option<String>) {
    match target {
        Target::Discovery => (Touch::Nothing, None),
        Target::Projects => (Touch::FilteredList, None),
        Target::Datasets { project } | Target::NewJob { project } => {
            (Touch::FilteredList, Some(project.clone()))
        }
        Target::Jobs { project } => (Touch::OwnJobs, Some(project.clone())),
        Target::Dataset(dataset) | Target::Tables(dataset) | Target::Within(dataset) => (
            Touch::Dataset(dataset.clone()),
            Some(dataset.project().to_owned()),
        ),
        Target::Table(table) => (
            Touch::Table(table.clone()),
            Some(table.dataset().project().to_owned()),
        ),
        Target::Rows(table) => (
            Touch::Rows(table.clone()),
            Some(table.dataset().project().to_owned()),
        ),
        Target::Job(job) => (Touch::Job(job.clone()), Some(job.project.clone())),
    }
}

async fn admit(
    proxy: &Proxy,
    session: &Session,
    window: &OpenWindow,
    facts: QueryFacts,
    plan: Plan,
) -> Result<Permit, No> {
    proxy
        .engine
        .admit(session.requester.clone(), window.grant, facts, plan)
        .await
        .map_err(No::Recorded)
}

/// Waits for `work`, but not past the end of the window.
async fn within<T>(
    proxy: &Proxy,
    window: &Arc<OpenWindow>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        () = closed(Arc::clone(window), proxy.engine.windows(), Arc::clone(&proxy.clock)) => Err(window_closed(window)),
        done = work => done,
    }
}

/// Forwards a request that starts nothing, and passes its answer on.
async fn relay(
    proxy: &Arc<Proxy>,
    session: &Session,
    headers: &HeaderMap,
    mut finish: Finish,
    window: &Arc<OpenWindow>,
    route: &Route,
) -> Result<Response<Body>, Refusal> {
    let sent = within(
        proxy,
        window,
        forward::send(proxy, session, &finish, route, headers, None),
    )
    .await;
    let answer = sent.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    finish.status(answer.status().as_u16());
    let sending = match route.method {
        Method::ProjectsList | Method::DatasetsList => {
            let mut answer = within(proxy, window, forward::read_whole(answer)).await?;
            let mut list = answer.json();
            filter_list(&mut list, &window.scope);
            answer.body = Bytes::from(list.to_string());
            Sending::begun(answer, None)
        }
        Method::JobsList => {
            let mut answer = within(proxy, window, forward::read_whole(answer)).await?;
            let mut list = answer.json();
            keep_own_jobs(&mut list, finish.own_jobs());
            // Each says what it has read, as it does where it is asked for by itself.
            for job in list["jobs"].as_array().into_iter().flatten() {
                let seen = finish.seen(job_facts(job)).await;
                seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
            }
            answer.body = Bytes::from(list.to_string());
            Sending::begun(answer, None)
        }
        Method::JobsGet | Method::JobsCancel => {
            let answer = within(proxy, window, forward::read_whole(answer)).await?;
            if answer.status == 200 {
                let read = answer.json();
                let job = Some(&read["job"]).filter(|job| job.is_object());
                let seen = finish.seen(job_facts(job.unwrap_or(&read))).await;
                seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
            }
            Sending::begun(answer, None)
        }
        Method::GetQueryResults => {
            let (answer, rest) = within(proxy, window, forward::read_start(answer)).await?;
            if answer.status == 200 && rest.is_none() {
                let seen = finish.seen(job_facts(&answer.json())).await;
                seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
            }
            Sending::begun(answer, rest)
        }
        Method::TabledataList => Sending {
            most: finish.ceiling(),
            ..Sending::from(answer)
        },
        Method::Discovery
        | Method::DatasetsGet
        | Method::TablesList
        | Method::TablesGet
        | Method::ModelsList
        | Method::ModelsGet
        | Method::RoutinesList
        | Method::RoutinesGet
        | Method::JobsInsert
        | Method::JobsQuery
        | Method::JobsDelete => Sending::from(answer),
    };
    Ok(stream(proxy, session, window, sending, finish))
}

/// Dry run, judgement, record, and only then the job itself.
async fn start_job(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    headers: &HeaderMap,
    window: &Arc<OpenWindow>,
    route: Route,
    job: QueryJob,
    project: &str,
) -> Result<Response<Body>, No> {
    // Judged as far as it can be before BigQuery is asked: its answers tell of what it looked at.
    let scope = &window.scope;
    let outside = |what: &str| admission::outside(what, window.grant, &window.agent, scope);
    admission::may_bill(project, window.grant, scope)?;
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
    named.within(scope, default_project.unwrap_or(project), outside)?;
    ask(proxy, session, window, &route, &job).await?;
    let relations =
        Relations::read_with_room(job.sql(), named.tokens, scope, project, default.as_ref()).await;
    let asked = job.dry_run_body();
    let answer = within(
        proxy,
        window,
        forward::dry_run(proxy, session, window, project, &asked),
    )
    .await?;
    let said = answer.json();
    let run = dry_run::read(answer.status, &said, &relations, outside)?;
    let facts = QueryFacts {
        method: route.method,
        project: Some(project.to_owned()),
        touch: Touch::Query(run),
        sql: Some(job.sql().to_owned()),
        is_dry_run: job.is_dry_run(),
    };
    let name = name_of(&job, &route, project, &said)?;
    let plan = Plan {
        job: name.clone(),
        bytes_max: job.bytes_asked(),
    };
    let permit = admit(proxy, session, window, facts, plan).await?;
    let limits = Limits {
        bytes_max: permit.ceiling(),
        timeout_ms: (window
            .closes_boot_ns
            .saturating_sub(proxy.clock.now().boot_ns)
            / 1_000_000)
            .max(1),
        job: name.map(|job| job.job),
        labels: vec![
            ("agent", window.agent.to_string()),
            ("grant", window.grant.to_string()),
            ("host", proxy.host.clone()),
            ("session", session.requester.session.to_string()),
        ],
    };
    let body = Bytes::from(job.forward_body(&limits).to_string());
    let finish = Finish::new(proxy, permit);
    // On its own task: a job whose start is under way when the window closes must still be learnt of. The engine has it cancelled then.
    let started = tokio::spawn(run_job(
        Arc::clone(proxy),
        Arc::clone(session),
        Arc::clone(window),
        finish,
        Start {
            headers: headers.clone(),
            route,
            body,
            is_dry_run: job.is_dry_run(),
        },
    ));
    let done = within(proxy, window, async {
        started
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Code::UpstreamFailed, "The request was lost")))
    });
    Ok(done.await?)
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
    job: &QueryJob,
    route: &Route,
    project: &str,
    dry_run: &serde_json::Value,
) -> Result<Option<JobRef>, Refusal> {
    if route.method != Method::JobsInsert || job.is_dry_run() {
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
    let location = job
        .location()
        .or_else(|| dry_run["jobReference"]["location"].as_str());
    Ok(Some(JobRef {
        project: project.to_owned(),
        job: id,
        location: location.filter(|name| is_job_id(name)).map(str::to_owned),
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
    let mut random = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| Refusal::new(Code::UpstreamFailed, "The system gives no random numbers"))?;
    Ok(format!("enforcer_{:032x}", u128::from_be_bytes(random)))
}

/// A job as it is sent.
struct Start {
    headers: HeaderMap,
    route: Route,
    body: Bytes,
    is_dry_run: bool,
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
        body,
        is_dry_run,
    } = start;
    let sent = forward::send(&proxy, &session, &finish, &route, &headers, Some(body)).await;
    let answer = match sent {
        Ok(answer) => forward::read_whole(answer).await,
        Err(refusal) => Err(refusal),
    };
    let answer = answer.inspect_err(|refusal| {
        // Whatever else went wrong, the job may have been started.
        if refusal.code == Code::TokenUnavailable {
            finish.void();
        }
        finish.trouble(&refusal.what);
    })?;
    finish.status(answer.status);
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
    let seen = finish.seen(facts).await;
    seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    if answer.status == 200 && !is_dry_run && job.as_ref().is_none_or(|job| job.location.is_none())
    {
        let what = "BigQuery's answer does not name the job and its location, so its results could not be told from others'";
        finish.trouble(what);
        return Err(Refusal::new(Code::UpstreamFailed, what));
    }
    if !current_window(&proxy, &session).is_ok_and(|open| open.grant == window.grant) {
        finish.trouble("cut: the window closed");
        return Err(window_closed(&window));
    }
    let sending = Sending::begun(answer, None);
    Ok(stream(&proxy, &session, &window, sending, finish))
}

/// An answer as it is passed on.
struct Sending {
    status: StatusCode,
    headers: HeaderMap,
    source: Source,
    /// The most bytes that are passed on, where the budget bounds them.
    most: Option<u64>,
}

impl Sending {
    /// An answer whose body has begun, or is there whole.
    fn begun(answer: Answer, rest: Option<Incoming>) -> Self {
        Self {
            status: StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY),
            headers: answer.headers,
            source: Source::new(answer.body, rest),
            most: None,
        }
    }
}

impl From<Response<Incoming>> for Sending {
    fn from(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            source: Source::new(Bytes::new(), Some(body)),
            most: None,
        }
    }
}

/// An answer that is cut when the window closes while it is passed on: by the body itself where the client keeps up, and with the whole
/// connection where it does not, since a body is not asked for more while the socket is full.
fn stream(
    proxy: &Proxy,
    session: &Session,
    window: &Arc<OpenWindow>,
    sending: Sending,
    mut finish: Finish,
) -> Response<Body> {
    let Sending {
        status,
        headers,
        source,
        most,
    } = sending;
    let ending = || {
        let (windows, clock) = (proxy.engine.windows(), Arc::clone(&proxy.clock));
        closed(Arc::clone(window), windows, clock)
    };
    let (cut, done) = (session.cut.clone(), CancellationToken::new());
    finish.cut_by(cut.clone());
    let late = {
        let (ending, done) = (ending(), done.clone());
        async move {
            if done.run_until_cancelled(ending).await.is_some() {
                // The body had its chance to say so; a client that keeps up has seen its error by now.
                let slow = tokio::time::sleep(SLOW_CLIENT);
                if done.run_until_cancelled(slow).await.is_some() {
                    cut.cancel();
                }
            }
        }
    };
    tokio::spawn(late);
    let mut response = Response::new(
        CutBody::new(source, Box::pin(ending()), finish, most, done.drop_guard()).boxed_unsync(),
    );
    *response.status_mut() = status;
    forward::pass_answer(&headers, response.headers_mut());
    response
}

pub(super) fn refusal_response(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(refuse::body(refusal))));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(refuse::CONTENT_TYPE),
    );
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync()
}
