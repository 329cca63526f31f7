//! Takes connections from a listener: each only once there is a place for it, so that those there is no room for wait with the kernel. A listener to
//! which nobody comes holds no place.
#![expect(
    unsafe_code,
    reason = "waiting for a listener without taking from it has no safe binding"
)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// How long nothing is taken after the kernel gave none: it may have no file descriptors to give.
const PAUSE: Duration = Duration::from_millis(20);

/// Gives each connection of `listener`, which does not block, with its place, to `serve`, in a task of its own, until `stop`.
pub async fn each<P, S>(
    listener: TcpListener,
    stop: CancellationToken,
    place: impl Fn() -> P + Send,
    serve: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) -> S + Send,
) where
    P: Future<Output = OwnedSemaphorePermit> + Send,
    S: Future<Output = ()> + Send + 'static,
{
    // SAFETY: the listener owns its descriptor, gives the same one always, and lives as long as what is registered.
    let registered = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    let listener = match registered {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener cannot be waited for"),
    };
    loop {
        let next = async {
            let mut comes = listener.readable().await?;
            let place = place().await;
            let taken = comes.try_io(|listener| listener.get_ref().accept());
            // Whoever came has gone again, and the place is given back.
            let Ok(taken) = taken else { return Ok(None) };
            let (stream, peer) = taken?;
            stream.set_nonblocking(true)?;
            Ok::<_, io::Error>(Some((place, TcpStream::from_std(stream)?, peer)))
        };
        match stop.run_until_cancelled(next).await {
            None => return,
            Some(Ok(Some((place, stream, peer)))) => {
                tokio::spawn(serve(stream, peer, place));
            }
            Some(Ok(None)) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn listeners_to_which_nobody_comes_leave_the_only_place_to_who_comes() {
        let only = Arc::new(Semaphore::new(1));
        let (to, mut came) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut addresses = Vec::new();
        for _ in 0..100 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
            listener.set_nonblocking(true).expect("sets it");
            addresses.push(listener.local_addr().expect("an address"));
            let (only, to, stop) = (Arc::clone(&only), to.clone(), stop.clone());
            tokio::spawn(async move {
                let place = || async { Arc::clone(&only).acquire_owned().await.expect("open") };
                let serve = |stream, _, place| {
                    let _ = to.send(());
                    async move { drop((stream, place)) }
                };
                each(listener, stop, place, serve).await;
            });
        }
        for address in addresses.iter().rev().take(3) {
            let _client = TcpStream::connect(address).await.expect("connects");
            came.recv().await.expect("is served");
        }
        stop.cancel();
    }
}
