//! One request: read, understood, judged, and only then forwarded. Every refusal is on record before it is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enforcer_proto::asking::beyond_text;
use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::query::{Method, QueryFacts, Touch};
use enforcer_proto::refusal::{Code, Refusal};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::asked::{Asked, What, body_bytes_max, routed, understand};
use super::cut::{BodyError, closed};
use super::forward::Finish;
use super::relay::relay;
use super::start::start_job;
use super::verdicts::Writing;
use super::{Proxy, Session, asking, coded, grpc, upload};
use crate::bigquery::coding::Coding;
use crate::bigquery::route::{Route, Target};
use crate::bigquery::{json, refuse};
use crate::causes::Causes;
use crate::engine::{OpenWindow, Permit, Plan};

/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(30);

/// An answer's body.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A "no", and whether it is on record already.
pub(super) enum No {
    /// To be recorded before it is answered.
    New(Refusal),
    /// Recorded by the engine.
    Recorded(Refusal),
}

impl No {
    pub(super) const fn refusal(&self) -> &Refusal {
        match self {
            Self::New(refusal) | Self::Recorded(refusal) => refusal,
        }
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::New(refusal)
    }
}

/// Answers one request.
pub(super) async fn answer(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (requester, presented) = (&session.requester, &proxy.presented);
    presented.look(requester, request.headers(), request.uri());
    if grpc::is_spoken(request.headers()) {
        return grpc::answer(proxy, session, request).await;
    }
    let line = format!("{} {}", request.method(), request.uri().path());
    let (head, body) = request.into_parts();
    let takes_gzip = coded::is_taken(&head.headers);
    // Held until the answer's head is there. Without a turn the body is not read at all.
    let turn = proxy.quota.request_of(&session.requester.agent).await;
    let stands_in = session
        .barred
        .clone()
        .or_else(|| session.unreadable.stood_in_for(head.uri.path()));
    let read = match (&turn, stands_in) {
        (Ok(_), Some(refusal)) => Err(refusal),
        (Ok(_), None) => read(proxy, session, &head, body).await,
        (Err(refusal), _) => Err(refusal.clone()),
    };
    let sql = read.as_ref().ok().and_then(Asked::sql).map(str::to_owned);
    let window = match (current_window(proxy, session), &read) {
        (Ok(window), _) => Ok(window),
        (Err(none), Ok(asked)) => {
            Box::pin(asking::window(proxy, session, (asked, &line), none)).await
        }
        // Of what cannot be read no request is made either: then that is what there is to say.
        (Err(_), Err(refusal)) if asking::asks(proxy, session).is_some() => {
            Err(No::New(refusal.clone()))
        }
        (Err(none), Err(_)) => Err(No::New(none)),
    };
    let open = window.as_ref().ok().map(Arc::clone);
    let grant = open.as_ref().map(|window| window.grant);
    // Without a window that is the answer, whatever else is wrong with the request.
    let done = match (window, read) {
        (Err(no), _) => Err(no),
        (Ok(_), Err(refusal)) => Err(No::New(refusal)),
        (Ok(window), Ok(read)) => serve(proxy, session, &head.headers, &window, read).await,
    };
    match done {
        Ok(response) if takes_gzip => coded::encoded(response),
        Ok(response) => response,
        Err(No::Recorded(refusal)) => refusal_response(&refusal),
        Err(No::New(refusal)) => {
            let refusal = match &open {
                Some(window) => beyond_text(window.is_of_text, refusal),
                None => refusal,
            };
            let refusal = record(proxy, session, grant, line, sql, refusal).await;
            refusal_response(&refusal)
        }
    }
}

/// Reads a request: all of it, but for data that is passed on as it comes.
async fn read(
    proxy: &Proxy,
    session: &Session,
    head: &http::request::Parts,
    body: Incoming,
) -> Result<Asked, Refusal> {
    let route = routed(session, head);
    if let Ok(Route {
        target: Target::Upload(id),
        ..
    }) = &route
    {
        let part = upload::part(id, head, body)?;
        keep_pace(proxy, session, 0)?;
        let what = What::Part(part);
        return route.map(|route| Asked { route, what });
    }
    let most = route.as_ref().map_or(json::BODY_BYTES_MAX, body_bytes_max);
    let place = if most == json::BODY_BYTES_MAX {
        None
    } else {
        // Much of it is held: only of whom something may come.
        current_window(proxy, session)?;
        Some(proxy.uploads.whole(&session.requester.agent).await?)
    };
    let body = read_body(&head.headers, body, most).await;
    let body = body.map_err(|refusal| session.unreadable.refusal().unwrap_or(refusal))?;
    keep_pace(proxy, session, recorded(proxy, session, &route, body.len()))?;
    let asked = understand(route?, &head.headers, &body)?;
    Ok(asked.at(place))
}

