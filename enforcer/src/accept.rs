//! Takes connections from a listener: each only once there is a place for it, so that those there is no room for wait with the kernel.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// How long nothing is taken after the kernel gave none: it may have no file descriptors to give.
const PAUSE: Duration = Duration::from_millis(20);

/// Gives each connection of `listener`, with its place, to `serve`, in a task of its own, until `stop`.
pub async fn each<P, S>(
    listener: TcpListener,
    stop: CancellationToken,
    place: impl Fn() -> P + Send,
    serve: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) -> S + Send,
) where
    P: Future<Output = OwnedSemaphorePermit> + Send,
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let next = async {
            let place = place().await;
            Ok::<_, io::Error>((place, listener.accept().await?))
        };
        match stop.run_until_cancelled(next).await {
            None => return,
            Some(Ok((place, (stream, peer)))) => {
                tokio::spawn(serve(stream, peer, place));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
