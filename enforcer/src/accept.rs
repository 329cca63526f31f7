//! Takes connections from a listener: each only once there is a place for it, so that those there is no room for wait with the kernel. A listener to
//! which nobody comes holds no place. One that listens no more is told from one that has no file descriptors to give: whoever has CAP_NET_ADMIN over its
//! network namespace can end it.
#![expect(
    unsafe_code,
    reason = "waiting for a listener without taking from it has no safe binding"
)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::socket_acceptconn;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long nothing is taken after the kernel gave none: it may have no file descriptors to give.
const PAUSE: Duration = Duration::from_millis(20);
/// How many connections with one service may be under way in a network namespace of which it is not known whose they are. Whoever may make packets there makes
/// any number, and does not take everybody's places by them.
const UNKNOWN_MAX: usize = 16;
/// How often it is said at most that connections could not be accepted, of all listeners together: agents may bring that about on many.
const SAID_EVERY: Duration = Duration::from_secs(10);

static FAILURES: Mutex<Failures> = Mutex::new(Failures {
    said: None,
    unsaid: 0,
});

/// Why no more is taken from a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// As it was told to.
    Stopped,
    /// It listens no more, and nobody here has ended it.
    Dead,
}

/// A connection's place.
#[derive(Debug)]
pub struct Place {
    among_all: OwnedSemaphorePermit,
    /// Among those of its namespace of which it is not known whose they are.
    _unknown: OwnedSemaphorePermit,
}

impl Place {
    /// It is known now whose it is.
    pub fn known(self) -> OwnedSemaphorePermit {
        self.among_all
    }
}

/// Connections that could not be accepted.
#[derive(Debug)]
struct Failures {
    /// When one was said last.
    said: Option<Instant>,
    /// How many were not said since.
    unsaid: u64,
}

impl Failures {
    /// One more. How many came before it that were not said, where this one is to be.
    fn come(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now < said + SAID_EVERY) {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// What came of waiting for a connection.
enum Next {
    Taken(Place, TcpStream, SocketAddr),
    /// Whoever came has gone again.
    Gone,
    Dead,
}

/// Places for those of which it is not known whose they are, for the listeners of one service in a network namespace.
#[must_use]
pub fn unknown() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(UNKNOWN_MAX))
}

