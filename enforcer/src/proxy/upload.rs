//! Loads whose data comes in parts: which upload is whose, and its parts, passed on as they come. An upload is its window's alone.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::query::{JobRef, QueryFacts, Touch};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::TableRef;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::coded::Decoded;
use super::compare::Trail;
use super::cut::closed;
use super::forward::{self, Finish, Parcel};
use super::quota::TURN;
use super::relay::{Sending as Passing, passed_on, stream, worded};
use super::request::{Body, No, admit, current_window, whole, window_closed, within, writing};
use super::{Proxy, Session};
use crate::bigquery::answer::job_facts;
use crate::bigquery::coding::Coding;
use crate::bigquery::upload::{ContentRange, malformed};
use crate::bigquery::words::Words;
use crate::dns::protected::{Service, service};
use crate::engine::{OpenWindow, OpenWindows, Plan};

/// The most uploads of one window that are under way; one more is refused.
const UPLOADS_PER_WINDOW_MAX: usize = 64;
/// The most loads that are held in memory with their data at once, each of up to [`crate::bigquery::upload::WHOLE_BYTES_MAX`] and once more as it
/// is sent on; and those of one agent. One more waits.
const WHOLE_MAX: usize = 16;
const WHOLE_PER_AGENT_MAX: usize = 2;
/// The longest a part may take; its window ends before that.
const PART: Duration = Duration::from_secs(24 * 60 * 60);

/// A place for a load that is held in memory, one of its agent's and one of all.
pub(super) type WholePlace = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// An upload that is under way.
#[derive(Debug, Clone)]
struct Upload {
    grant: GrantId,
    /// Where BigQuery wants its parts. The agent does not learn it.
    at: Uri,
    into: TableRef,
    /// The name of the job that its last part starts.
    job: Option<JobRef>,
}

/// The uploads that are under way, by the name that agents know them by, and those that are read whole.
#[derive(Debug)]
pub struct Uploads {
    parts: Mutex<BTreeMap<String, Upload>>,
    whole: Arc<Semaphore>,
    whole_of: Mutex<BTreeMap<AgentName, Arc<Semaphore>>>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            parts: Mutex::default(),
            whole: Arc::new(Semaphore::new(WHOLE_MAX)),
            whole_of: Mutex::default(),
        }
    }
}

impl Uploads {
    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Upload>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for a load that is held in memory with its data, for at most [`TURN`].
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub(super) async fn whole(&self, agent: &AgentName) -> Result<WholePlace, Refusal> {
        let own = {
            let mut whole_of = self.whole_of.lock().unwrap_or_else(PoisonError::into_inner);
            let own = whole_of.entry(agent.clone());
            Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(WHOLE_PER_AGENT_MAX))))
        };
        let places = async {
            let own = own.acquire_owned().await.ok()?;
            Some((own, Arc::clone(&self.whole).acquire_owned().await.ok()?))
        };
        let place = tokio::time::timeout(TURN, places).await.ok().flatten();
        place.ok_or_else(|| {
            let what = format!("Agent {agent} sends too many loads at once");
            Refusal::new(Code::Overloaded, what)
        })
    }

    fn begin(&self, id: String, upload: Upload, open: &OpenWindows) -> Result<(), Refusal> {
        let mut held = self.held();
        held.retain(|_, upload| open.values().any(|window| window.grant == upload.grant));
        let own = held.values().filter(|held| held.grant == upload.grant);
        if own.count() >= UPLOADS_PER_WINDOW_MAX {
            let what = format!(
                "Window {} has {UPLOADS_PER_WINDOW_MAX} uploads under way already",
                upload.grant
            );
            return Err(Refusal::new(Code::Overloaded, what));
        }
        held.insert(id, upload);
        Ok(())
    }

    fn of(&self, id: &str, grant: GrantId) -> Result<Upload, Refusal> {
        let upload = self.held().get(id).cloned();
        upload
            .filter(|upload| upload.grant == grant)
            .ok_or_else(|| {
                Refusal::new(
                    Code::JobForeign,
                    format!("The upload was not begun in window {grant}, or has ended"),
                )
            })
    }

    fn end(&self, id: &str) {
        self.held().remove(id);
    }
}

/// A part of an upload, as it comes.
pub(super) struct Part {
    id: String,
    range: ContentRange,
    body: Incoming,
}

/// Reads the head of a part. Its length must be known, and be what its range says.
///
/// # Errors
/// [`Code::RequestMalformed`].
pub(super) fn part(id: &str, head: &http::request::Parts, body: Incoming) -> Result<Part, Refusal> {
    Ok(Part {
        id: id.to_owned(),
        range: range_of(head, &body)?,
        body,
    })
}

