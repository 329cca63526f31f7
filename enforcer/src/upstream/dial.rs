//! Opens one verified connection: look-up, TCP to the first address that answers, TLS, HTTP handshake. Keeps nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_linger;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::flow::{Flow, Watched};
use super::pool::{Connection, Place};
use super::{Deadlines, Origin, UpstreamError, UpstreamOptions};
use crate::dns::Lookup;
use crate::shared::Shared;

/// Addresses of one answer that are tried.
const ADDRESSES_TRIED_MAX: usize = 8;
/// How long the next address waits for the one before (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// The largest head of a response, bytes.
const RESPONSE_HEAD_BYTES_MAX: u32 = 128 * 1024;
/// HTTP/1.1: the buffer a head has to fit into, bytes.
const H1_BUFFER_BYTES: usize = 256 * 1024;
/// HTTP/2: a dead peer is noticed after this and [`H2_PING_TIMEOUT`].
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// HTTP/2: how long a ping may stay unanswered.
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Dialer {
    names: Arc<dyn Lookup>,
    tls: Arc<ClientConfig>,
    limit: Duration,
    deadlines: Option<Arc<dyn Deadlines>>,
}

impl Dialer {
    pub(super) fn new(options: UpstreamOptions) -> Self {
        let mut tls = options.tls;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            names: options.resolver,
            tls: Arc::new(tls),
            limit: options.connect_timeout,
            deadlines: options.deadlines,
        }
    }

    /// The bound on connecting.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Connects and hands the driving of the connection to a task that ends with `place`.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        place: Place,
    ) -> Result<Connection, UpstreamError> {
        let host = origin.host.clone();
        let gone = || UpstreamError::Forgotten { host: host.clone() };
        let late = || UpstreamError::ConnectTimeout {
            host: host.clone(),
            limit: self.limit,
        };
        let stop = place.sealed();
        let connecting =
            tokio::time::timeout(self.limit, self.open(origin, place.closes_boot_ns()));
        let stream = stop
            .run_until_cancelled(connecting)
            .await
            .ok_or_else(gone)?
            .map_err(|_| late())??;
        let started = tokio::time::timeout(self.limit, start(stream, place));
        stop.run_until_cancelled(started)
            .await
            .ok_or_else(gone)?
            .map_err(|_| late())?
            .map_err(|source| super::http(origin, source))
    }

    async fn open(
        &self,
        origin: &Origin,
        closes_boot_ns: Option<u64>,
    ) -> Result<TlsStream<Shared>, UpstreamError> {
        let host = || origin.host.clone();
        let bare = origin.host.trim_start_matches('[').trim_end_matches(']');
        let answer = self
            .names
            .lookup_both(bare)
            .await
            .map_err(|source| UpstreamError::Names {
                host: host(),
                source,
            })?;
        let tcp = reach(interleaved(&answer.addresses), origin).await?;
        // Small requests and answers in turn: waiting for more bytes only adds latency. Failing to set it costs nothing else.
        let _ = tcp.set_nodelay(true);
        self.bound(&tcp, closes_boot_ns)
            .map_err(|source| UpstreamError::Connect {
                host: host(),
                source,
            })?;
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| UpstreamError::NotHttps)?;
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, Shared::new(tcp))
            .await
            .map_err(|source| UpstreamError::Handshake {
                host: host(),
                source,
            })
    }
}

impl Dialer {
    /// Before anything is said on it: what is not sent when it is closed never is, also where the daemon is killed (else the kernel would go on
    /// sending by itself), and nothing is past the deadline, also where the daemon is frozen.
    fn bound(&self, tcp: &TcpStream, closes_boot_ns: Option<u64>) -> io::Result<()> {
        set_socket_linger(tcp, Some(Duration::ZERO))?;
        match (&self.deadlines, closes_boot_ns) {
            (Some(deadlines), Some(closes)) => deadlines.set(tcp.as_fd(), closes),
            (None, _) | (_, None) => Ok(()),
        }
    }
}

async fn start(stream: TlsStream<Shared>, place: Place) -> Result<Connection, hyper::Error> {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let flow = Flow::new(stream.get_ref().0.clone(), h2);
    let out = Arc::downgrade(&flow);
    // From here on it can be sealed.
    place.adopt(&out);
    let io = TokioIo::new(Watched::new(stream, flow));
    if h2 {
        let (sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(RESPONSE_HEAD_BYTES_MAX)
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_TIMEOUT)
            .handshake(io)
            .await?;
        Ok(place.keep_h2(sender, driver, out))
    } else {
        let (sender, driver) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(H1_BUFFER_BYTES)
            .handshake(io)
            .await?;
        Ok(place.keep_h1(sender, driver, out))
    }
}

/// TCP to whichever address answers first, each starting a little after the one before.
async fn reach(addresses: Vec<IpAddr>, origin: &Origin) -> Result<TcpStream, UpstreamError> {
    if addresses.is_empty() {
        return Err(UpstreamError::NoAddress {
            host: origin.host.clone(),
        });
    }
    let mut wait = Duration::ZERO;
    let tries = addresses.into_iter().map(|address| {
        let after = wait;
        wait += STAGGER;
        async move {
            tokio::time::sleep(after).await;
            TcpStream::connect(SocketAddr::new(address, origin.port)).await
        }
        .boxed()
    });
    let (stream, _others) = select_ok(tries)
        .await
        .map_err(|source| UpstreamError::Connect {
            host: origin.host.clone(),
            source,
        })?;
    Ok(stream)
}

/// The two families in turn, so that a broken one costs a single wait.
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv4());
    let longest = v4.len().max(v6.len());
    (0..longest)
        .flat_map(|index| [v4.get(index), v6.get(index)])
        .flatten()
        .copied()
        .take(ADDRESSES_TRIED_MAX)
        .collect()
}

/// TLS that verifies against the system's roots and those of a PEM file. Says nothing of the protocol above it.
///
/// # Errors
/// When there are no roots, or the file cannot be used.
pub fn verified_tls(
    system_roots: Vec<CertificateDer<'static>>,
    extra_ca_file: Option<&Path>,
) -> Result<ClientConfig, UpstreamError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Tls)?
        .with_root_certificates(roots(system_roots, extra_ca_file)?)
        .with_no_client_auth())
}

/// The system's roots and the file's. A root that cannot be parsed is skipped, an extra file without any is an error.
fn roots(
    system: Vec<CertificateDer<'static>>,
    extra: Option<&Path>,
) -> Result<RootCertStore, UpstreamError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system);
    if let Some(path) = extra {
        let unusable = |why: String| UpstreamError::Roots {
            path: path.to_owned(),
            why,
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(error.to_string()))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(unusable("it holds no usable certificate".to_owned()));
        }
    }
    if roots.is_empty() {
        return Err(UpstreamError::NoRoots);
    }
    Ok(roots)
}
