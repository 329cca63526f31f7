//! HTTP/1 over a connection that is idle most of the time. The HTTP library holds sixteen kilobytes of buffers as long as it has a connection,
//! so it has it from the first whole head until every answer is sent; in between the connection is parked, and holds none.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{error::Elapsed, timeout};

use super::strict::{HEAD_BYTES_MAX, Strict};

/// How long a connection may be idle before a request; then it ends. A head that has begun has less time.
const IDLE: Duration = Duration::from_secs(300);
/// How long after the last answer what a client still sends is read and thrown away. The kernel resets a connection that is closed with
/// something unread, and a client that still sends then hears of the reset instead of why it was refused.
const LINGER: Duration = Duration::from_secs(5);

/// How many requests of a connection were handed on, how many were answered to the end, and whether anything is left to read or to send.
/// Shared by the reader, the answers and who parks the connection, all of one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanges(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    begun: AtomicU64,
    ended: AtomicU64,
    is_read: AtomicBool,
    is_sent: AtomicBool,
}

impl Exchanges {
    /// A request's head was handed on.
    pub(super) fn begin(&self) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all that came has been handed on, and ends with a request.
    pub(super) fn set_read(&self, is_read: bool) {
        self.0.is_read.store(is_read, Ordering::Relaxed);
    }

    /// Whether all that was to be sent is sent.
    pub(super) fn set_sent(&self, is_sent: bool) {
        self.0.is_sent.store(is_sent, Ordering::Relaxed);
    }

    fn are_over(&self) -> bool {
        let Counted {
            begun,
            ended,
            is_read,
            is_sent,
        } = &*self.0;
        is_read.load(Ordering::Relaxed)
            && is_sent.load(Ordering::Relaxed)
            && begun.load(Ordering::Relaxed) == ended.load(Ordering::Relaxed)
    }
}

/// The body of an answer: the exchange has ended when the HTTP library lets go of it.
pub(super) struct Counting<B> {
    inner: B,
    exchanges: Exchanges,
}

impl<B> Counting<B> {
    pub(super) fn of(exchanges: &Exchanges, answer: Response<B>) -> Response<Self> {
        answer.map(|inner| Self {
            inner,
            exchanges: exchanges.clone(),
        })
    }
}

