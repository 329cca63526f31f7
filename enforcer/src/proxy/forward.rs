//! The way upstream. An agent's request goes only with a [`Permit`]; a dry run only in an open window. Headers pass by allow-list, both ways.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use enforcer_proto::admission;
use enforcer_proto::event::Event;
use enforcer_proto::query::{JobRef, Method};
use enforcer_proto::refusal::{Code, Refusal};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Proxy, Session};
use crate::bigquery::answer::JobFacts;
use crate::bigquery::route::Route;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::engine::{Engine, OpenWindow, Outcome, Permit};
use crate::upstream::full;

/// The largest answer that is read whole before it is passed on: jobs, lists, `jobs.query` (BigQuery's pages end at 20 MB), bytes.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How much of an answer that streams is read before it is passed on, bytes: one that ends within it is read for what it says of its job.
const START_BYTES_MAX: usize = 64 * 1024;
/// How long BigQuery may take to begin an answer. Long polls of clients end at 200 s.
const ANSWER: Duration = Duration::from_secs(300);

/// What of a request's headers passes.
const REQUEST_HEADERS: [HeaderName; 3] = [header::ACCEPT, header::USER_AGENT, header::CONTENT_TYPE];
const REQUEST_HEADERS_X: [&str; 2] = ["x-goog-api-client", "x-goog-request-reason"];
/// What of an answer's headers passes.
const ANSWER_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::DATE,
    header::ETAG,
    header::VARY,
    header::CACHE_CONTROL,
];

/// An answer of BigQuery's, head and whole body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Says how an admitted query ended: once, whatever happens to whoever holds it.
pub(super) struct Finish {
    engine: Engine,
    clock: Arc<dyn Clock>,
    started_boot_ns: u64,
    permit: Option<Permit>,
    outcome: Outcome,
    is_complete: bool,
    /// Cancelled when the connection is cut under an answer that is being sent.
    cut: CancellationToken,
}

impl Finish {
    pub(super) fn new(proxy: &Proxy, permit: Permit) -> Self {
        Self {
            engine: proxy.engine.clone(),
            clock: Arc::clone(&proxy.clock),
            started_boot_ns: proxy.clock.now().boot_ns,
            permit: Some(permit),
            outcome: Outcome::default(),
            is_complete: false,
            cut: CancellationToken::new(),
        }
    }

    /// Names what ends this query when it ends early.
    pub(super) fn cut_by(&mut self, cut: CancellationToken) {
        self.cut = cut;
    }

    pub(super) fn status(&mut self, status: u16) {
        self.outcome.status = Some(status);
    }

    /// What the answer says of a job. It is in the engine's queue when this returns, before the client can act on the answer.
    ///
    /// # Errors
    /// [`Code::ScopeOutside`] where the job read what its dry run did not say: the answer is not passed on, and the window closes.
    pub(super) async fn seen(&mut self, facts: JobFacts) -> Result<(), Refusal> {
        self.outcome.bytes = facts.bytes();
        let window = self.permit.as_ref().map(Permit::window);
        let read_outside = window.and_then(|window| facts.read_outside(&window.scope));
        let JobFacts {
            job,
            destination,
            is_done,
            billed,
            processed,
            tables: _,
        } = facts;
        self.outcome.job.clone_from(&job);
        self.outcome.destination.clone_from(&destination);
        if let Some((permit, job)) = self.permit.as_ref().zip(job) {
            let seen = Event::JobSeen {
                query: permit.query(),
                grant: permit.window().grant,
                job,
                destination,
                is_done,
                billed,
                processed,
                read_outside: read_outside.clone(),
            };
            self.engine.note(seen).await;
        }
        match (window, read_outside) {
            (Some(window), Some(table)) => Err(admission::outside(
                &format!("table {table}, which the job read and its dry run did not name,"),
                window.grant,
                &window.agent,
                &window.scope,
            )),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The bytes of the budget that are held for it.
    pub(super) fn ceiling(&self) -> Option<u64> {
        self.permit.as_ref().and_then(Permit::ceiling)
    }

    /// The window's own jobs, where a list of jobs was asked for.
    pub(super) fn own_jobs(&self) -> &[JobRef] {
        self.permit
            .as_ref()
            .map_or(&[], |permit| permit.admitted().own_jobs())
    }

    /// Nothing was started.
    pub(super) const fn void(&mut self) {
        self.outcome.is_void = true;
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.outcome.body_bytes = self.outcome.body_bytes.saturating_add(bytes as u64);
    }

    pub(super) const fn complete(&mut self) {
        self.is_complete = true;
    }

    fn take(&mut self) -> Option<(Permit, Outcome)> {
        let mut permit = self.permit.take()?;
        permit.used();
        let mut outcome = std::mem::take(&mut self.outcome);
        if !self.is_complete {
            let why = if self.cut.is_cancelled() {
                "cut: the window closed"
            } else {
                "the client went away"
            };
            outcome.trouble.get_or_insert_with(|| why.to_owned());
        }
        outcome.duration_us = self
            .clock
            .now()
            .boot_ns
            .saturating_sub(self.started_boot_ns)
            / 1000;
        Some((permit, outcome))
    }

    pub(super) fn trouble(&mut self, what: &str) {
        self.is_complete = true;
        self.outcome.trouble.get_or_insert_with(|| what.to_owned());
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let Some((permit, outcome)) = self.take() else {
            return;
        };
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.finished(permit, outcome).await });
    }
}

