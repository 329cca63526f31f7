//! Passing on: an admitted request goes, and its answer comes back: lists cut down to the scope, jobs looked at, and all of it cut when the
//! window closes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enforcer_proto::query::Method;
use enforcer_proto::refusal::{Code, Refusal};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::coded::Decoded;
use super::compare::compare_all;
use super::cut::{CutBody, Source, closed};
use super::forward::{self, Answer, Finish, Parcel};
use super::pages::Sealing;
use super::request::{Body, whole, within};
use super::{Proxy, Session};
use crate::bigquery::answer::{JobFacts, filter_list, job_facts, keep_own_jobs, says_what_it_read};
use crate::bigquery::route::{Route, Target};
use crate::bigquery::words::{self, Words};
use crate::bigquery::{refuse, resource};
use crate::dns::protected::api_beside;
use crate::engine::OpenWindow;

/// How long after the close a streamed answer may still sit in a socket whose client does not read.
const SLOW_CLIENT: Duration = Duration::from_millis(5);

/// Forwards a request that starts nothing, and passes its answer on.
pub(super) async fn relay(
    proxy: &Arc<Proxy>,
    session: &Session,
    headers: &HeaderMap,
    mut finish: Finish,
    window: &Arc<OpenWindow>,
    (route, body): (&Route, Option<Bytes>),
) -> Result<Response<Body>, Refusal> {
    if matches!(route.method, Method::TabledataList | Method::JobsDelete) {
        compare_all(proxy, session, window, &mut finish).await?;
    }
    let parcel = body.map(Parcel::json);
    let opened = if has_sealed_pages(route.method) {
        let opened = proxy.pages.open(route, window.grant);
        Some(opened.inspect_err(|refusal| finish.trouble(&refusal.what))?)
    } else {
        None
    };
    let sent = opened.as_ref().unwrap_or(route);
    let sent = forward::send(proxy, session, &finish, sent, headers, parcel);
    let sent = within(proxy, window, sent).await;
    let answer = sent.inspect_err(|refusal| finish.failed(refusal))?;
    finish.status(answer.status().as_u16());
    let sending = taken((proxy, session, window), &mut finish, route, answer).await;
    // The first that is said of its trouble stands; that of a close is told otherwise.
    let sending = sending.inspect_err(|refusal| {
        if refusal.code != Code::WindowClosed {
            finish.trouble(&refusal.what);
        }
    })?;
    Ok(stream(proxy, session, window, sending, finish))
}

/// An answer as it is passed on: read as far as must be known of it.
async fn taken(
    (proxy, session, window): (&Arc<Proxy>, &Session, &Arc<OpenWindow>),
    finish: &mut Finish,
    route: &Route,
    answer: Response<Decoded>,
) -> Result<Sending, Refusal> {
    Ok(match route.method {
        Method::ProjectsList | Method::DatasetsList => {
            let mut answer = within(proxy, window, forward::read_whole(answer)).await?;
            let mut list = answer.json();
            filter_list(&mut list, &window.scope);
            resource::datasets(&mut list);
            proxy.pages.seal(&mut list, window.grant, route);
            answer.body = Bytes::from(list.to_string());
            Sending::begun(answer, None)
        }
        Method::JobsList => {
            let answer = within(proxy, window, forward::read_whole(answer)).await?;
            Sending::begun(own_jobs(proxy, window, finish, route, answer).await?, None)
        }
        Method::JobsGet | Method::JobsCancel => {
            let answer = within(proxy, window, forward::read_whole(answer)).await?;
            if answer.status == 200 {
                let seen = finish.seen(described(route.method, &answer.json())).await;
                seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
            }
            Sending::begun(worded(answer, &Words::KeptBack), None)
        }
        Method::DatasetsGet
        | Method::TablesGet
        | Method::TablesInsert
        | Method::TablesPatch
        | Method::TablesUpdate => {
            let answer = within(proxy, window, forward::read_whole(answer)).await?;
            Sending::begun(told(window, route, answer).await, None)
        }
        Method::GetQueryResults => {
            let (answer, rest) = within(proxy, window, forward::read_start(answer)).await?;
            let sending = results(proxy, session, window, finish, (answer, rest)).await?;
            sending.sealed(proxy.pages.sealing(window.grant, route))
        }
        Method::TabledataList => {
            let (answer, rest) = within(proxy, window, forward::read_start(answer)).await?;
            Sending::begun(answer, rest).sealed(proxy.pages.sealing(window.grant, route))
        }
        Method::Discovery
        | Method::TablesList
        | Method::TablesDelete
        | Method::InsertAll
        | Method::ModelsList
        | Method::ModelsGet
        | Method::RoutinesList
        | Method::RoutinesGet
        | Method::JobsInsert
        | Method::JobsUpload
        | Method::UploadPart
        | Method::JobsQuery
        | Method::JobsDelete
        | Method::StorageCreateReadSession
        | Method::StorageReadRows
        | Method::StorageSplitReadStream => {
            let (answer, rest) = within(proxy, window, forward::read_start(answer)).await?;
            Sending::begun(answer, rest)
        }
    })
}

