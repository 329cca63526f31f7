//! A gRPC answer as it is passed on: it ends with the window, or with the budget, by a status that says so. Bytes go as they come; of its
//! trailers, those of a status, its words cut short and counted like rows.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use enforcer_proto::query::QueryFacts;
use enforcer_proto::refusal::{Code, Refusal};
use http::header::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio_util::sync::DropGuard;

use crate::bigquery::storage::status;
use crate::engine::{OpenWindow, Plan};
use crate::proxy::cut::{BodyError, closed};
use crate::proxy::forward::Finish;
use crate::proxy::request::{No, admit, window_closed};
use crate::proxy::{Proxy, Session};

type Asking = Pin<Box<dyn Future<Output = Result<Finish, Refusal>> + Send>>;

/// Who reads, in which window, and what: whoever reads on past the bytes that are held asks for that again.
pub(super) struct Reader {
    pub(super) proxy: Arc<Proxy>,
    pub(super) session: Arc<Session>,
    pub(super) window: Arc<OpenWindow>,
    pub(super) facts: QueryFacts,
}

impl Reader {
    /// Asks to read on. What was read is charged by then, or still held: either leaves as much.
    fn ask(&self) -> Asking {
        let (proxy, session) = (Arc::clone(&self.proxy), Arc::clone(&self.session));
        let (window, facts) = (Arc::clone(&self.window), self.facts.clone());
        Box::pin(async move {
            match admit(&proxy, &session, &window, facts, Plan::default()).await {
                Ok(permit) => {
                    let mut finish = Finish::new(&proxy, permit);
                    finish.status(200);
                    finish.cut_by(session.cut.clone());
                    Ok(finish)
                }
                Err(No::New(refusal) | No::Recorded(refusal)) => Err(refusal),
            }
        })
    }
}

/// Where an answer stands.
enum State {
    /// It is passed on.
    Open,
    /// The bytes that were held for it are used up; more are asked for.
    Asking(Asking),
    /// Its status has been sent.
    Ended,
}

/// An answer.
pub(super) struct Passing {
    reader: Reader,
    state: State,
    /// Came, and is not passed on yet.
    came: Bytes,
    rest: Incoming,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    finish: Finish,
    /// The bytes that may still be passed on, where the budget bounds them.
    most: Option<u64>,
    /// Tells the connection's watcher that this body is over.
    _done: DropGuard,
}

impl Passing {
    pub(super) fn new(reader: Reader, rest: Incoming, finish: Finish, done: DropGuard) -> Self {
        let (windows, clock) = (
            reader.proxy.engine.windows(),
            Arc::clone(&reader.proxy.clock),
        );
        let ending = closed(Arc::clone(&reader.window), windows, clock);
        Self {
            reader,
            state: State::Open,
            came: Bytes::new(),
            rest,
            closed: Box::pin(ending),
            most: finish.passed_on_max(),
            finish,
            _done: done,
        }
    }

    /// What of that which came may be passed on now.
    fn part(&mut self) -> Option<Bytes> {
        let most = self
            .most
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let length = self.came.len().min(most.unwrap_or(usize::MAX));
        if length == 0 {
            return None;
        }
        self.most = self.most.map(|most| most.saturating_sub(length as u64));
        self.finish.sent(length);
        Some(self.came.split_to(length))
    }

    fn end(&mut self, trailers: HeaderMap) -> Frame<Bytes> {
        self.state = State::Ended;
        self.came = Bytes::new();
        Frame::trailers(trailers)
    }

    fn cut(&mut self, trouble: &str, refusal: &Refusal) -> Frame<Bytes> {
        self.finish.trouble(trouble);
        self.end(status::refused(refusal))
    }

    /// BigQuery's side failed. A client reads on where it was, and is judged anew then.
    fn broke_off(&mut self) -> Frame<Bytes> {
        let what = "the answer from BigQuery broke off";
        self.finish.trouble(what);
        let refusal = Refusal::new(Code::UpstreamFailed, what);
        self.end(status::ended(status::UNAVAILABLE, &refusal.message()))
    }

    fn ended_by_itself(&mut self, trailers: &HeaderMap) -> Frame<Bytes> {
        let passed = end_with(&mut self.finish, trailers, self.most);
        self.end(passed)
    }

    /// What comes next, or nothing yet.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Asking(asking) => match std::task::ready!(asking.as_mut().poll(context)) {
                    Ok(finish) => {
                        self.most = finish.passed_on_max();
                        self.finish = finish;
                        self.state = State::Open;
                    }
                    Err(refusal) => return Poll::Ready(Some(self.end(status::refused(&refusal)))),
                },
                State::Open => {}
            }
            if let Some(part) = self.part() {
                return Poll::Ready(Some(Frame::data(part)));
            }
            if !self.came.is_empty() {
                // All that was held for it is passed on.
                self.finish.complete();
                self.state = State::Asking(self.reader.ask());
                continue;
            }
            match std::task::ready!(Pin::new(&mut self.rest).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.came = data,
                    Err(other) => {
                        let trailers = other.into_trailers().unwrap_or_default();
                        return Poll::Ready(Some(self.ended_by_itself(&trailers)));
                    }
                },
                Some(Err(_)) | None => return Poll::Ready(Some(self.broke_off())),
            }
        }
    }
}

/// The status with which BigQuery's answer ended, as it is passed on and counted.
pub(super) fn end_with(finish: &mut Finish, trailers: &HeaderMap, most: Option<u64>) -> HeaderMap {
    let (passed, bytes) = status::passed(trailers, most.unwrap_or(u64::MAX));
    finish.sent(bytes);
    note_status(finish, trailers);
    passed
}

/// Says how BigQuery's answer ended.
fn note_status(finish: &mut Finish, trailers: &HeaderMap) {
    let status = trailers.get(status::STATUS);
    let status = status.and_then(|status| status.to_str().ok()?.parse::<u8>().ok());
    match status {
        Some(0) => finish.complete(),
        Some(status) => finish.trouble(&format!("BigQuery answered with gRPC status {status}")),
        None => finish.trouble("BigQuery's answer ended without a gRPC status"),
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        // The close first: not one more byte after it, however fast they come.
        if !this.is_end_stream() && this.closed.as_mut().poll(context).is_ready() {
            let refusal = window_closed(&this.reader.window);
            let cut = this.cut("cut: the window closed", &refusal);
            return Poll::Ready(Some(Ok(cut)));
        }
        this.poll_next(context).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}