fn range_of(head: &http::request::Parts, body: &Incoming) -> Result<ContentRange, Refusal> {
    if Coding::of(&head.headers)? == Coding::Gzip {
        return Err(malformed(
            "a part is compressed, and its range would be of something else",
        ));
    }
    let mut ranges = head.headers.get_all(header::CONTENT_RANGE).iter();
    let length = body
        .size_hint()
        .exact()
        .ok_or_else(|| malformed("a part does not say its length"))?;
    let range = match (ranges.next(), ranges.next()) {
        (Some(range), None) => range.to_str().unwrap_or_default().parse()?,
        // All of it at once.
        (None, None) => ContentRange::all(length),
        (Some(_) | None, _) => return Err(malformed("a part has several ranges")),
    };
    if length != range.length() {
        return Err(malformed("a part is not as long as its range"));
    }
    Ok(range)
}

/// Begins an upload: BigQuery says where it wants the parts, and the agent is told a place here.
pub(super) async fn begin(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    mut finish: Finish,
    sent: (&HeaderMap, &crate::bigquery::route::Route, Bytes),
    load: (String, TableRef, Option<JobRef>),
) -> Result<Response<Body>, Refusal> {
    let (headers, route, body) = sent;
    let mut parcel = Parcel::json(body);
    for name in ["x-upload-content-type", "x-upload-content-length"] {
        if let Some(value) = headers.get(name) {
            parcel.more.push((name, value.clone()));
        }
    }
    let sent = forward::send(proxy, session, &finish, route, headers, Some(parcel));
    let answer = within(proxy, window, sent)
        .await
        .inspect_err(|refusal| finish.failed(refusal))?;
    finish.status(answer.status().as_u16());
    if answer.status() != StatusCode::OK {
        finish.void();
        return passed_words(proxy, session, window, finish, answer).await;
    }
    let (id, into, job) = load;
    let begun = place(proxy, answer.headers()).and_then(|at| {
        let upload = Upload {
            grant: window.grant,
            at,
            into,
            job,
        };
        let windows = proxy.engine.windows();
        let open = windows.borrow().clone();
        proxy.uploads.begin(id.clone(), upload, &open)
    });
    begun.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    finish.complete();
    let here = format!(
        "https://{}{}?uploadType=resumable&upload_id={id}",
        session.name, route.path
    );
    let mut response = Response::new(whole(Bytes::new()));
    let here = HeaderValue::try_from(here).map_err(|_| malformed("its place cannot be named"))?;
    response.headers_mut().insert(header::LOCATION, here);
    Ok(response)
}

/// Where BigQuery wants the parts: a place for uploads at one of its own names.
fn place(proxy: &Proxy, headers: &HeaderMap) -> Result<Uri, Refusal> {
    let place = headers.get(header::LOCATION);
    let uri = place.and_then(|place| Uri::try_from(place.as_bytes()).ok());
    let is_bigquerys = |uri: &Uri| {
        uri.scheme_str() == Some("https")
            && uri.port_u16().is_none_or(|port| port == 443)
            && uri.path().starts_with("/upload/")
            && uri
                .host()
                .is_some_and(|host| proxy.protected.contains(host) && service(host) == Service::Api)
    };
    uri.filter(is_bigquerys).ok_or_else(|| {
        Refusal::new(
            Code::UpstreamFailed,
            "BigQuery's answer does not say where the upload goes",
        )
    })
}

/// Passes a part on, and what comes of it back.
pub(super) async fn pass(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    headers: &HeaderMap,
    facts: impl FnOnce(Touch) -> QueryFacts,
    part: Part,
) -> Result<Response<Body>, No> {
    let upload = proxy.uploads.of(&part.id, window.grant)?;
    let touch = Touch::Fill {
        table: upload.into.clone(),
        bytes: part.range.length(),
    };
    // What may be the last of it starts the job.
    let plan = Plan {
        job: upload.job.clone().filter(|_| part.range.may_be_last()),
        ..Plan::default()
    };
    let starts = plan.job.clone();
    let writing = writing(proxy, &touch);
    let permit = admit(proxy, session, window, facts(touch), plan).await?;
    let finish = Finish::new(proxy, permit);
    let trail = Trail::new((proxy, session, window), starts, false, writing);
    let sending = Sending {
        headers: headers.clone(),
        finish,
        upload,
        part,
        trail,
    };
    // On its own task: a job that is started when the client has gone, or the window has closed, must be learnt of all the same.
    let (proxy, session, window) = (Arc::clone(proxy), Arc::clone(session), Arc::clone(window));
    let sent = {
        let (proxy, session, window) = (proxy.clone(), session.clone(), window.clone());
        tokio::spawn(async move { send(&proxy, &session, &window, sending).await })
    };
    let lost = |_| Err(Refusal::new(Code::UpstreamFailed, "The part was lost"));
    let done = async { sent.await.unwrap_or_else(lost) };
    Ok(within(&proxy, &window, done).await?)
}