/// Whether the tokens of its next pages are sealed.
const fn has_sealed_pages(method: Method) -> bool {
    matches!(
        method,
        Method::ProjectsList
            | Method::DatasetsList
            | Method::JobsList
            | Method::GetQueryResults
            | Method::TabledataList
    )
}

/// What is told of a dataset or a table. An answer that has no body, and one that is none, describes nothing.
async fn told(window: &OpenWindow, route: &Route, mut answer: Answer) -> Answer {
    if answer.status != 200 {
        return answer;
    }
    let mut said = answer.json();
    match &route.target {
        Target::Dataset(_) => resource::dataset(&mut said),
        Target::Tables(dataset) => {
            resource::table(&mut said, &window.scope, dataset.project()).await;
        }
        Target::Table(table) => {
            let project = table.dataset().project();
            resource::table(&mut said, &window.scope, project).await;
        }
        // They are described otherwise.
        Target::Discovery
        | Target::Projects
        | Target::Datasets { .. }
        | Target::Rows(_)
        | Target::Within(_)
        | Target::Jobs { .. }
        | Target::NewJob { .. }
        | Target::Job(_)
        | Target::Upload(_) => said = Value::Null,
    }
    answer.body = Bytes::from(said.to_string());
    answer
}

/// A list of jobs, cut down to the window's own.
async fn own_jobs(
    proxy: &Proxy,
    window: &OpenWindow,
    finish: &mut Finish,
    route: &Route,
    mut answer: Answer,
) -> Result<Answer, Refusal> {
    let mut list = answer.json();
    keep_own_jobs(&mut list, finish.own_jobs());
    proxy.pages.seal(&mut list, window.grant, route);
    // Each says what it has read, as it does where it is asked for by itself.
    for job in list["jobs"].as_array().into_iter().flatten() {
        let facts = JobFacts {
            // A list need not say all of it.
            is_compared: false,
            ..job_facts(job)
        };
        let seen = finish.seen(facts).await;
        seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    }
    // Where there are none BigQuery says no list, and none is made up.
    let jobs = list.get_mut("jobs").and_then(Value::as_array_mut);
    for job in jobs.into_iter().flatten() {
        words::of_job(job, &Words::KeptBack);
    }
    answer.body = Bytes::from(list.to_string());
    Ok(answer)
}

/// A job's results: what it has read is looked at before anything of them is passed on.
async fn results(
    proxy: &Arc<Proxy>,
    session: &Session,
    window: &Arc<OpenWindow>,
    finish: &mut Finish,
    (answer, rest): (Answer, Option<Decoded>),
) -> Result<Sending, Refusal> {
    if answer.status != 200 {
        let words = words_of(proxy, session, window, finish).await?;
        return Ok(Sending::begun(worded(answer, &words), None));
    }
    // What says that the job has not ended has no rows.
    if rest.is_some() || answer.json()["jobComplete"] != false {
        compare_all(proxy, session, window, finish).await?;
    }
    Ok(Sending::begun(answer, rest))
}

/// What becomes of the words of a job that has failed: what it has read is looked at first, like before its rows.
async fn words_of(
    proxy: &Arc<Proxy>,
    session: &Session,
    window: &Arc<OpenWindow>,
    finish: &mut Finish,
) -> Result<Words, Refusal> {
    match compare_all(proxy, session, window, finish).await {
        // It counts as looked at though it may have named no table: then nobody knows whose rows its words are.
        Ok(()) if finish.job_reads() => match described_again(proxy, session, window, finish).await
        {
            Some(job) if says_what_it_read(&job) => Ok(Words::Compared),
            Some(_) | None => Ok(Words::KeptBack),
        },
        Ok(()) => Ok(Words::Compared),
        // It has not ended, or BigQuery does not say what it has read.
        Err(refusal) if matches!(refusal.code, Code::NotVouched | Code::UpstreamFailed) => {
            Ok(Words::KeptBack)
        }
        Err(refusal) => Err(refusal),
    }
}