/// Gives each connection of `listener`, which does not block, with its place, to `serve`, in a task of its own, until `stop` or as long as it listens.
pub async fn each<P, S>(
    (listener, unknown): (TcpListener, Arc<Semaphore>),
    stop: CancellationToken,
    place: impl Fn() -> P + Send,
    serve: impl Fn(TcpStream, SocketAddr, Place) -> S + Send,
) -> Ended
where
    P: Future<Output = OwnedSemaphorePermit> + Send,
    S: Future<Output = ()> + Send + 'static,
{
    // SAFETY: the listener owns its descriptor, gives the same one always, and lives as long as what is registered.
    let registered = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    let listener = match registered {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be waited for");
            return Ended::Dead;
        }
    };
    loop {
        let next = async {
            let mut comes = listener.readable().await?;
            // Told at once, also while there is no place for whoever comes.
            if !socket_acceptconn(listener.get_ref())? {
                return Ok(Next::Dead);
            }
            let unknown = Arc::clone(&unknown).acquire_owned().await;
            let place = Place {
                _unknown: unknown.expect("the semaphore is never closed"),
                among_all: place().await,
            };
            let taken = comes.try_io(|listener| listener.get_ref().accept());
            // The place is given back.
            let Ok(taken) = taken else {
                return Ok(Next::Gone);
            };
            let (stream, peer) = match taken {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Next::Dead),
                taken => taken?,
            };
            stream.set_nonblocking(true)?;
            Ok::<_, io::Error>(Next::Taken(place, TcpStream::from_std(stream)?, peer))
        };
        match stop.run_until_cancelled(next).await {
            None => return Ended::Stopped,
            Some(Ok(Next::Dead)) => return Ended::Dead,
            Some(Ok(Next::Taken(place, stream, peer))) => {
                tokio::spawn(serve(stream, peer, place));
            }
            Some(Ok(Next::Gone)) => {}
            Some(Err(error)) => {
                say(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn say(error: &io::Error) {
    let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(others) = failures.come(Instant::now()) {
        tracing::warn!(%error, others, "a connection could not be accepted");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.set_nonblocking(true).expect("sets it");
        let to = listener.local_addr().expect("an address");
        (listener, to)
    }

    #[tokio::test]
    async fn listeners_to_which_nobody_comes_leave_the_only_place_to_who_comes() {
        let only = Arc::new(Semaphore::new(1));
        let (to, mut came) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut addresses = Vec::new();
        for _ in 0..100 {
            let (listener, address) = listening();
            addresses.push(address);
            let (only, to, stop) = (Arc::clone(&only), to.clone(), stop.clone());
            tokio::spawn(async move {
                let place = || async { Arc::clone(&only).acquire_owned().await.expect("open") };
                let serve = |stream, _, place| {
                    let _ = to.send(());
                    async move { drop((stream, place)) }
                };
                let _ = each((listener, unknown()), stop, place, serve).await;
            });
        }
        for address in addresses.iter().rev().take(3) {
            let _client = TcpStream::connect(address).await.expect("connects");
            came.recv().await.expect("is served");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn whoever_makes_connections_that_are_nobodys_takes_few_of_everybodys_places() {
        let all = Arc::new(Semaphore::new(10 * UNKNOWN_MAX));
        let (listener, to) = listening();
        let (held, mut holds) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn({
            let all = Arc::clone(&all);
            async move {
                let place = || async { Arc::clone(&all).acquire_owned().await.expect("open") };
                let serve = |stream, _, place| {
                    let _ = held.send((stream, place));
                    std::future::ready(())
                };
                each(
                    (listener, unknown()),
                    CancellationToken::new(),
                    place,
                    serve,
                )
                .await
            }
        });
        let mut clients = Vec::new();
        for _ in 0..3 * UNKNOWN_MAX {
            clients.push(TcpStream::connect(to).await.expect("connects"));
        }
        let mut unknown = Vec::new();
        for _ in 0..UNKNOWN_MAX {
            unknown.push(holds.recv().await.expect("is taken"));
        }
        assert!(holds.is_empty());
        // Who is known makes room for one that is not, and keeps its place.
        let known = unknown.pop().map(|(stream, place)| (stream, place.known()));
        let _next = holds.recv().await.expect("is taken");
        assert_eq!(all.available_permits(), 9 * UNKNOWN_MAX - 1);
        drop(known);
    }

    /// How waiting ends for a listener that somebody ends, before it is waited for or while it is.
    async fn ended(is_waited_for: bool) -> Ended {
        let (listener, to) = listening();
        let other = listener.try_clone().expect("clones");
        let end = || rustix::net::shutdown(&other, rustix::net::Shutdown::Both).expect("ends it");
        if !is_waited_for {
            end();
        }
        let places = Arc::new(Semaphore::new(1));
        let (served, mut serves) = tokio::sync::mpsc::unbounded_channel();
        let waits = tokio::spawn(async move {
            let place = || async { Arc::clone(&places).acquire_owned().await.expect("open") };
            let serve = |_, _, _| {
                let _ = served.send(());
                std::future::ready(())
            };
            each(
                (listener, unknown()),
                CancellationToken::new(),
                place,
                serve,
            )
            .await
        });
        if is_waited_for {
            let _client = TcpStream::connect(to).await.expect("connects");
            serves.recv().await.expect("is served");
            end();
        }
        waits.await.expect("ends")
    }

    #[tokio::test]
    async fn a_listener_that_listens_no_more_is_waited_for_no_more_and_said_to_be_dead() {
        assert_eq!(ended(true).await, Ended::Dead);
        assert_eq!(ended(false).await, Ended::Dead);
    }

    #[test]
    fn what_fails_again_and_again_is_said_at_once_and_then_every_few_seconds_with_how_often() {
        let mut failures = Failures {
            said: None,
            unsaid: 0,
        };
        let began = Instant::now();
        let mut said = Vec::new();
        for ms in (0..25_000).step_by(20) {
            said.extend(failures.come(began + Duration::from_millis(ms)));
        }
        assert_eq!(said, [0, 499, 499]);
    }
}
