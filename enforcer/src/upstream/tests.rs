//! The client against real TLS servers on loopback. The server here also serves the token minters' tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::dns::{Answer, Family};

/// Every name is 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Loopback;

#[async_trait]
impl Lookup for Loopback {
    async fn lookup(&self, _: &str, family: Family) -> Result<Answer, NamesError> {
        Ok(Answer {
            addresses: match family {
                Family::V4 => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                Family::V6 => Vec::new(),
            },
            ttl: Duration::from_secs(60),
        })
    }
}

/// What a server answers.
pub(crate) type Answers = Arc<dyn Fn(Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync>;

/// A TLS server of its own authority, for one name.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) roots: tempfile::NamedTempFile,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that no test sends anything with.
pub(crate) fn unused() -> Upstream {
    let authority = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    Upstream::new(UpstreamOptions {
        tls: verified_tls(vec![authority.cert.der().clone()], None).unwrap(),
        connect_timeout: Duration::from_secs(1),
        resolver: Arc::new(Loopback),
        deadlines: None,
    })
}

impl Server {
    pub(crate) async fn start(name: &str, alpn: &[&str], answers: Answers) -> Self {
        let (tls, roots) = identity(name, alpn);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, answers) = (tls.clone(), Arc::clone(&answers));
                let counted = Arc::clone(&counted);
                serving.spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else {
                        return;
                    };
                    counted.fetch_add(1, Ordering::SeqCst);
                    serve(stream, answers).await;
                });
            }
        });
        Self {
            address,
            roots,
            connections,
            task,
        }
    }

    pub(crate) fn client(&self) -> Upstream {
        Upstream::new(UpstreamOptions {
            tls: verified_tls(Vec::new(), Some(self.roots.path())).unwrap(),
            connect_timeout: Duration::from_secs(5),
            resolver: Arc::new(Loopback),
            deadlines: None,
        })
    }

    pub(crate) fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.address.port())
    }
}

async fn serve(stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, answers: Answers) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = Arc::clone(&answers);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(answers(Request::from_parts(head, body)))
        }
    });
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn identity(name: &str, alpn: &[&str]) -> (TlsAcceptor, tempfile::NamedTempFile) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), roots)
}

fn echo() -> Answers {
    Arc::new(|request| {
        let host = request
            .headers()
            .get("host")
            .map_or("-", |host| host.to_str().unwrap());
        let hop = request.headers().contains_key("te");
        Response::new(Full::from(format!(
            "{:?} {} {host} {hop}",
            request.version(),
            request.uri()
        )))
    })
}

fn get(url: &str) -> Request<Body> {
    Request::get(url)
        .header("te", "gzip")
        .body(full(""))
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.collect().await.unwrap().body_bytes()).unwrap()
}

trait BodyBytes {
    fn body_bytes(self) -> Vec<u8>;
}

impl BodyBytes for http_body_util::Collected<Bytes> {
    fn body_bytes(self) -> Vec<u8> {
        self.to_bytes().to_vec()
    }
}

