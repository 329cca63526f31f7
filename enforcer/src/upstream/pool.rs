//! Kept-alive connections, by identity and origin. A connection is never lent across keys, and forgetting a key cuts
//! everything it has: idle connections, requests under way and streams. One that is sealed sends nothing more, and keeps only the connections
//! on which an answer may still come. How many are kept is bounded, all keys together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::flow::{Flow, Progress, Sent};
use super::line::{Line, Ticket};
use super::{Body, Origin, Until, UpstreamError};
use crate::causes::Causes;

/// Connections one key may have open to all origins together.
const CONNECTIONS_PER_KEY_MAX: usize = 64;
/// Idle HTTP/1.1 connections kept for one key and origin.
const IDLE_PER_ORIGIN_MAX: usize = 8;

/// Every key's connections.
#[derive(Debug, Default)]
pub(super) struct Pool {
    keys: Mutex<BTreeMap<u64, Arc<Key>>>,
    /// Taken last: whoever holds it takes no other lock.
    line: Arc<Mutex<Line<Where>>>,
}

/// Where a connection is kept.
type Where = (Weak<Key>, Origin);

/// Whose connections they are.
#[derive(Debug)]
pub(super) struct Key {
    /// Everything is cut.
    stop: CancellationToken,
    /// Nothing more is sent.
    sealed: CancellationToken,
    /// When the kernel is to see to that.
    closes_boot_ns: Option<u64>,
    /// Every connection's way out, as long as it stands.
    flows: Mutex<Vec<Weak<Flow>>>,
    /// The requests that wait for the head of their answer.
    waiting: AtomicUsize,
    permits: Arc<Semaphore>,
    origins: Mutex<BTreeMap<Origin, Kept>>,
    line: Arc<Mutex<Line<Where>>>,
}

#[derive(Debug, Default)]
struct Kept {
    h1: Vec<(Ticket, http1::SendRequest<Body>, Weak<Flow>)>,
    h2: Option<(Ticket, http2::SendRequest<Body>, Weak<Flow>)>,
}

/// Leave to open one connection; given back when the connection ends.
#[derive(Debug)]
pub(super) struct Place {
    key: Arc<Key>,
    origin: Origin,
    permit: OwnedSemaphorePermit,
}

/// A connection ready for one request.
#[derive(Debug)]
pub(super) enum Connection {
    H1 {
        sender: http1::SendRequest<Body>,
        home: Home,
        flow: Weak<Flow>,
    },
    H2 {
        sender: http2::SendRequest<Body>,
        flow: Weak<Flow>,
    },
}

/// Where a connection goes back to after its exchange.
#[derive(Debug, Clone)]
pub(super) struct Home {
    key: Arc<Key>,
    origin: Origin,
}

/// A request without an answer.
pub(super) enum Unsent {
    /// Not one byte of it was sent: here it is again.
    Back(Box<Request<Body>>),
    /// It may have arrived.
    Lost(hyper::Error),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The key of this number; a new one is sealed when `until` says, if there is one.
    pub(super) fn key(&self, key: u64, until: impl FnOnce() -> Option<Until>) -> Arc<Key> {
        let mut keys = locked(&self.keys);
        if let Some(key) = keys.get(&key) {
            return Arc::clone(key);
        }
        let until = until();
        let closes_boot_ns = until.as_ref().map(|until| until.closes_boot_ns);
        let fresh = Key::fresh(Arc::clone(&self.line), closes_boot_ns);
        keys.insert(key, Arc::clone(&fresh));
        drop(keys);
        if let Some(until) = until {
            let key = Arc::clone(&fresh);
            tokio::spawn(async move {
                if key.stop.run_until_cancelled(until.ended).await.is_some() {
                    key.seal();
                }
            });
        }
        fresh
    }

    /// A kept connection of this key, if one is alive.
    pub(super) fn kept(&self, key: &Arc<Key>, origin: &Origin) -> Option<Connection> {
        let mut origins = locked(&key.origins);
        let kept = origins.get_mut(origin)?;
        if let Some((ticket, sender, flow)) = kept.h2.take() {
            locked(&self.line).leave(ticket);
            if !sender.is_closed() && flow.strong_count() > 0 {
                let (ticket, oldest) =
                    locked(&self.line).join((Arc::downgrade(key), origin.clone()));
                kept.h2 = Some((ticket, sender.clone(), flow.clone()));
                drop(origins);
                let_go(oldest);
                return Some(Connection::H2 { sender, flow });
            }
        }
        let next = || {
            let (ticket, sender, flow) = kept.h1.pop()?;
            locked(&self.line).leave(ticket);
            Some((sender, flow))
        };
        let (sender, flow) = std::iter::from_fn(next).find(|(sender, _)| sender.is_ready())?;
        drop(origins);
        let home = Home {
            key: Arc::clone(key),
            origin: origin.clone(),
        };
        Some(Connection::H1 { sender, home, flow })
    }

