//! Kept-alive connections, by identity and origin. A connection is never lent across keys, and forgetting a key cuts
//! everything it has: idle connections, requests under way and streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Body, Origin, UpstreamError};
use crate::causes::Causes;

/// Connections one key may have open to all origins together.
const CONNECTIONS_PER_KEY_MAX: usize = 64;
/// Idle HTTP/1.1 connections kept for one key and origin.
const IDLE_PER_ORIGIN_MAX: usize = 8;

/// Every key's connections.
#[derive(Debug, Default)]
pub(super) struct Pool {
    keys: Mutex<BTreeMap<u64, Arc<Key>>>,
}

#[derive(Debug)]
struct Key {
    stop: CancellationToken,
    permits: Arc<Semaphore>,
    origins: Mutex<BTreeMap<Origin, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    h1: Vec<http1::SendRequest<Body>>,
    h2: Option<http2::SendRequest<Body>>,
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
    },
    H2 {
        sender: http2::SendRequest<Body>,
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
    /// A kept connection of this key, if one is alive.
    pub(super) fn kept(&self, key: u64, origin: &Origin) -> Option<Connection> {
        let key = locked(&self.keys).get(&key).cloned()?;
        let mut origins = locked(&key.origins);
        let kept = origins.get_mut(origin)?;
        if let Some(sender) = kept.h2.take_if(|sender| sender.is_closed()) {
            drop(sender);
        }
        if let Some(sender) = &kept.h2 {
            let sender = sender.clone();
            return Some(Connection::H2 { sender });
        }
        let sender = std::iter::from_fn(|| kept.h1.pop()).find(http1::SendRequest::is_ready)?;
        drop(origins);
        let home = Home {
            key,
            origin: origin.clone(),
        };
        Some(Connection::H1 { sender, home })
    }

    /// Waits for leave to open another connection.
    pub(super) async fn place(
        &self,
        key: u64,
        origin: &Origin,
        limit: Duration,
    ) -> Result<Place, UpstreamError> {
        let key = {
            let mut keys = locked(&self.keys);
            Arc::clone(keys.entry(key).or_insert_with(Key::fresh))
        };
        let waiting = Arc::clone(&key.permits).acquire_owned();
        // The semaphore is never closed, so the only other outcome is the time running out.
        match tokio::time::timeout(limit, waiting).await {
            Ok(Ok(permit)) => Ok(Place {
                key,
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
            key.stop.cancel();
            locked(&key.origins).clear();
        }
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
    fn fresh() -> Arc<Self> {
        Arc::new(Self {
            stop: CancellationToken::new(),
            permits: Arc::new(Semaphore::new(CONNECTIONS_PER_KEY_MAX)),
            origins: Mutex::default(),
        })
    }
}

impl Place {
    /// Cancelled when the key is forgotten.
    pub(super) fn stop(&self) -> CancellationToken {
        self.key.stop.clone()
    }

    /// Drives an HTTP/1.1 connection until it ends or the key is forgotten.
    pub(super) fn keep_h1<T>(
        self,
        sender: http1::SendRequest<Body>,
        driver: http1::Connection<T, Body>,
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
        }
    }

    /// Drives an HTTP/2 connection until it ends or the key is forgotten; it is shared by the key's requests at once.
    pub(super) fn keep_h2<T>(
        self,
        sender: http2::SendRequest<Body>,
        driver: http2::Connection<T, Body, hyper_util::rt::TokioExecutor>,
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
        let mut origins = locked(&key.origins);
        if !key.stop.is_cancelled() {
            origins.entry(origin).or_default().h2 = Some(sender.clone());
        }
        drop(origins);
        Connection::H2 { sender }
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
    ) -> Result<Response<Incoming>, Unsent> {
        match self {
            Self::H1 { mut sender, home } => {
                let response = sender.try_send_request(request).await.map_err(unsent)?;
                home.welcome_when_ready(sender);
                Ok(response)
            }
            Self::H2 { mut sender } => sender.try_send_request(request).await.map_err(unsent),
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
    fn welcome_when_ready(self, mut sender: http1::SendRequest<Body>) {
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let mut origins = locked(&self.key.origins);
            let kept = origins.entry(self.origin).or_default();
            kept.h1.retain(|idle| !idle.is_closed());
            if !self.key.stop.is_cancelled() && kept.h1.len() < IDLE_PER_ORIGIN_MAX {
                kept.h1.push(sender);
            }
        });
    }
}
