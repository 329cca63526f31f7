//! Verified TLS to Google: HTTP/1.1 and HTTP/2 over connections that belong to one identity each. Addresses come from our
//! own look-ups. It follows no redirect, adds no header but `Host`, and its errors name the operation and the host, never a header.

mod dial;
mod flow;
mod frames;
mod line;
mod pool;
#[cfg(test)]
pub(crate) mod tests;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use rustls::ClientConfig;

use crate::dns::{Lookup, NamesError};
use dial::Dialer;
pub use dial::verified_tls;
pub use flow::{Progress, Sent};
pub use line::KEPT_MAX;
use pool::{Connection, Key, Pool, Unsent};

/// A request's body: whole ([`full`]) or streamed.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// The port when the address names none.
const HTTPS: u16 = 443;
/// Headers that concern one connection only; they never cross to another.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the client needs to know.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// Whom to trust.
    pub tls: ClientConfig,
    /// The bound on look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Where addresses come from.
    pub resolver: Arc<dyn Lookup>,
    /// Who holds connections to their deadlines, whatever becomes of this process.
    pub deadlines: Option<Arc<dyn Deadlines>>,
}

/// Holds connections to their deadlines: the kernel does.
pub trait Deadlines: std::fmt::Debug + Send + Sync {
    /// From `boot_ns` on, on the boot-time clock, nothing more is said on this connection, also nothing that was written to it before.
    ///
    /// # Errors
    /// When that cannot be arranged; then nothing may be written to it.
    fn set(&self, socket: BorrowedFd<'_>, boot_ns: u64) -> std::io::Result<()>;
}

/// Until when a key's connections say anything.
pub struct Until {
    /// On the boot-time clock, nanoseconds.
    pub closes_boot_ns: u64,
    /// Is over when that is, or what else ends it first.
    pub ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Until")
            .field("closes_boot_ns", &self.closes_boot_ns)
            .finish_non_exhaustive()
    }
}

/// A request that got no answer. `host` is what was to be reached.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The file of extra roots cannot be used.
    #[error(
        "the extra roots in {path} cannot be used: {why}. [upstream] ca_file must name a PEM file with certificates"
    )]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Neither the system nor the file gave one root.
    #[error(
        "no trusted root certificate was found: install ca-certificates, or name a file under [upstream] ca_file"
    )]
    NoRoots,
    /// The TLS settings contradict each other.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The address is not `https://host…`.
    #[error("not an https address with a host")]
    NotHttps,
    /// The name was not answered.
    #[error("looking up {host} failed")]
    Names {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: NamesError,
    },
    /// The name has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// No address accepted a TCP connection.
    #[error("connecting to {host} failed")]
    Connect {
        /// The host.
        host: String,
        /// The last address's answer.
        #[source]
        source: std::io::Error,
    },
    /// The handshake failed: most often a certificate that is not trusted.
    #[error("the TLS handshake with {host} failed")]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Look-up, TCP and TLS took too long together.
    #[error("connecting to {host} took longer than {limit:?}")]
    ConnectTimeout {
        /// The host.
        host: String,
        /// The bound.
        limit: Duration,
    },
    /// Too many requests are under way for this identity.
    #[error("{host}: every connection of this grant is busy")]
    Busy {
        /// The host.
        host: String,
    },
    /// HTTP failed on an open connection.
    #[error("the request to {host} failed")]
    Http {
        /// The host.
        host: String,
        /// Why; hyper's errors hold no header.
        #[source]
        source: hyper::Error,
    },
    /// This identity's window has closed, or [`Upstream::forget`] was called for it.
    #[error("the connections to {host} were closed")]
    Forgotten {
        /// The host.
        host: String,
    },
}

/// The client. Connections are kept per key and never shared between keys.
#[derive(Debug)]
pub struct Upstream {
    dialer: Dialer,
    pool: Pool,
}

/// A body that is already whole.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed()
}

impl Upstream {
    /// A client without any connection yet.
    #[must_use]
    pub fn new(options: UpstreamOptions) -> Self {
        Self {
            dialer: Dialer::new(options),
            pool: Pool::default(),
        }
    }

    /// Sends one request and returns the response's head, its body still streaming. `pool_key` names the identity (the grant):
    /// a connection made for one key carries no other's requests. The caller bounds how long it waits for the answer.
    ///
    /// A request is tried a second time only when a kept-alive connection died before one byte of it was sent.
    ///
    /// # Errors
    /// [`UpstreamError`]. After [`UpstreamError::Http`] the request may have been carried out.
    pub async fn send(
        &self,
        pool_key: u64,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let key = self.pool.key(pool_key, || None);
        Box::pin(self.send_over(&key, request, &Progress::default())).await
    }