    /// Waits for leave to open another connection.
    pub(super) async fn place(
        &self,
        key: &Arc<Key>,
        origin: &Origin,
        limit: Duration,
    ) -> Result<Place, UpstreamError> {
        let waiting = Arc::clone(&key.permits).acquire_owned();
        // The semaphore is never closed, so the only other outcome is the time running out.
        match tokio::time::timeout(limit, waiting).await {
            Ok(Ok(permit)) => Ok(Place {
                key: Arc::clone(key),
                origin: origin.clone(),
                permit,
            }),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy {
                host: origin.host.clone(),
            }),
        }
    }

    pub(super) fn forget(&self, key: u64) {
        if let Some(key) = locked(&self.keys).remove(&key) {
            key.seal();
            key.stop.cancel();
            // HTTP/2's library would see what is under way to its end first.
            locked(&key.flows)
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|flow| flow.cut());
        }
    }

    /// Whether a request of this key waits for the head of its answer.
    pub(super) fn waits(&self, key: u64) -> bool {
        let key = locked(&self.keys).get(&key).cloned();
        key.is_some_and(|key| key.waiting.load(Ordering::Acquire) > 0)
    }

    pub(super) fn open(&self) -> usize {
        let keys = locked(&self.keys);
        let open = |key: &Arc<Key>| {
            CONNECTIONS_PER_KEY_MAX.saturating_sub(key.permits.available_permits())
        };
        keys.values().map(open).sum()
    }
}

impl Key {
    fn fresh(line: Arc<Mutex<Line<Where>>>, closes_boot_ns: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            stop: CancellationToken::new(),
            sealed: CancellationToken::new(),
            closes_boot_ns,
            flows: Mutex::default(),
            waiting: AtomicUsize::new(0),
            permits: Arc::new(Semaphore::new(CONNECTIONS_PER_KEY_MAX)),
            origins: Mutex::default(),
            line,
        })
    }

    /// Sends nothing more: idle connections go, those with something unsent are reset, and the others wait for their answers.
    fn seal(&self) {
        // Under this lock: a connection that is being made meanwhile is found here, or finds the key sealed.
        let flows = {
            let flows = locked(&self.flows);
            self.sealed.cancel();
            flows.clone()
        };
        flows
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|flow| flow.seal());
        let origins = std::mem::take(&mut *locked(&self.origins));
        let mut line = locked(&self.line);
        for kept in origins.values() {
            kept.h1.iter().for_each(|(ticket, ..)| line.leave(*ticket));
            kept.h2.iter().for_each(|(ticket, ..)| line.leave(*ticket));
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.is_cancelled()
    }

    /// Waits for what comes of a request: to its end where all of it has gone when the key is sealed, and no longer otherwise.
    pub(super) async fn until_sealed<T>(
        &self,
        progress: &Progress,
        mut exchange: impl Future<Output = T> + Unpin,
    ) -> Option<T> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waits = Waits(&self.waiting);
        tokio::select! {
            biased;
            done = &mut exchange => return Some(done),
            () = self.sealed.cancelled() => {}
        }
        match progress.end() {
            Sent::Whole => Some(exchange.await),
            Sent::Nothing | Sent::Part | Sent::Unacknowledged => None,
        }
    }

    /// Keeps a connection to `origin` for later, as `keep` says, unless this key is forgotten.
    fn keep(self: &Arc<Self>, origin: Origin, keep: impl FnOnce(Ticket, &mut Kept)) {
        let mut origins = locked(&self.origins);
        if self.is_sealed() {
            return;
        }
        let (ticket, oldest) = locked(&self.line).join((Arc::downgrade(self), origin.clone()));
        let kept = origins.entry(origin).or_default();
        kept.h1.retain(|(ticket, idle, _)| {
            if idle.is_closed() {
                locked(&self.line).leave(*ticket);
            }
            !idle.is_closed()
        });
        keep(ticket, kept);
        drop(origins);
        let_go(oldest);
    }
}

