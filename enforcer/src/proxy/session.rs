//! One agent's connection once TLS is agreed on: HTTP over it, each request answered by itself, and cut when a window says so.

use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::refusal::{Code, Refusal};
use futures_util::TryFutureExt;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::parked::Counting;
use super::resets::Resets;
use super::strict::{HEAD_BYTES_MAX, Strict, Unreadable};
use super::tls::Accepted;
use super::{Proxy, allowed, parked, request, reset};
use crate::causes::Causes;
use crate::engine::Requester;
use crate::shared::Shared;

/// How often an HTTP/2 connection is asked whether its client is still there, and how long the answer may take; then it ends.
const PING: Duration = Duration::from_secs(30);
/// The most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;

/// Whose requests a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    /// BigQuery's: each is judged.
    BigQuery,
    /// Another name's, which the agent is allowed.
    Allowed,
}

/// One agent connection.
#[derive(Debug)]
pub struct Session {
    /// Who.
    pub requester: Requester,
    /// The name that TLS agreed on.
    pub name: String,
    /// Ends the whole connection at once: a window closed while an answer was being sent over it.
    pub cut: CancellationToken,
    /// Why nothing of what it asks is done, whatever that is.
    pub(super) barred: Option<Refusal>,
    /// Why it is not read on, where it is not.
    pub(super) unreadable: Unreadable,
}

impl Proxy {
    /// Answers what comes over one connection until it ends, is cut, or its network namespace is `gone`; `socket` is held besides.
    pub(super) async fn session<S>(
        self: Arc<Self>,
        accepted: Accepted<S>,
        serves: Serves,
        requester: Requester,
        barred: Option<Refusal>,
        (socket, gone): (&Shared, &CancellationToken),
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Accepted {
            stream, name, h2, ..
        } = accepted;
        let session = Arc::new(Session {
            requester,
            name,
            cut: CancellationToken::new(),
            barred,
            unreadable: Unreadable::default(),
        });
        let service = |request| {
            let (proxy, session) = (Arc::clone(&self), Arc::clone(&session));
            // In a place of its own, which goes with the request: the HTTP library keeps room for one as long as the connection lives.
            Box::pin(async move {
                Ok::<_, std::convert::Infallible>(match serves {
                    Serves::BigQuery => request::answer(&proxy, &session, request).await,
                    Serves::Allowed => allowed::answer(&proxy, &session, request).await,
                })
            })
        };
        // TLS has agreed on the protocol: nothing is guessed from the first bytes, for which no clock would run.
        let served = async {
            if h2 {
                let stream = Resets::new(stream, || self.was_reset(&session));
                let service = hyper::service::service_fn(service);
                http2()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            } else {
                let stream = Strict::new(stream, session.unreadable.clone());
                let exchanges = stream.exchanges().clone();
                let service = hyper::service::service_fn(move |request| {
                    let exchanges = exchanges.clone();
                    service(request).map_ok(move |answer| Counting::of(&exchanges, answer))
                });
                parked::serve(stream, service).await
            }
        };
        tokio::select! {
            biased;
            // What the kernel still holds for the client is thrown away too, however slowly it reads.
            () = session.cut.cancelled() => reset(socket),
            () = gone.cancelled() => reset(socket),
            served = served => {
                if let Err(error) = served {
                    self.malformed(&session, &error);
                }
            }
        }
        match serves {
            // Those of a window go with its token.
            Serves::BigQuery => {}
            Serves::Allowed => self.upstream.forget(allowed::pool_key(&session)),
        }
    }

    /// An HTTP/2 request that its library reset, since it broke the protocol's rules, is counted on record.
    fn was_reset(&self, session: &Session) {
        let Requester { agent, process, .. } = session.requester.clone();
        let what = "An HTTP/2 request broke the rules of the protocol and was reset";
        let refusal = Refusal::new(Code::RequestMalformed, what);
        self.refused.add(Some(agent), Some(process), refusal);
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
}

/// Whether the client broke the rules of HTTP/2, which its library answers by itself with the end of the connection.
fn breaks_http2(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(<dyn std::error::Error>::downcast_ref);
    source.is_some_and(|error: &h2::Error| error.is_library())
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}