    /// The same, until what `until` says, of which the first is taken that is given for this key. Then nothing more of it is sent: a request of
    /// which not all is with the other side fails at once, its connection reset. One that is may still be answered. How far it came stands in
    /// `progress`.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    pub async fn send_until(
        &self,
        pool_key: u64,
        until: impl FnOnce() -> Until,
        request: Request<Body>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let key = self.pool.key(pool_key, || Some(until()));
        let host = || request.uri().host().unwrap_or_default().to_owned();
        let forgotten = UpstreamError::Forgotten { host: host() };
        // In a place of its own: it is large, and callers stand in futures of theirs, one in another.
        let sent = Box::pin(self.send_over(&key, request, progress));
        let sent = key.until_sealed(progress, sent).await;
        match sent {
            // The reset may be heard of before the close that it came with.
            Some(Err(_)) if key.is_sealed() => Err(forgotten),
            Some(sent) => sent,
            None => Err(forgotten),
        }
    }

    async fn send_over(
        &self,
        key: &Arc<Key>,
        mut request: Request<Body>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let origin = Origin::of(request.uri())?;
        for name in &HOP_BY_HOP {
            request.headers_mut().remove(name);
        }
        while let Some(kept) = self.pool.kept(key, &origin) {
            match exchange(kept, request, &origin, progress).await {
                Ok(response) => return Ok(response),
                Err(Unsent::Back(unsent)) => request = *unsent,
                Err(Unsent::Lost(source)) => return Err(http(&origin, source)),
            }
        }
        let place = self.pool.place(key, &origin, self.dialer.limit()).await?;
        let connection = self.dialer.connect(&origin, place).await?;
        match exchange(connection, request, &origin, progress).await {
            Ok(response) => Ok(response),
            Err(Unsent::Back(_)) => Err(UpstreamError::Forgotten { host: origin.host }),
            Err(Unsent::Lost(source)) => Err(http(&origin, source)),
        }
    }

    /// Cuts every connection of this key, idle or not, now. Requests under way fail; later ones start anew.
    pub fn forget(&self, pool_key: u64) {
        self.pool.forget(pool_key);
    }

    /// Whether a request of this key waits for the head of its answer.
    #[must_use]
    pub fn waits(&self, pool_key: u64) -> bool {
        self.pool.waits(pool_key)
    }

    /// Connections open now, for status and tests.
    #[must_use]
    pub fn open(&self) -> usize {
        self.pool.open()
    }
}

fn http(origin: &Origin, source: hyper::Error) -> UpstreamError {
    UpstreamError::Http {
        host: origin.host.clone(),
        source,
    }
}

async fn exchange(
    connection: Connection,
    mut request: Request<Body>,
    origin: &Origin,
    progress: &Progress,
) -> Result<Response<Incoming>, Unsent> {
    origin.address(&mut request, &connection);
    connection.exchange(request, progress).await
}

/// Where a request goes: the unit connections are kept by, besides the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Result<Self, UpstreamError> {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(UpstreamError::NotHttps);
        }
        // `user@host` is never ours to send.
        let authority = uri.authority().ok_or(UpstreamError::NotHttps)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(UpstreamError::NotHttps);
        }
        Ok(Self {
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(HTTPS),
        })
    }

    fn authority(&self) -> String {
        if self.port == HTTPS {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Puts the request into the form its protocol wants: origin-form with `Host` for HTTP/1.1, absolute for HTTP/2.
    /// The absolute form is restored first, since a request may come back unsent from the other protocol.
    fn address(&self, request: &mut Request<Body>, connection: &Connection) {
        let path = request
            .uri()
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string);
        request.headers_mut().remove(header::HOST);
        let built = match connection {
            Connection::H1 { .. } => {
                // The authority came out of a parsed Uri: it is a valid header value.
                if let Ok(host) = HeaderValue::from_str(&self.authority()) {
                    request.headers_mut().insert(header::HOST, host);
                }
                *request.version_mut() = Version::HTTP_11;
                request.headers_mut().remove(header::TE);
                Uri::builder().path_and_query(path).build()
            }
            Connection::H2 { .. } => {
                *request.version_mut() = Version::HTTP_2;
                // The one of the headers of a connection that HTTP/2 knows, with its one value: gRPC asks for trailers by it.
                if request
                    .headers()
                    .get(header::TE)
                    .is_some_and(|te| te != "trailers")
                {
                    request.headers_mut().remove(header::TE);
                }
                Uri::builder()
                    .scheme(Scheme::HTTPS)
                    .authority(self.authority())
                    .path_and_query(path)
                    .build()
            }
        };
        // Both are made of parts that were parsed before; a failure would leave the caller's own address.
        if let Ok(uri) = built {
            *request.uri_mut() = uri;
        }
    }
}