/// Counts a request that waits, as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Place {
    /// Cancelled when the key is sealed or forgotten.
    pub(super) fn sealed(&self) -> CancellationToken {
        self.key.sealed.clone()
    }

    /// When the connection is to fall silent, on the boot-time clock, nanoseconds.
    pub(super) fn closes_boot_ns(&self) -> Option<u64> {
        self.key.closes_boot_ns
    }

    /// Seals the connection with the key.
    pub(super) fn adopt(&self, flow: &Weak<Flow>) {
        let mut flows = locked(&self.key.flows);
        flows.retain(|flow| flow.strong_count() > 0);
        flows.push(flow.clone());
        if self.key.is_sealed()
            && let Some(flow) = flow.upgrade()
        {
            flow.seal();
        }
    }

    /// Drives an HTTP/1.1 connection until it ends or the key is forgotten.
    pub(super) fn keep_h1<T>(
        self,
        sender: http1::SendRequest<Body>,
        driver: http1::Connection<T, Body>,
        flow: Weak<Flow>,
    ) -> Connection
    where
        T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let Self {
            key,
            origin,
            permit,
        } = self;
        drive(key.stop.clone(), permit, driver);
        Connection::H1 {
            sender,
            home: Home { key, origin },
            flow,
        }
    }

    /// Drives an HTTP/2 connection until it ends or the key is forgotten; it is shared by the key's requests at once.
    pub(super) fn keep_h2<T>(
        self,
        sender: http2::SendRequest<Body>,
        driver: http2::Connection<T, Body, hyper_util::rt::TokioExecutor>,
        flow: Weak<Flow>,
    ) -> Connection
    where
        T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let Self {
            key,
            origin,
            permit,
        } = self;
        drive(key.stop.clone(), permit, driver);
        key.keep(origin, |ticket, kept| {
            let now = (ticket, sender.clone(), flow.clone());
            if let Some((before, ..)) = kept.h2.replace(now) {
                locked(&key.line).leave(before);
            }
        });
        Connection::H2 { sender, flow }
    }
}

/// Lets a kept connection go. What is asked over it ends first.
fn let_go(oldest: Option<(Ticket, Where)>) {
    let Some((ticket, (key, origin))) = oldest else {
        return;
    };
    let Some(key) = key.upgrade() else {
        return;
    };
    if let Some(kept) = locked(&key.origins).get_mut(&origin) {
        kept.h1.retain(|(held, ..)| *held != ticket);
        kept.h2.take_if(|(held, ..)| *held == ticket);
    }
}

fn drive(
    stop: CancellationToken,
    permit: OwnedSemaphorePermit,
    driver: impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
) {
    tokio::spawn(async move {
        // Cancelled first: dropping the driver is what cuts the streams.
        if let Some(Err(error)) = stop.run_until_cancelled(driver).await {
            tracing::debug!(error = %Causes(&error), "an upstream connection ended");
        }
        drop(permit);
    });
}

impl Connection {
    /// One request and the head of its answer.
    pub(super) async fn exchange(
        self,
        request: Request<Body>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, Unsent> {
        let (Self::H1 { flow, .. } | Self::H2 { flow, .. }) = &self;
        let Some(flow) = flow.upgrade() else {
            return Err(Unsent::Back(Box::new(request)));
        };
        let request = request.map(|body| flow.begin(progress, body));
        // The connection's own alone: its socket is closed with it.
        drop(flow);
        match self {
            Self::H1 {
                mut sender,
                home,
                flow,
            } => {
                let response = sender.try_send_request(request).await.map_err(unsent)?;
                home.welcome_when_ready(sender, flow);
                Ok(response)
            }
            Self::H2 { mut sender, .. } => sender.try_send_request(request).await.map_err(unsent),
        }
    }
}

fn unsent(mut error: hyper::client::conn::TrySendError<Request<Body>>) -> Unsent {
    match error.take_message() {
        Some(request) => Unsent::Back(Box::new(request)),
        None => Unsent::Lost(error.into_error()),
    }
}

impl Home {
    /// Takes the connection back once the response's body has been read to its end; one that is given up ends by itself.
    fn welcome_when_ready(self, mut sender: http1::SendRequest<Body>, flow: Weak<Flow>) {
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            if let Some(flow) = flow.upgrade() {
                flow.is_free();
            }
            let Self { key, origin } = self;
            key.keep(origin, |ticket, kept| {
                if kept.h1.len() < IDLE_PER_ORIGIN_MAX {
                    kept.h1.push((ticket, sender, flow));
                } else {
                    locked(&key.line).leave(ticket);
                }
            });
        });
    }
}