/// A part as it is sent on.
struct Sending {
    headers: HeaderMap,
    finish: Finish,
    upload: Upload,
    part: Part,
    /// The job that it starts, where it may be the last.
    trail: Trail,
}

async fn send(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    sending: Sending,
) -> Result<Response<Body>, Refusal> {
    let Sending {
        headers,
        mut finish,
        upload,
        part,
        trail,
    } = sending;
    let Part { id, range, body } = part;
    let range = HeaderValue::try_from(range.to_string());
    let range = range.map_err(|_| malformed("its range cannot be written"))?;
    let ending = closed(
        Arc::clone(window),
        proxy.engine.windows(),
        Arc::clone(&proxy.clock),
    );
    let parcel = Parcel {
        content_type: None,
        more: vec![("content-range", range)],
        body: CutUpload {
            body,
            closed: Box::pin(ending),
        }
        .boxed(),
        patience: PART,
    };
    let put = http::Method::PUT;
    let sent = forward::send_to(proxy, &finish, put, &upload.at, &headers, parcel);
    // Without an eye on the close: what has gone whole may still start its job, and the rest ends by itself.
    let answer = match sent.await {
        Ok(answer) => answer,
        Err(refusal) => {
            // What was being sent may end a moment before whoever waits for its answer.
            let refusal = current_window(proxy, session)
                .ok()
                .filter(|open| open.grant == window.grant)
                .map_or_else(|| window_closed(window), |_| refusal);
            finish.failed(&refusal);
            trail.lost(finish, Some(&refusal));
            return Err(refusal);
        }
    };
    finish.status(answer.status().as_u16());
    answered((proxy, session, window), finish, &id, answer, trail).await
}

/// Passes on what came of a part.
async fn answered(
    (proxy, session, window): (&Arc<Proxy>, &Arc<Session>, &Arc<OpenWindow>),
    mut finish: Finish,
    id: &str,
    answer: Response<Decoded>,
    trail: Trail,
) -> Result<Response<Body>, Refusal> {
    match answer.status() {
        // There is more to come.
        StatusCode::PERMANENT_REDIRECT => {
            finish.complete();
            let mut response = Response::new(whole(Bytes::new()));
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            forward::pass(answer.headers(), response.headers_mut(), &[header::RANGE]);
            Ok(response)
        }
        StatusCode::OK | StatusCode::CREATED => {
            proxy.uploads.end(id);
            let answer = match within(proxy, window, forward::read_whole(answer)).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    finish.trouble(&refusal.what);
                    trail.lost(finish, None);
                    return Err(refusal);
                }
            };
            let facts = job_facts(&answer.json());
            let running = facts.job.clone().filter(|_| !facts.is_done);
            let seen = finish.seen(facts).await;
            seen.inspect_err(|refusal| finish.trouble(&refusal.what))?;
            if let Some((job, query)) = running.zip(finish.query()) {
                trail.runs(query, job);
            }
            let sending = Passing::begun(worded(answer, &Words::Cut), None);
            Ok(stream(proxy, session, window, sending, finish))
        }
        status if status.is_server_error() && trail.is_named() => {
            finish.trouble("BigQuery did not say whether it has started the job");
            let answer = within(proxy, window, forward::read_whole(answer)).await;
            trail.lost(finish, None);
            answer.map(|answer| passed_on(worded(answer, &Words::Cut)))
        }
        status => {
            // Nothing of it was taken, as far as BigQuery says: the client sends it again.
            finish.void();
            if status.is_client_error() {
                proxy.uploads.end(id);
            }
            passed_words(proxy, session, window, finish, answer).await
        }
    }
}

/// Passes on an answer that began nothing: as it came, or BigQuery's words of a failure cut.
async fn passed_words(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    window: &Arc<OpenWindow>,
    mut finish: Finish,
    answer: Response<Decoded>,
) -> Result<Response<Body>, Refusal> {
    let read = within(proxy, window, forward::read_whole(answer)).await;
    let read = read.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    let sending = if read.status >= 400 {
        Passing::begun(worded(read, &Words::Cut), None)
    } else {
        Passing::begun(read, None)
    };
    Ok(stream(proxy, session, window, sending, finish))
}

/// What an agent sends, until its window closes.
struct CutUpload {
    body: Incoming,
    closed: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl http_body::Body for CutUpload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.closed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(io::Error::other("the window closed"))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_err(io::Error::other)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
