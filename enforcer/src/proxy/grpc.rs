//! gRPC: rows of tables are read by BigQuery's storage API, and everything else that is spoken so is refused in gRPC's own shape.
//!
//! A request is one message, read whole and judged before anything goes (`asked`); what goes is written anew. Answers that make streams are
//! read (`made`), those that hold rows are passed on as they come (`passing`), from streams of the window's own alone (`reads`).

mod asked;
mod made;
mod passing;
mod reads;

use std::sync::Arc;

use bytes::Bytes;
use enforcer_proto::admission;
use enforcer_proto::query::{Method, QueryFacts, Touch};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::TableRef;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::compare::compare_all;
use super::forward::{self, Finish, Parcel};
use super::relay::cut_late;
use super::request::{Body, No, admit, current_window, record, whole, within};
use super::{Proxy, Session};
use crate::bigquery::storage::wanted::About;
use crate::bigquery::storage::{frame, status};
use crate::engine::{OpenWindow, Plan};
use asked::Asked;
use passing::{Passing, Reader, end_with};
pub use reads::Reads;

/// The content type of gRPC, after which a kind of message may be named.
const CONTENT_TYPE: &str = "application/grpc";

/// Whether a request is gRPC, and is to be answered so.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| {
        kind.as_bytes()
            .get(..CONTENT_TYPE.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes()))
    })
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
    let asked = match (&turn, &session.barred) {
        (Ok(_), None) => asked::read(proxy, session, &head, body).await,
        (Ok(_), Some(refusal)) | (Err(refusal), _) => Err(refusal.clone()),
    };
    let condition = asked.as_ref().ok().and_then(Asked::condition);
    let window = current_window(proxy, session);
    let grant = window.as_ref().ok().map(|window| window.grant);
    // Without a window that is the answer, whatever else is wrong with the request.
    let done = match (window, asked) {
        (Err(refusal), _) | (Ok(_), Err(refusal)) => Err(No::New(refusal)),
        (Ok(window), Ok(asked)) => serve(proxy, session, &head.headers, &window, asked).await,
    };
    match done {
        Ok(response) => response,
        Err(No::Recorded(refusal)) => refused(&refusal),
        Err(No::New(refusal)) => {
            refused(&record(proxy, session, grant, line, condition, refusal).await)
        }
    }
}

/// A refusal: no message, and a status.
fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.headers_mut() = status::refused(refusal);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

async fn serve(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    headers: &HeaderMap,
    window: &Arc<OpenWindow>,
    asked: Asked,
) -> Result<Response<Body>, No> {
    let sql = asked.condition();
    let (table, project) = match &asked.wanted.about {
        About::Session { project, table, .. } => {
            admission::may_bill(project, window.grant, &window.scope)?;
            (table.clone(), Some(project.clone()))
        }
        About::Stream(name) => (proxy.reads.table_of(name, window.grant)?, None),
    };
    let is_rows = asked.method == Method::StorageReadRows;
    let touch = match &asked.wanted.about {
        About::Session { .. } => Touch::Scan {
            table: table.clone(),
            bytes: None,
        },
        About::Stream(_) if is_rows => Touch::Rows(table.clone()),
        About::Stream(_) => Touch::Table(table.clone()),
    };
    let facts = QueryFacts {
        method: asked.method,
        project,
        touch,
        sql,
        is_dry_run: false,
    };
    let permit = admit(proxy, session, window, facts.clone(), Plan::default()).await?;
    let is_result = permit.admitted().is_result();
    let mut finish = Finish::new(proxy, permit);
    compare_all(proxy, session, window, &mut finish).await?;
    let sent = send(proxy, session, headers, &finish, &asked);
    let answer = within(proxy, window, sent)
        .await
        .inspect_err(|refusal| finish.failed(refusal))?;
    finish.status(answer.status().as_u16());
    if let Some(response) = without_message(&answer, &mut finish) {
        return Ok(response);
    }
    if is_rows {
        let reader = Reader {
            proxy: Arc::clone(proxy),
            session: Arc::clone(session),
            window: Arc::clone(window),
            facts,
        };
        return Ok(stream(reader, answer, finish));
    }
    let made = within(proxy, window, made::read(asked.method, answer)).await;
    if let Ok(Some(bytes)) = made.as_ref().map(|made| made.scanned)
        && !is_result
    {
        scan(proxy, session, window, (facts, &table), bytes)
            .await
            .inspect_err(|no| finish.trouble(&no.refusal().what))?;
    }
    let kept = made.and_then(|made| {
        let open = proxy.engine.windows().borrow().clone();
        let kept = proxy
            .reads
            .keep(window.grant, &table, made.streams.clone(), &open);
        kept.map(|()| made)
    });
    let made = kept.inspect_err(|refusal| finish.trouble(&refusal.what))?;
    Ok(made.passed(&mut finish))
}

