//! The way upstream. An agent's request goes only with a [`Permit`]; a dry run only in an open window, or under the estimator's own identity.
//! Headers pass by allow-list, both ways.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use enforcer_proto::admission;
use enforcer_proto::event::Event;
use enforcer_proto::id::QueryId;
use enforcer_proto::query::{JobRef, Uncompared};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::coded::{self, Decoded};
use super::cut::closed;
use super::request::window_closed;
use super::{Proxy, Session, conditions};
use crate::bigquery::answer::JobFacts;
use crate::bigquery::route::{Route, description_of, resource_of, resource_of_dataset};
use crate::bigquery::storage::status;
use crate::bigquery::upload::Boundary;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::dns::protected::api_beside;
use crate::engine::{Engine, OpenWindow, Outcome, Permit};
use crate::token::Credential;
use crate::upstream::{Body, Progress, Sent, Until, Upstream, UpstreamError, full};

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
const ANSWER_HEADERS: [HeaderName; 5] = [
    header::CONTENT_TYPE,
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

/// A request's body, and what is said of it.
pub(super) struct Parcel {
    pub(super) content_type: Option<HeaderValue>,
    pub(super) more: Vec<(&'static str, HeaderValue)>,
    pub(super) body: Body,
    /// How long BigQuery may take to begin its answer, the sending of the body included.
    pub(super) patience: Duration,
}

impl Parcel {
    /// JSON.
    pub(super) fn json(body: Bytes) -> Self {
        Self {
            content_type: Some(HeaderValue::from_static("application/json")),
            more: Vec::new(),
            body: full(body),
            patience: ANSWER,
        }
    }

    /// A job and its data.
    pub(super) fn whole(job: &str, data: &[u8], boundary: &Boundary) -> Self {
        Self {
            content_type: HeaderValue::try_from(boundary.content_type()).ok(),
            ..Self::json(boundary.body(job, data))
        }
    }

    fn empty() -> Self {
        Self {
            content_type: None,
            ..Self::json(Bytes::new())
        }
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
    /// How far its request is.
    progress: Progress,
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
            progress: Progress::default(),
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
        match self.query() {
            Some(query) => self.looked_at(query, facts).await,
            None => Ok(()),
        }
    }

    /// The same, of a job that `query` started. What one that is being started is to read says nothing of its own job.
    pub(super) async fn looked_at(
        &mut self,
        query: QueryId,
        facts: JobFacts,
    ) -> Result<(), Refusal> {
        let Some(permit) = &self.permit else {
            return Ok(());
        };
        if query == permit.query() || !permit.admitted().method().starts_a_job() {
            self.outcome.bytes = facts.bytes();
            self.outcome.job.clone_from(&facts.job);
            self.outcome.destination.clone_from(&facts.destination);
        }
        seen(&self.engine, permit.window(), query, facts).await
    }

    /// The window's own jobs that must be looked at before anything of their results is read.
    pub(super) fn uncompared(&self) -> Vec<Uncompared> {
        let permit = self.permit.as_ref();
        permit.map_or_else(Vec::new, |permit| permit.admitted().uncompared().to_vec())
    }

    /// The window's own job that it reads of.
    pub(super) fn job(&self) -> Option<JobRef> {
        self.permit.as_ref()?.admitted().job().cloned()
    }

    /// Whether that job's query reads tables.
    pub(super) fn job_reads(&self) -> bool {
        let permit = self.permit.as_ref();
        permit.is_none_or(|permit| permit.admitted().job_reads())
    }

    /// Whose job it starts, for whoever looks at that job later.
    pub(super) fn query(&self) -> Option<QueryId> {
        self.permit.as_ref().map(Permit::query)
    }

    /// The bytes of its rows that may be passed on; none where it has no rows.
    pub(super) fn passed_on_max(&self) -> Option<u64> {
        self.permit.as_ref().and_then(Permit::passed_on_max)
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

    /// Its request has come to nothing that could be passed on. Where the window's close is why, what is recorded is how much of it has left:
    /// nothing is added to that.
    pub(super) fn failed(&mut self, refusal: &Refusal) {
        if refusal.code != Code::WindowClosed {
            return self.trouble(&refusal.what);
        }
        let sent = self.progress.end();
        if sent == Sent::Nothing {
            self.void();
        }
        self.trouble(match sent {
            Sent::Nothing => "cut: the window closed before anything of it was sent",
            Sent::Part => "cut: the window closed when a part of it was sent; the rest never is",
            Sent::Unacknowledged => {
                "cut: the window closed when BigQuery had not acknowledged all of it; it may have been carried out"
            }
            Sent::Whole => {
                "cut: the window closed when all of it was sent; it may have been carried out"
            }
        });
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
        self.engine.finished(permit, outcome);
    }
}

/// What an answer to a query says of a job: recorded, and compared with what the window covers.
///
/// # Errors
/// [`Code::ScopeOutside`] where the job read what its dry run did not say.
pub(super) async fn seen(
    engine: &Engine,
    window: &OpenWindow,
    query: QueryId,
    facts: JobFacts,
) -> Result<(), Refusal> {
    let read_outside = facts.read_outside(&window.scope);
    let JobFacts {
        job,
        destination,
        is_done,
        is_compared,
        names_no_table,
        billed,
        processed,
        tables: _,
    } = facts;
    if let Some(job) = job {
        let seen = Event::JobSeen {
            query,
            grant: window.grant,
            job,
            destination,
            is_done,
            billed,
            processed,
            is_compared,
            names_no_table,
            read_outside: read_outside.clone(),
        };
        engine.note(seen).await;
    }
    match read_outside {
        Some(table) => Err(admission::outside(
            &format!("table {table}, which the job read and its dry run did not name,"),
            window.grant,
            &window.agent,
            &window.scope,
        )),
        None => Ok(()),
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
    parcel: Option<Parcel>,
) -> Result<Response<Decoded>, Refusal> {
    let method = http::Method::from_bytes(route.verb.as_bytes()).map_err(|error| failed(&error))?;
    let uri = format!("https://{}{}", session.name, route.path_and_query());
    let uri = Uri::try_from(uri).map_err(|error| failed(&error))?;
    let mut parcel = parcel.unwrap_or_else(Parcel::empty);
    parcel.more.extend(conditions::of(route.method, headers));
    send_to(proxy, finish, method, &uri, headers, parcel).await
}

/// The same, to a place that BigQuery has named.
///
/// # Errors
/// As [`send`].
pub(super) async fn send_to(
    proxy: &Proxy,
    finish: &Finish,
    method: http::Method,
    uri: &Uri,
    headers: &HeaderMap,
    parcel: Parcel,
) -> Result<Response<Decoded>, Refusal> {
    let asked = (method, uri, Some(headers), parcel);
    exchange(proxy, window_of(finish)?, asked, &finish.progress).await
}

/// The same, of what is answered as it is: gRPC compresses messages, each by itself, and is asked for none that is.
///
/// # Errors
/// As [`send`].
pub(super) async fn send_for_plain(
    proxy: &Proxy,
    finish: &Finish,
    uri: &Uri,
    headers: &HeaderMap,
    parcel: Parcel,
) -> Result<Response<Incoming>, Refusal> {
    let (window, post) = (window_of(finish)?, http::Method::POST);
    let out = headers_out(Some(headers), &parcel);
    let asked = (post, uri, out, parcel);
    coded::plain(carry(proxy, window, asked, &finish.progress).await?)
}

/// Only a query that is not finished has its permit still.
fn window_of(finish: &Finish) -> Result<&OpenWindow, Refusal> {
    let permit = finish.permit.as_ref();
    let permit = permit.ok_or_else(|| failed(&"it is finished already"))?;
    Ok(permit.window())
}

/// Asks BigQuery for its own description of a job, in the agent's name, and gives the whole answer.
///
/// # Errors
/// [`Code::TokenUnavailable`] or [`Code::UpstreamFailed`].
pub(super) async fn describe(
    proxy: &Proxy,
    host: &str,
    window: &OpenWindow,
    job: &JobRef,
) -> Result<Answer, Refusal> {
    look(proxy, host, window, &description_of(job)).await
}

/// Asks BigQuery where a dataset lies, and so where a job runs that moves its data.
///
/// # Errors
/// [`Code::TokenUnavailable`] or [`Code::UpstreamFailed`].
pub(super) async fn location_of(
    proxy: &Proxy,
    session: &Session,
    window: &OpenWindow,
    dataset: &DatasetRef,
) -> Result<Option<String>, Refusal> {
    let (host, path) = (api_beside(&session.name), resource_of_dataset(dataset));
    let answer = look(proxy, &host, window, &path).await?;
    Ok(answer.json()["location"].as_str().map(str::to_owned))
}

/// Asks BigQuery what it says of a table, in the agent's name, and gives the whole answer.
///
/// # Errors
/// [`Code::TokenUnavailable`] or [`Code::UpstreamFailed`].
pub(super) async fn describe_table(
    proxy: &Proxy,
    session: &Session,
    window: &OpenWindow,
    table: &TableRef,
) -> Result<Answer, Refusal> {
    let host = api_beside(&session.name);
    look(proxy, &host, window, &resource_of(table)).await
}

async fn look(
    proxy: &Proxy,
    host: &str,
    window: &OpenWindow,
    path: &str,
) -> Result<Answer, Refusal> {
    let uri = format!("https://{host}{path}");
    let uri = Uri::try_from(uri).map_err(|error| failed(&error))?;
    let get = http::Method::GET;
    let asked = (get, &uri, None, Parcel::empty());
    let answer = exchange(proxy, window, asked, &Progress::default()).await?;
    read_whole(answer).await
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
    let uri = new_job(&session.name, project)?;
    let parcel = Parcel::json(Bytes::from(body.to_string()));
    let asked = (http::Method::POST, &uri, None, parcel);
    let answer = exchange(proxy, window, asked, &Progress::default()).await?;
    read_whole(answer).await
}

/// Sends a dry run for nobody's window, on connections and under an identity that are the estimator's alone, and gives the whole answer, up to
/// `bytes_max`.
///
/// # Errors
/// [`Code::TokenUnavailable`] where BigQuery does not accept the token, or [`Code::UpstreamFailed`].
pub(super) async fn dry_run_of_nobody(
    (upstream, pool_key): (&Upstream, u64),
    credential: &Credential,
    (host, project): (&str, &str),
    body: &Value,
    bytes_max: usize,
) -> Result<Answer, Refusal> {
    let mut request = Request::post(new_job(host, project)?)
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(Bytes::from(body.to_string())))
        .map_err(|error| failed(&error))?;
    credential.put(request.headers_mut());
    coded::ask(request.headers_mut());
    let answer = upstream.send(pool_key, request).await.map_err(|error| {
        tracing::warn!(error = %Causes(&error), "BigQuery could not be reached for an estimate");
        failed(&error)
    })?;
    let answer = coded::decoded(check(answer, credential.authorization())?)?;
    read_up_to(answer, bytes_max).await
}

/// Where a job is started.
fn new_job(host: &str, project: &str) -> Result<Uri, Refusal> {
    let uri = format!("https://{host}/bigquery/v2/projects/{project}/jobs");
    Uri::try_from(uri).map_err(|error| failed(&error))
}

/// Asks, and gives the answer decoded: the one place where answers to what is not gRPC begin.
async fn exchange(
    proxy: &Proxy,
    window: &OpenWindow,
    (method, uri, headers, parcel): (http::Method, &Uri, Option<&HeaderMap>, Parcel),
    progress: &Progress,
) -> Result<Response<Decoded>, Refusal> {
    let mut out = headers_out(headers, &parcel);
    coded::ask(&mut out);
    let asked = (method, uri, out, parcel);
    coded::decoded(carry(proxy, window, asked, progress).await?)
}

/// What of a request's headers passes, and what is said of its body.
fn headers_out(headers: Option<&HeaderMap>, parcel: &Parcel) -> HeaderMap {
    let mut out = HeaderMap::new();
    if let Some(headers) = headers {
        pass(headers, &mut out, &REQUEST_HEADERS);
        for name in REQUEST_HEADERS_X {
            if let Some(value) = headers.get(name) {
                out.insert(name, value.clone());
            }
        }
    }
    if let Some(kind) = &parcel.content_type {
        out.insert(header::CONTENT_TYPE, kind.clone());
    }
    for (name, value) in &parcel.more {
        out.insert(*name, value.clone());
    }
    out
}

/// Sends with the window's token, and gives the answer as it came, where it may reach a client.
async fn carry(
    proxy: &Proxy,
    window: &OpenWindow,
    (method, uri, headers, parcel): (http::Method, &Uri, HeaderMap, Parcel),
    progress: &Progress,
) -> Result<Response<Incoming>, Refusal> {
    let credential = proxy.tokens.for_query(window).await?;
    let mut request = Request::new(parcel.body);
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    credential.put(request.headers_mut());
    let until = || {
        let (window, windows) = (Arc::new(window.clone()), proxy.engine.windows());
        Until {
            closes_boot_ns: window.closes_boot_ns,
            ended: Box::pin(closed(window, windows, Arc::clone(&proxy.clock))),
        }
    };
    let sent = proxy
        .upstream
        .send_until(window.grant.0, until, request, progress);
    let sent = tokio::time::timeout(parcel.patience, sent).await;
    let answer = sent.map_err(|_| failed(&"it took too long"))?.map_err(|error| {
        if matches!(error, UpstreamError::Forgotten { .. }) {
            return window_closed(window);
        }
        tracing::warn!(grant = %window.grant, error = %Causes(&error), "BigQuery could not be reached");
        failed(&error)
    })?;
    let checked = check(answer, credential.authorization());
    if let Err(refusal) = &checked
        && refusal.code == Code::TokenDenied
    {
        proxy.tokens.refused(window, &credential).await;
    }
    checked
}

/// Answers that must not reach a client are turned into refusals: those that speak of our token, those that lead elsewhere, and those that
/// would make another protocol of the connection.
fn check(
    answer: Response<Incoming>,
    authorization: &HeaderValue,
) -> Result<Response<Incoming>, Refusal> {
    let token = authorization
        .as_bytes()
        .strip_prefix(b"Bearer ")
        .unwrap_or(authorization.as_bytes());
    let speaking = [status::MESSAGE];
    let echoes = ANSWER_HEADERS
        .iter()
        .chain(&speaking)
        .filter_map(|name| answer.headers().get(name))
        .any(|value| contains(value.as_bytes(), token));
    if echoes {
        return Err(failed(&"the answer carried a credential"));
    }
    match answer.status().as_u16() {
        401 | 407 => Err(Refusal::new(
            Code::TokenDenied,
            "BigQuery did not accept the token",
        )),
        100..=199 => Err(failed(&"the answer turns the connection into another")),
        // A part has come, and more is to come: it leads nowhere.
        308 if !answer.headers().contains_key(header::LOCATION) => Ok(answer),
        // What was asked for only if it has changed has not.
        304 if !answer.headers().contains_key(header::LOCATION) => Ok(answer),
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
pub(super) async fn read_whole(answer: Response<Decoded>) -> Result<Answer, Refusal> {
    read_up_to(answer, ANSWER_BYTES_MAX).await
}

async fn read_up_to(answer: Response<Decoded>, bytes_max: usize) -> Result<Answer, Refusal> {
    let (head, body) = answer.into_parts();
    let body = tokio::time::timeout(ANSWER, Limited::new(body, bytes_max).collect()).await;
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
    answer: Response<Decoded>,
) -> Result<(Answer, Option<Decoded>), Refusal> {
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