/// Sends again until the pool has had its turn to take the connection back.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn http1_requests_of_one_key_share_a_connection_and_carry_host_but_no_hop_by_hop_header() {
    let server = Server::start("a.test", &["http/1.1"], echo()).await;
    let client = server.client();
    let url = server.url("a.test", "/x?y=1");
    for _ in 0..3 {
        let response = client.send(1, get(&url)).await.unwrap();
        let port = server.address.port();
        assert_eq!(
            text(response).await,
            format!("HTTP/1.1 /x?y=1 a.test:{port} false")
        );
        settle().await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn http2_is_chosen_when_offered_and_shared_by_one_key_only() {
    let server = Server::start("a.test", &["h2", "http/1.1"], echo()).await;
    let client = server.client();
    let url = server.url("a.test", "/x");
    for key in [1, 1, 2, 2, 2] {
        let response = client.send(key, get(&url)).await.unwrap();
        assert!(text(response).await.starts_with("HTTP/2.0 https://a.test:"));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn two_keys_never_share_an_http1_connection() {
    let server = Server::start("a.test", &["http/1.1"], echo()).await;
    let client = server.client();
    let url = server.url("a.test", "/");
    for key in [1, 2, 1, 2] {
        text(client.send(key, get(&url)).await.unwrap()).await;
        settle().await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_forgotten_key_loses_its_connections_and_running_streams() {
    let server = Server::start("a.test", &["h2"], echo()).await;
    let client = server.client();
    let url = server.url("a.test", "/");
    let streaming = client.send(1, get(&url)).await.unwrap();
    text(client.send(2, get(&url)).await.unwrap()).await;
    assert_eq!(client.open(), 2);
    client.forget(1);
    assert_eq!(client.open(), 1);
    drop(streaming);
    text(client.send(1, get(&url)).await.unwrap()).await;
    assert_eq!(
        server.connections.load(Ordering::SeqCst),
        3,
        "a new connection, not the old one"
    );
}

#[tokio::test]
async fn a_server_with_another_name_or_an_unknown_authority_is_refused() {
    let server = Server::start("a.test", &["http/1.1"], echo()).await;
    let other = Server::start("a.test", &["http/1.1"], echo()).await;
    let client = server.client();
    let wrong_name = client.send(1, get(&server.url("b.test", "/")));
    assert!(matches!(
        wrong_name.await,
        Err(UpstreamError::Handshake { .. })
    ));
    let client = other.client();
    let wrong_authority = client.send(1, get(&server.url("a.test", "/")));
    assert!(matches!(
        wrong_authority.await,
        Err(UpstreamError::Handshake { .. })
    ));
}

#[tokio::test]
async fn a_redirect_is_returned_and_not_followed() {
    let answers: Answers = Arc::new(|_| {
        let moved = Response::builder()
            .status(302)
            .header("location", "https://elsewhere.test/");
        moved.body(Full::default()).unwrap()
    });
    let server = Server::start("a.test", &["http/1.1"], answers).await;
    let response = server
        .client()
        .send(1, get(&server.url("a.test", "/")))
        .await
        .unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn plain_http_and_addresses_with_user_information_are_refused() {
    let server = Server::start("a.test", &["http/1.1"], echo()).await;
    for url in ["http://a.test/", "https://u@a.test/", "/relative"] {
        let refused = server.client().send(1, get(url)).await;
        assert!(matches!(refused, Err(UpstreamError::NotHttps)), "{url}");
    }
}

#[tokio::test]
async fn a_file_of_roots_without_a_certificate_is_named_in_the_error() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = verified_tls(Vec::new(), Some(empty.path())).unwrap_err();
    assert!(error.to_string().contains(empty.path().to_str().unwrap()));
}

/// A server that answers the first request of a connection and, having read the second, hangs up. Counts requests read.
async fn hangs_up_on_the_second(
    tls: TlsAcceptor,
    listener: TcpListener,
    requests: Arc<AtomicUsize>,
    closes_after_first: bool,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = tls.accept(tcp).await.unwrap();
        for turn in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            if head.is_empty() {
                break;
            }
            requests.fetch_add(1, Ordering::SeqCst);
            if turn == 0 {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
            }
            if closes_after_first {
                break;
            }
        }
    }
}

async fn two_requests(closes_after_first: bool) -> (Result<(), UpstreamError>, usize) {
    let (tls, roots) = identity("a.test", &["http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://a.test:{}/", listener.local_addr().unwrap().port());
    let requests = Arc::new(AtomicUsize::new(0));
    let serving = hangs_up_on_the_second(tls, listener, Arc::clone(&requests), closes_after_first);
    let server = tokio::spawn(serving);
    let client = Upstream::new(UpstreamOptions {
        tls: verified_tls(Vec::new(), Some(roots.path())).unwrap(),
        connect_timeout: Duration::from_secs(5),
        resolver: Arc::new(Loopback),
        deadlines: None,
    });
    text(client.send(1, get(&url)).await.unwrap()).await;
    settle().await;
    let second = client.send(1, get(&url)).await.map(drop);
    server.abort();
    (second, requests.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_request_that_was_sent_on_a_dying_connection_is_never_sent_twice() {
    let (second, requests) = two_requests(false).await;
    assert!(matches!(second, Err(UpstreamError::Http { .. })));
    assert_eq!(requests, 2);
}

#[tokio::test]
async fn a_connection_the_server_closed_while_idle_is_replaced() {
    for _ in 0..20 {
        let (second, requests) = two_requests(true).await;
        // The close may race with the request: then it fails, but it is not sent twice either.
        match second {
            Ok(()) => assert_eq!(requests, 2),
            Err(error) => assert!(matches!(error, UpstreamError::Http { .. }) && requests == 1),
        }
    }
}

/// A server that agrees on TLS, then reads nothing until it is let, then everything, and says how that ended.
struct Slow {
    url: String,
    client: Upstream,
    may_read: tokio::sync::oneshot::Sender<()>,
    read: JoinHandle<std::io::Result<usize>>,
}

async fn slow(alpn: &[&str]) -> Slow {
    use tokio::io::AsyncReadExt;
    let (tls, roots) = identity("a.test", alpn);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://a.test:{}/", listener.local_addr().unwrap().port());
    let (may_read, let_read) = tokio::sync::oneshot::channel();
    let read = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = tls.accept(tcp).await?;
        let _ = let_read.await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await
    });
    let client = Upstream::new(UpstreamOptions {
        tls: verified_tls(Vec::new(), Some(roots.path())).unwrap(),
        connect_timeout: Duration::from_secs(5),
        resolver: Arc::new(Loopback),
        deadlines: None,
    });
    Slow {
        url,
        client,
        may_read,
        read,
    }
}

/// Over at the close, which the test says.
fn until(close: &tokio_util::sync::CancellationToken) -> Until {
    Until {
        closes_boot_ns: 1,
        ended: Box::pin(close.clone().cancelled_owned()),
    }
}

fn post(url: &str, bytes: usize) -> Request<Body> {
    Request::post(url).body(full(vec![7; bytes])).unwrap()
}

#[tokio::test]
async fn what_is_not_sent_at_the_close_never_is() {
    for alpn in ["http/1.1", "h2"] {
        let server = slow(&[alpn]).await;
        let (close, progress) = (
            tokio_util::sync::CancellationToken::new(),
            Progress::default(),
        );
        // More than the two ends' kernels hold.
        let request = post(&server.url, 64 << 20);
        let sent = server
            .client
            .send_until(1, || until(&close), request, &progress);
        let closing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            close.cancel();
        };
        let (sent, ()) = tokio::join!(sent, closing);
        assert!(
            matches!(sent, Err(UpstreamError::Forgotten { .. })),
            "{sent:?}"
        );
        let sent = progress.end();
        assert!(
            matches!(sent, Sent::Part | Sent::Unacknowledged),
            "{sent:?}"
        );
        server.may_read.send(()).unwrap();
        // What its own kernel had is all that it gets, and it is told of no end of it.
        let read = server.read.await.unwrap();
        assert!(read.is_err(), "{alpn}: {read:?}");
        let (late, progress) = (post(&server.url, 1), Progress::default());
        let late = server
            .client
            .send_until(1, || until(&close), late, &progress)
            .await;
        assert!(matches!(late, Err(UpstreamError::Forgotten { .. })));
        assert_eq!(progress.end(), Sent::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_sent_whole_at_the_close_is_still_answered() {
    for alpn in ["http/1.1", "h2"] {
        let (came, mut whole) = tokio::sync::mpsc::unbounded_channel();
        let answers: Answers = Arc::new(move |request| {
            came.send(()).expect("somebody waits");
            // The far side's own work, which is the subject.
            std::thread::sleep(Duration::from_millis(1000));
            Response::new(Full::from(request.body().len().to_string()))
        });
        let server = Server::start("a.test", &[alpn], answers).await;
        let (client, url) = (server.client(), server.url("a.test", "/"));
        for bytes in [0, 100_000] {
            let (close, progress) = (
                tokio_util::sync::CancellationToken::new(),
                Progress::default(),
            );
            let request = post(&url, bytes);
            let key = bytes as u64;
            let sent = client.send_until(key, || until(&close), request, &progress);
            let closing = async {
                whole.recv().await.expect("it comes");
                // Its kernel has still to say so to ours.
                tokio::time::sleep(Duration::from_millis(700)).await;
                close.cancel();
            };
            let (sent, ()) = tokio::join!(sent, closing);
            assert_eq!(progress.end(), Sent::Whole, "{alpn}");
            assert_eq!(text(sent.unwrap()).await, bytes.to_string());
            assert!(!client.waits(key));
        }
    }
}
