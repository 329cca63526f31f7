//! Stands in for the metadata server of Google's hosts, to which agents have no way: clients find it as they find the real one, and need no
//! configuration. What they get is a placeholder that no door of Google's knows, another one for each
//! window (`placeholder.rs`); the proxy drops it and puts a token in its place.
//!
//! Nothing here holds a credential or asks for one.

mod answer;
pub(crate) mod placeholder;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use enforcer_proto::refusal::{Code, Refusal};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Ended, Place};
use crate::callers::{Bounds, Caller, Callers, Places, of_agent};
use crate::clock::Clock;
use crate::config;
use crate::namespaces::Site;
use crate::pace::{Bucket, Pace};
use crate::proxy::{Came, Coalesce};

pub use placeholder::Placeholders;

/// What agents may have here. A client asks a few times when it starts.
pub const BOUNDS: Bounds = Bounds {
    connections: 1024,
    connections_per_agent: 64,
    connections_apart: 48,
    questions_per_agent: 16,
    pace: Pace {
        burst: 500,
        per_second: 50,
    },
};
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last in an agent's own network namespace.
const APART: Duration = Duration::from_secs(10);
/// The longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What it is made of.
pub struct Server {
    /// Knows who asks.
    pub callers: Arc<dyn Callers>,
    /// What it says of the project.
    pub config: config::Metadata,
    /// What it gives for a token.
    pub placeholders: Placeholders,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What each agent may have at once.
    pub places: Places,
    /// What was past that.
    pub refused: Arc<Coalesce>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Where one listener is.
struct Here {
    site: Site,
    /// How fast may be asked there, where it cannot be told whose each question is.
    pace: Mutex<Bucket>,
}

/// Serves one listener until `stop`, or as long as it listens.
pub async fn serve(
    server: Arc<Server>,
    (listener, unknown): (TcpListener, Arc<Semaphore>),
    site: Site,
    stop: CancellationToken,
) -> Ended {
    let pace = Mutex::new(Bucket::new(BOUNDS.pace));
    let here = Arc::new(Here { site, pace });
    let serve = |stream, from, place| {
        let (server, stop, here) = (Arc::clone(&server), stop.clone(), Arc::clone(&here));
        async move {
            let connection = server.connection(stream, (from, place), &here);
            stop.run_until_cancelled(connection).await;
        }
    };
    accept::each(
        (listener, unknown),
        stop.clone(),
        || server.places.connection(),
        serve,
    )
    .await
}

impl Server {
    async fn connection(&self, stream: TcpStream, (from, place): (SocketAddr, Place), here: &Here) {
        let (peer, caller) = match of_agent(self.callers.as_ref(), &stream, from).await {
            Ok(of_agent) => of_agent,
            Err(process) => return self.refused.add_unknown(from, &here.site, process),
        };
        let _among_all = place.known();
        let Some(_of_agent) = self.places.connection_of(&caller.agent, peer.apart()) else {
            return self.too_many(&caller);
        };
        if peer.is_apart {
            // Others there may hold it in the agent's name, and ask: it does not last, and those of one namespace are fewer than the agent has.
            let served = self.answers(stream, &caller, || self.is_in_pace(here));
            let _ = tokio::time::timeout(APART, served).await;
            return;
        }
        let in_pace = || {
            let now = self.clock.now().boot_ns;
            let place = self.places.question_of(&caller.agent, now);
            if place.is_none() {
                self.too_many(&caller);
            }
            place.is_some()
        };
        self.answers(stream, &caller, in_pace).await;
    }

    /// Answers each question that comes by a connection, where that is in pace.
    async fn answers(&self, stream: TcpStream, caller: &Caller, is_in_pace: impl Fn() -> bool) {
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let reply = if is_in_pace() {
                let token = || self.placeholders.of(&caller.agent);
                answer::answer(&self.config, &caller.agent, token, &request)
            } else {
                answer::Reply::too_many()
            };
            std::future::ready(Ok::<Response<Full<Bytes>>, Infallible>(
                reply.into_response(),
            ))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the metadata server's stand-in ended");
        }
    }

    fn is_in_pace(&self, here: &Here) -> bool {
        let now = self.clock.now().boot_ns;
        let mut pace = here.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in_pace = pace.take(1, now);
        drop(pace);
        if !is_in_pace {
            let what = format!("The metadata server is asked too much{}", here.site);
            let refusal = Refusal::new(Code::Overloaded, what);
            self.refused
                .add_nobodys(Came::Connection, &here.site, refusal);
        }
        is_in_pace
    }

    fn too_many(&self, caller: &Caller) {
        let what = format!("Agent {} asks the metadata server too much", caller.agent);
        let refusal = Refusal::new(Code::Overloaded, what);
        let (agent, process) = (caller.agent.clone(), caller.process.clone());
        self.refused.add(Some(agent), Some(process), refusal);
    }
}