/// Sends an admitted request and gives the answer's head, its body still coming.
///
/// # Errors
/// [`Code::TokenUnavailable`] or [`Code::UpstreamFailed`].
pub(super) async fn send(
    proxy: &Proxy,
    session: &Session,
    finish: &Finish,
    route: &Route,
    headers: &HeaderMap,
    body: Option<Bytes>,
) -> Result<Response<Incoming>, Refusal> {
    // Only a query that is not finished has its permit still.
    let permit = finish
        .permit
        .as_ref()
        .ok_or_else(|| failed(&"it is finished already"))?;
    let method = match permit.admitted().method() {
        Method::JobsInsert | Method::JobsQuery | Method::JobsCancel => http::Method::POST,
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
        | Method::GetQueryResults => http::Method::GET,
        Method::JobsDelete => http::Method::DELETE,
    };
    let uri = format!("https://{}{}", session.name, route.path_and_query());
    exchange(proxy, permit.window(), method, &uri, Some(headers), body).await
}

/// Sends a dry run of our own in the agent's name, and gives the whole answer.
///
/// # Errors
/// [`Code::TokenUnavailable`] or [`Code::UpstreamFailed`].
pub(super) async fn dry_run(
    proxy: &Proxy,
    session: &Session,
    window: &OpenWindow,
    project: &str,
    body: &Value,
) -> Result<Answer, Refusal> {
    let uri = format!(
        "https://{}/bigquery/v2/projects/{project}/jobs",
        session.name
    );
    let body = Bytes::from(body.to_string());
    let answer = exchange(proxy, window, http::Method::POST, &uri, None, Some(body)).await?;
    read_whole(answer).await
}

async fn exchange(
    proxy: &Proxy,
    window: &OpenWindow,
    method: http::Method,
    uri: &str,
    headers: Option<&HeaderMap>,
    body: Option<Bytes>,
) -> Result<Response<Incoming>, Refusal> {
    let authorization = proxy.tokens.for_query(window).await?;
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(out) = request.headers_mut() {
        if let Some(headers) = headers {
            pass(headers, out, &REQUEST_HEADERS);
            for name in REQUEST_HEADERS_X {
                if let Some(value) = headers.get(name) {
                    out.insert(name, value.clone());
                }
            }
        }
        if body.is_some() {
            out.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        out.insert(header::AUTHORIZATION, authorization.clone());
    }
    let request = request
        .body(full(body.unwrap_or_default()))
        .map_err(|error| failed(&error))?;
    let sent = tokio::time::timeout(ANSWER, proxy.upstream.send(window.grant.0, request)).await;
    let answer = sent.map_err(|_| failed(&"it took too long"))?.map_err(|error| {
        tracing::warn!(grant = %window.grant, error = %Causes(&error), "BigQuery could not be reached");
        failed(&error)
    })?;
    check(answer, &authorization)
}

/// Answers that must not reach a client are turned into refusals: those that speak of our token, those that lead elsewhere, and those that
/// would make another protocol of the connection, which nobody asked for.
fn check(
    answer: Response<Incoming>,
    authorization: &HeaderValue,
) -> Result<Response<Incoming>, Refusal> {
    let token = authorization
        .as_bytes()
        .strip_prefix(b"Bearer ")
        .unwrap_or(authorization.as_bytes());
    let echoes = ANSWER_HEADERS
        .iter()
        .filter_map(|name| answer.headers().get(name))
        .any(|value| contains(value.as_bytes(), token));
    if echoes {
        return Err(failed(&"the answer carried a credential"));
    }
    match answer.status().as_u16() {
        401 | 407 => Err(Refusal::new(
            Code::TokenUnavailable,
            "BigQuery did not accept the token",
        )),
        100..=199 => Err(failed(&"the answer turns the connection into another")),
        300..=399 => Err(failed(&"the answer leads to another place")),
        _ => Ok(answer),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// Reads an answer whole, up to [`ANSWER_BYTES_MAX`].
///
/// # Errors
/// [`Code::UpstreamFailed`].
pub(super) async fn read_whole(answer: Response<Incoming>) -> Result<Answer, Refusal> {
    let (head, body) = answer.into_parts();
    let body = tokio::time::timeout(ANSWER, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
    let body = body
        .map_err(|_| failed(&"it took too long"))?
        .map_err(|error| failed(&error))?
        .to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// Reads the start of an answer that streams. The rest is absent where that is all of it.
///
/// # Errors
/// [`Code::UpstreamFailed`].
pub(super) async fn read_start(
    answer: Response<Incoming>,
) -> Result<(Answer, Option<Incoming>), Refusal> {
    let (head, mut body) = answer.into_parts();
    let mut start = BytesMut::new();
    let reading = async {
        while start.len() <= START_BYTES_MAX {
            match body.frame().await {
                Some(Ok(frame)) => start.extend(frame.into_data()),
                Some(Err(error)) => return Err(failed(&error)),
                None => return Ok(true),
            }
        }
        Ok(false)
    };
    let is_all = tokio::time::timeout(ANSWER, reading)
        .await
        .map_err(|_| failed(&"it took too long"))??;
    let answer = Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: start.freeze(),
    };
    Ok((answer, (!is_all).then_some(body)))
}

/// Copies the headers that may pass.
pub(super) fn pass(from: &HeaderMap, to: &mut HeaderMap, allowed: &[HeaderName]) {
    for name in allowed {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

/// Copies the headers of an answer that may pass.
pub(super) fn pass_answer(from: &HeaderMap, to: &mut HeaderMap) {
    pass(from, to, &ANSWER_HEADERS);
}

fn failed(why: &impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::UpstreamFailed,
        format!("BigQuery did not give an answer that can be used: {why}"),
    )
}
