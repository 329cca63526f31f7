//! The proxy: what agents' redirected connections meet. Every request is judged anew; only an admitted and recorded one is forwarded.
//!
//! [`serve`] accepts, asks the kernel whose the connection is, and speaks TLS; [`request`] judges; [`forward`] is the only way upstream for
//! what an agent sent; [`cut`] ends what a closing window leaves open; [`closer`] cancels its jobs and drops its token.

pub mod authority;
pub mod closer;
mod coalesce;
pub mod cut;
pub mod forward;
mod hello;
pub mod quota;
pub mod request;
mod strict;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::{Code, Refusal};
use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::causes::Causes;
use crate::clock::Clock;
use crate::engine::{Engine, OpenWindow, Requester};
use crate::upstream::Upstream;
pub use coalesce::Coalesce;
use quota::Quota;
use strict::{HEAD_BYTES_MAX, Strict, Unreadable};
use tls::{TlsFront, TlsRefusal};

/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);
/// The most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;

/// Whose a connection is, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The agent.
    pub agent: AgentName,
    /// The process that connected.
    pub process: Process,
    /// Where it wanted to go.
    pub destination: SocketAddr,
}

/// Asks the kernel whose an accepted connection is. `None` refuses it.
pub trait OriginSource: Send + Sync {
    /// The origin of `stream`, which `peer` connected.
    fn origin(&self, stream: &TcpStream, peer: SocketAddr) -> Option<Peer>;
}

/// Tokens by window. They never leave the daemon.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// The `Authorization` to send in an open window; marked sensitive.
    ///
    /// # Errors
    /// [`Code::TokenUnavailable`].
    async fn for_query(&self, window: &OpenWindow) -> Result<HeaderValue, Refusal>;
    /// The same, to cancel jobs of a window that has closed: what is still held or, within the grace after the close, a token that is
    /// minted for this. It is never given out for a query.
    ///
    /// # Errors
    /// [`Code::TokenUnavailable`].
    async fn for_cancel(&self, window: &OpenWindow) -> Result<HeaderValue, Refusal>;
    /// From now on no query of this window gets a token, whatever is held or under way; what is held stays for cancelling.
    fn close(&self, window: &OpenWindow);
    /// Drops and wipes whatever is held for a grant.
    async fn forget(&self, grant: GrantId);
}

/// What the proxy is made of.
pub struct Proxy {
    /// This host's name, for job labels.
    pub host: String,
    /// Decides and records.
    pub engine: Engine,
    /// Knows whose a connection is.
    pub origins: Arc<dyn OriginSource>,
    /// Speaks TLS to agents.
    pub tls: TlsFront,
    /// Speaks TLS to Google.
    pub upstream: Arc<Upstream>,
    /// Has the tokens.
    pub tokens: Arc<dyn Tokens>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Connections that never became a request, by who and why.
    pub refused: Arc<Coalesce>,
    /// What each agent may have at once.
    pub quota: Quota,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// One agent connection.
#[derive(Debug)]
pub struct Session {
    /// Who.
    pub requester: Requester,
    /// The protected name that TLS agreed on.
    pub name: String,
    /// Ends the whole connection at once: a window closed while an answer was being sent over it.
    pub cut: CancellationToken,
    /// Why it is not read on, where it is not.
    unreadable: Unreadable,
}

/// Serves one listener until `stop`.
pub async fn serve(proxy: Arc<Proxy>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let next = async {
            let place = proxy.quota.connection().await;
            Ok::<_, io::Error>((place, listener.accept().await?))
        };
        match stop.run_until_cancelled(next).await {
            None => return,
            Some(Ok((place, (stream, peer)))) => {
                let proxy = Arc::clone(&proxy);
                tokio::spawn(async move {
                    proxy.connection(stream, peer).await;
                    drop(place);
                });
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Proxy {
    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let Some(peer) = self.origins.origin(&stream, from) else {
            let what = format!("A connection from {from} was not led here by the kernel");
            self.refuse(None, Refusal::new(Code::CallerUnknown, what));
            return reset(&stream);
        };
        let _place = match self.quota.connection_of(&peer.agent) {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse(Some(&peer), refusal);
                return reset(&stream);
            }
        };
        // A second handle on the socket, to reset it while the first is deep inside TLS and HTTP.
        let socket = stream.as_fd().try_clone_to_owned();
        let accepted = match tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(refusal)) => return self.refuse(Some(&peer), tls_refusal(&refusal)),
            Err(_) => {
                let what = format!(
                    "The TLS handshake took longer than {} s",
                    HANDSHAKE.as_secs()
                );
                return self.refuse(Some(&peer), Refusal::new(Code::RequestMalformed, what));
            }
        };
        let requester = Requester {
            agent: peer.agent,
            session: self.engine.begin_session(),
            process: peer.process,
        };
        let session = Arc::new(Session {
            requester,
            name: accepted.name,
            cut: CancellationToken::new(),
            unreadable: Unreadable::default(),
        });
        let service = hyper::service::service_fn(|request| {
            let (proxy, session) = (Arc::clone(&self), Arc::clone(&session));
            async move {
                Ok::<_, std::convert::Infallible>(request::answer(&proxy, &session, request).await)
            }
        });
        // TLS has agreed on the protocol: nothing is guessed from the first bytes, for which no clock would run.
        let served = async {
            if accepted.h2 {
                let stream = TokioIo::new(accepted.stream);
                http2().serve_connection(stream, service).await
            } else {
                let stream = Strict::new(accepted.stream, session.unreadable.clone());
                http1()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            }
        };
        tokio::select! {
            biased;
            // What the kernel still holds for the client is thrown away too, however slowly it reads.
            () = session.cut.cancelled() => {
                if let Ok(socket) = &socket {
                    reset(socket);
                }
            }
            served = served => {
                if let Err(error) = served {
                    self.malformed(&session, &error);
                }
            }
        }
    }

    /// A connection that ended because what came over it is not HTTP is recorded; one that was cut or closed is not news.
    fn malformed(&self, session: &Session, error: &hyper::Error) {
        if error.is_parse() || error.is_parse_too_large() || breaks_http2(error) {
            let Requester { agent, process, .. } = session.requester.clone();
            let refusal = Refusal::new(
                Code::RequestMalformed,
                format!(
                    "What came over the connection is not HTTP: {}",
                    Causes(error)
                ),
            );
            self.refused.add(Some(agent), Some(process), refusal);
        } else {
            tracing::debug!(error = %Causes(error), "a session ended");
        }
    }

    fn refuse(&self, peer: Option<&Peer>, refusal: Refusal) {
        self.refused.add(
            peer.map(|peer| peer.agent.clone()),
            peer.map(|peer| peer.process.clone()),
            refusal,
        );
    }
}

/// Whether the client broke the rules of HTTP/2, which its library answers by itself with the end of the connection.
fn breaks_http2(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(<dyn std::error::Error>::downcast_ref);
    source.is_some_and(|error: &h2::Error| error.is_library())
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HEAD)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}

fn tls_refusal(refusal: &TlsRefusal) -> Refusal {
    Refusal::new(Code::HostMismatch, Causes(refusal).to_string())
}

/// Closes without a farewell: what was not led here gets not one byte.
fn reset(stream: &impl AsFd) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed and not reset");
    }
}