/// What the streams of a session read at BigQuery is charged, on record, before they are told: who does not know them cannot read by them.
async fn scan(
    proxy: &Proxy,
    session: &Session,
    window: &Arc<OpenWindow>,
    (facts, table): (QueryFacts, &TableRef),
    bytes: u64,
) -> Result<(), No> {
    let touch = Touch::Scan {
        table: table.clone(),
        bytes: Some(bytes),
    };
    let facts = QueryFacts { touch, ..facts };
    let permit = admit(proxy, session, window, facts, Plan::default()).await?;
    let mut charged = Finish::new(proxy, permit);
    charged.status(200);
    charged.complete();
    Ok(())
}

async fn send(
    proxy: &Proxy,
    session: &Session,
    headers: &HeaderMap,
    finish: &Finish,
    asked: &Asked,
) -> Result<Response<Incoming>, Refusal> {
    let uri = Uri::try_from(format!("https://{}{}", session.name, asked.path));
    let uri = uri.map_err(|_| unusable("its place cannot be named"))?;
    let mut parcel = Parcel::json(frame::framed(&asked.wanted.message));
    parcel.content_type = Some(HeaderValue::from_static(CONTENT_TYPE));
    parcel.more.clone_from(&asked.more);
    let sent = forward::send_for_plain(proxy, finish, &uri, headers, parcel);
    let answer = sent.await?;
    if answer.version() != Version::HTTP_2 || !is_spoken(answer.headers()) {
        return Err(unusable("it is not gRPC"));
    }
    // Unauthenticated, said as gRPC says it.
    if answer
        .headers()
        .get(status::STATUS)
        .is_some_and(|said| said == "16")
    {
        let what = "BigQuery did not accept the token";
        return Err(Refusal::new(Code::TokenDenied, what));
    }
    Ok(answer)
}

/// An answer that is a status and nothing else, where it is.
fn without_message(answer: &Response<Incoming>, finish: &mut Finish) -> Option<Response<Body>> {
    if !answer.headers().contains_key(status::STATUS) {
        return None;
    }
    let most = finish.passed_on_max();
    let status = end_with(finish, answer.headers(), most);
    let mut response = Response::new(whole(Bytes::new()));
    forward::pass_answer(answer.headers(), response.headers_mut());
    response.headers_mut().extend(status);
    Some(response)
}

fn unusable(why: &str) -> Refusal {
    let what = format!("BigQuery did not give an answer that can be used: {why}");
    Refusal::new(Code::UpstreamFailed, what)
}

/// Rows, which are cut when the window closes: by the body itself where the client keeps up, and with the whole connection where it does not.
fn stream(reader: Reader, answer: Response<Incoming>, mut finish: Finish) -> Response<Body> {
    let (head, body) = answer.into_parts();
    finish.cut_by(reader.session.cut.clone());
    let done = CancellationToken::new();
    cut_late(&reader.proxy, &reader.session, &reader.window, done.clone());
    let passing = Passing::new(reader, body, finish, done.drop_guard());
    let mut response = Response::new(passing.boxed_unsync());
    forward::pass_answer(&head.headers, response.headers_mut());
    response
}