impl<B> Drop for Counting<B> {
    fn drop(&mut self) {
        self.exchanges.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counting<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve<S, H, B>(
    mut stream: Strict<S>,
    mut service: H,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Unpin,
    H::Future: Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        match timeout(IDLE, stream.whole_head()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => {
                farewell(stream).await;
                return Ok(());
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a session ended");
                return Ok(());
            }
        }
        // In a place of its own, which goes when the connection is parked.
        match Box::pin(exchange(stream, service)).await? {
            Some(parked) => (stream, service) = parked,
            None => return Ok(()),
        }
    }
}

/// Answers what comes until all of it is answered; gives the connection back then, unless it has ended.
async fn exchange<S, H, B>(
    stream: Strict<S>,
    service: H,
) -> Result<Option<(Strict<S>, H)>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Unpin,
    H::Future: Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let exchanges = stream.exchanges().clone();
    let mut connection = http1().serve_connection(TokioIo::new(stream), service);
    let ended = std::future::poll_fn(|context| {
        match connection.poll_without_shutdown(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            // All is sent, since the library has flushed what it had, and waits for the next request.
            Poll::Pending if exchanges.are_over() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let ended = ended.await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match ended {
        None if parts.read_buf.is_empty() => Ok(Some((stream, parts.service))),
        Some(Err(error)) => Err(error),
        // What is left of a request that was answered without being read to its end is nobody's request.
        Some(Ok(())) | None => {
            farewell(stream).await;
            Ok(None)
        }
    }
}

/// Says that nothing more is sent, and gives the client time to hear it. Failing to costs nothing.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Strict<S>) {
    let _: io::Result<()> = stream.shutdown().await;
    let _: Result<io::Result<()>, Elapsed> = timeout(LINGER, stream.throw_away()).await;
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::strict::Unreadable;
    use super::*;

    const LENGTH: usize = 5000;
    const GET: &str = "GET /a HTTP/1.1\r\nhost: h\r\n\r\n";
    const UNREAD: &str = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\n12345678";

    /// A connection whose every request is answered with [`LENGTH`] bytes, its body unread, and which holds so many bytes under way.
    fn served(holds: usize) -> (DuplexStream, tokio::task::JoinHandle<bool>) {
        let (client, server) = duplex(holds);
        let stream = Strict::new(server, Unreadable::default());
        let exchanges = stream.exchanges().clone();
        let service = hyper::service::service_fn(move |_: Request<Incoming>| {
            let body = Full::new(Bytes::from(vec![b'x'; LENGTH]));
            let answer = Counting::of(&exchanges, Response::new(body));
            Box::pin(async { Ok::<_, Infallible>(answer) })
        });
        let ended = tokio::spawn(async move { serve(stream, service).await.is_ok() });
        (client, ended)
    }

    async fn answer(client: &mut DuplexStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let mut body = vec![0; LENGTH];
        client.read_exact(&mut body).await.expect("a body");
        assert!(body.iter().all(|byte| *byte == b'x'));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_answered_whether_they_come_after_a_rest_at_once_or_in_pieces() {
        for holds in [64, 64 * 1024] {
            let (mut client, ended) = served(holds);
            for _ in 0..3 {
                client.write_all(GET.as_bytes()).await.expect("asks");
                answer(&mut client).await;
                tokio::time::sleep(IDLE / 2).await;
            }
            let (mut reads, mut writes) = tokio::io::split(client);
            let asked = async {
                let three = GET.repeat(3);
                let (first, second) = three.split_at(three.len() - 9);
                writes.write_all(first.as_bytes()).await.expect("asks");
                tokio::time::sleep(Duration::from_secs(5)).await;
                writes.write_all(second.as_bytes()).await.expect("asks");
            };
            let mut all = vec![0; 0];
            let heard = async {
                while all.iter().filter(|byte| **byte == b'x').count() < 3 * LENGTH {
                    reads.read_buf(&mut all).await.expect("reads");
                }
            };
            tokio::join!(asked, heard);
            drop((reads, writes));
            assert!(ended.await.expect("ends"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_after_its_time_and_what_is_left_of_a_body_is_no_request() {
        let (mut client, ended) = served(1024);
        client.write_all(UNREAD.as_bytes()).await.expect("asks");
        answer(&mut client).await;
        let began = tokio::time::Instant::now();
        client.write_all(GET.as_bytes()).await.expect("asks");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("ends");
        // The library has read the body to its end, so this one is answered.
        assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert_eq!(began.elapsed(), IDLE);
        assert!(ended.await.expect("ends"));
    }
    #[tokio::test(start_paused = true)]
    async fn a_client_that_still_sends_hears_its_answer_and_has_some_time_to_end() {
        let long = format!(
            "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
            1 << 20
        );
        // One that sends all before it listens, as most do.
        let (mut client, ended) = served(16 * 1024);
        let asked = async {
            client.write_all(long.as_bytes()).await?;
            client.write_all(&vec![b'y'; 1 << 20]).await
        };
        asked.await.expect("all of it is taken");
        answer(&mut client).await;
        assert_eq!(client.read(&mut [0]).await.expect("ends"), 0);
        drop(client);
        assert!(ended.await.expect("ends"));
        // One that never ends.
        let (mut client, ended) = served(16 * 1024);
        client.write_all(long.as_bytes()).await.expect("asks");
        answer(&mut client).await;
        let began = tokio::time::Instant::now();
        while client.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(began.elapsed() >= LINGER && began.elapsed() < LINGER * 2);
        assert!(ended.await.expect("ends"));
    }
}