/// How many bytes of a body the log may have to hold. What fills a table is not recorded: it takes of the budget of bytes, where there is a window
/// whose budget that is.
fn recorded(
    proxy: &Proxy,
    session: &Session,
    route: &Result<Route, Refusal>,
    body_bytes: usize,
) -> usize {
    let is_data = route
        .as_ref()
        .is_ok_and(|route| matches!(route.method, Method::InsertAll | Method::JobsUpload));
    if is_data && current_window(proxy, session).is_ok() {
        0
    } else {
        body_bytes
    }
}

/// Whether the agent keeps its pace: what it asks takes records, and no budget bounds those that are free.
pub(super) fn keep_pace(
    proxy: &Proxy,
    session: &Session,
    recorded_bytes: usize,
) -> Result<(), Refusal> {
    let now = proxy.clock.now();
    proxy
        .quota
        .pace_of(&session.requester.agent, recorded_bytes, now.boot_ns)
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
        container: session.requester.container.clone(),
        request,
        sql,
        sql_cut: None,
        refusal: refusal.clone(),
    };
    proxy.engine.record(event).await.err().unwrap_or(refusal)
}

/// The agent's window that is open now, by the list and by the clock.
pub(super) fn current_window(proxy: &Proxy, session: &Session) -> Result<Arc<OpenWindow>, Refusal> {
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

pub(super) fn window_closed(window: &OpenWindow) -> Refusal {
    Refusal::new(
        Code::WindowClosed,
        format!(
            "Access Denied: BigQuery: window {} of agent {} has closed",
            window.grant, window.agent
        ),
    )
}

pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Incoming,
    most: usize,
) -> Result<Bytes, Refusal> {
    let coding = Coding::of(headers)?;
    let read = Limited::new(body, most).collect();
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
                format!("The body has more than the {most} bytes that are inspected"),
            )
        } else {
            Refusal::new(
                Code::RequestMalformed,
                format!("The body could not be read: {}", Causes(error.as_ref())),
            )
        }
    })?;
    coding.decode(body.to_bytes(), most)
}

async fn serve(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    headers: &HeaderMap,
    window: &Arc<OpenWindow>,
    asked: Asked,
) -> Result<Response<Body>, No> {
    let (touch, project) = asked.touch();
    let body = asked.body();
    let Asked { route, what } = asked;
    let method = route.method;
    let facts = |touch| QueryFacts {
        method,
        project,
        touch,
        sql: None,
        is_dry_run: false,
    };
    match (what, &route.target) {
        (What::Job(job), Target::NewJob { project }) => {
            let (project, job) = (project.clone(), (job, None));
            return start_job(proxy, session, headers, window, route, job, &project).await;
        }
        (What::Load(load, data, _place), Target::NewJob { project }) => {
            let (project, job) = (project.clone(), (load, data));
            return start_job(proxy, session, headers, window, route, job, &project).await;
        }
        (What::Part(part), _) => {
            return upload::pass(proxy, session, window, headers, facts, part).await;
        }
        (What::Nothing | What::Job(_) | What::Load(..) | What::Table(..) | What::Rows(..), _) => {}
    }
    let writing = writing(proxy, &touch);
    let permit = admit(proxy, session, window, facts(touch), Plan::default()).await?;
    let route = match permit.admitted().job() {
        Some(job) => route.of_job(job),
        None => route,
    };
    let finish = Finish::new(proxy, permit);
    let answer = relay(proxy, session, headers, finish, window, (&route, body)).await;
    drop(writing);
    Ok(answer?)
}

/// Held while something is written, where something is.
pub(super) fn writing(proxy: &Proxy, touch: &Touch) -> Option<Writing> {
    (!touch.writes().is_empty()).then(|| proxy.verdicts.writing())
}

/// Has a request judged and recorded. A window that ends while the disk is waited for ends that, too.
pub(super) async fn admit(
    proxy: &Proxy,
    session: &Session,
    window: &Arc<OpenWindow>,
    facts: QueryFacts,
    plan: Plan,
) -> Result<Permit, No> {
    let judged = proxy
        .engine
        .admit(session.requester.clone(), window.grant, facts, plan);
    tokio::select! {
        biased;
        () = closed(Arc::clone(window), proxy.engine.windows(), Arc::clone(&proxy.clock)) => Err(No::New(window_closed(window))),
        judged = judged => judged.map_err(No::Recorded),
    }
}

/// Waits for `work`, but not past the end of the window.
pub(super) async fn within<T>(
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

pub(super) fn refusal_response(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(refuse::body(refusal))));
    *response.status_mut() =
        StatusCode::from_u16(refuse::status(refusal)).unwrap_or(StatusCode::FORBIDDEN);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(refuse::CONTENT_TYPE),
    );
    response
}

pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync()
}