/// What BigQuery says of the job whose words are at hand, where it says so plainly.
async fn described_again(
    proxy: &Proxy,
    session: &Session,
    window: &Arc<OpenWindow>,
    finish: &Finish,
) -> Option<Value> {
    let job = finish.job()?;
    let host = api_beside(&session.name);
    let asked = forward::describe(proxy, &host, window, &job);
    let answer = within(proxy, window, asked).await.ok()?;
    let said = answer.json();
    let is_it = job_facts(&said)
        .job
        .is_some_and(|named| named.is_same_job(&job));
    (answer.status == 200 && is_it).then_some(said)
}

/// An answer with what its words may say: those of an error by `words`, those of a job by what is known of it. A body without any stays as it came.
pub(super) fn worded(answer: Answer, words: &Words) -> Answer {
    let mut said = answer.json();
    if answer.status >= 400 {
        said = words::of_failure(answer.status, &said, words);
        let mut headers = answer.headers;
        let kind = HeaderValue::from_static(refuse::CONTENT_TYPE);
        headers.insert(header::CONTENT_TYPE, kind);
        return Answer {
            headers,
            body: Bytes::from(said.to_string()),
            ..answer
        };
    }
    // `jobs.cancel` has it one level deeper.
    let job = if said["job"].is_object() {
        &mut said["job"]
    } else {
        &mut said
    };
    if job["status"].is_null() {
        return answer;
    }
    // Its own description, once it has ended, says what it has read, and that was looked at.
    let words = match words {
        Words::Compared | Words::KeptBack | Words::OfText(_) if says_what_it_read(job) => {
            let is_query = job["configuration"]["query"].is_object();
            if is_query {
                &Words::Compared
            } else {
                &Words::Cut
            }
        }
        Words::Cut | Words::Compared | Words::KeptBack | Words::OfText(_) => words,
    };
    words::of_job(job, words);
    Answer {
        body: Bytes::from(said.to_string()),
        ..answer
    }
}

/// What an answer with a job in it says of that. What is told of one that is to end need not be all of it.
fn described(method: Method, answer: &Value) -> JobFacts {
    let job = Some(&answer["job"]).filter(|job| job.is_object());
    let facts = job_facts(job.unwrap_or(answer));
    JobFacts {
        is_compared: facts.is_compared && matches!(method, Method::JobsGet),
        ..facts
    }
}

/// An answer as it is passed on.
pub(super) struct Sending {
    status: StatusCode,
    headers: HeaderMap,
    source: Source,
}

impl Sending {
    /// An answer whose body has begun, or is there whole.
    pub(super) fn begun(answer: Answer, rest: Option<Decoded>) -> Self {
        Self {
            status: StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY),
            headers: answer.headers,
            source: Source::new(answer.body, rest),
        }
    }

    /// The same with the tokens of its next pages sealed.
    pub(super) fn sealed(self, sealing: Sealing) -> Self {
        Self {
            source: self.source.sealed(sealing),
            ..self
        }
    }
}

/// An answer that is there whole and has nothing that must be cut.
pub(super) fn passed_on(answer: Answer) -> Response<Body> {
    let mut response = Response::new(whole(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    forward::pass_answer(&answer.headers, response.headers_mut());
    response
}

/// An answer that is cut when the window closes while it is passed on: by the body itself where the client keeps up, and with the whole
/// connection where it does not, since a body is not asked for more while the socket is full.
pub(super) fn stream(
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
    } = sending;
    let (windows, clock) = (proxy.engine.windows(), Arc::clone(&proxy.clock));
    let ending = Box::pin(closed(Arc::clone(window), windows, clock));
    let done = CancellationToken::new();
    finish.cut_by(session.cut.clone());
    cut_late(proxy, session, window, done.clone());
    let mut response =
        Response::new(CutBody::new(source, ending, finish, done.drop_guard()).boxed_unsync());
    *response.status_mut() = status;
    forward::pass_answer(&headers, response.headers_mut());
    response
}

/// Cuts the whole connection when the window closes, unless what is sent over it is `done` by then or soon after.
pub(super) fn cut_late(
    proxy: &Proxy,
    session: &Session,
    window: &Arc<OpenWindow>,
    done: CancellationToken,
) {
    let (windows, clock) = (proxy.engine.windows(), Arc::clone(&proxy.clock));
    let (ending, cut) = (
        closed(Arc::clone(window), windows, clock),
        session.cut.clone(),
    );
    tokio::spawn(async move {
        if done.run_until_cancelled(ending).await.is_some() {
            // The body had its chance to say so; a client that keeps up has seen its error by now.
            let slow = tokio::time::sleep(SLOW_CLIENT);
            if done.run_until_cancelled(slow).await.is_some() {
                cut.cancel();
            }
        }
    });
}
