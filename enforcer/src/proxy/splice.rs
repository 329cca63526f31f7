//! Passes bytes between two connections and looks at none of them. The kernel moves them from socket to socket by way of a pipe (`splice(2)`):
//! they are never copied into this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::reset;

/// How long nothing may come from either side; then both ends are reset. At most twice that passes until it is noticed.
pub(crate) const IDLE: Duration = Duration::from_secs(900);
/// The file descriptors of one spliced connection: two sockets, and a pipe of two ends each way.
pub(crate) const FILES_PER_SPLICE: usize = 6;
/// How much is moved at once, bytes: what a pipe holds.
const MOVE_BYTES: usize = 64 * 1024;

/// Passes `came` and all that follows on to `server`, and back what it answers, until both sides have ended or either has failed. A side
/// that ends its half is ended towards the other; a failure resets both.
pub(super) async fn splice(client: TcpStream, came: &[u8], mut server: TcpStream, idle: Duration) {
    let moved = AtomicU64::new(0);
    let ended = async {
        server.write_all(came).await?;
        let (there, back) = (
            one_way(&client, &server, &moved),
            one_way(&server, &client, &moved),
        );
        tokio::try_join!(there, back)
    };
    let outcome = tokio::select! {
        ended = ended => ended.map(drop),
        () = silence(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection that was passed on broke off");
        reset(&client);
        reset(&server);
    }
}

/// Ends when nothing was moved for `idle`.
async fn silence(moved: &AtomicU64, idle: Duration) {
    loop {
        let before = moved.load(Ordering::Relaxed);
        tokio::time::sleep(idle).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

async fn one_way(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    loop {
        // The pipe is empty here: if this would block, it is for want of bytes from the socket.
        let filled = from
            .async_io(Interest::READABLE, || push(from, &into, MOVE_BYTES))
            .await?;
        if filled == 0 {
            rustix::net::shutdown(to, Shutdown::Write)?;
            return Ok(());
        }
        moved.fetch_add(1, Ordering::Relaxed);
        drain(&out, to, filled, moved).await?;
    }
}

/// Moves what the pipe holds on into the socket.
async fn drain(out: &OwnedFd, to: &TcpStream, bytes: usize, moved: &AtomicU64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        // The pipe is not empty: if this would block, it is for want of room in the socket.
        let passed = to
            .async_io(Interest::WRITABLE, || push(out, to, left))
            .await?;
        if passed == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left = left.saturating_sub(passed);
        moved.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn push(from: impl AsFd, to: impl AsFd, bytes: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, bytes, flags)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Two connections, each with its two ends.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connects"), far.expect("accepts").0)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_each_half_ends_by_itself() {
        let ((mut client, inner), (outer, mut server)) = (pair().await, pair().await);
        let task = tokio::spawn(async move { splice(inner, b"hello ", outer, IDLE).await });
        client.write_all(b"there").await.expect("writes");
        client.shutdown().await.expect("ends its half");
        let mut got = String::new();
        server.read_to_string(&mut got).await.expect("reads");
        assert_eq!(got, "hello there");
        // The answer comes after the question has ended, and is larger than all the buffers between.
        let answer: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
        let (sent, read) = tokio::join!(
            async {
                server.write_all(&answer).await.expect("writes");
                server.shutdown().await
            },
            async {
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.expect("reads");
                got
            }
        );
        sent.expect("ends");
        assert!(read == answer, "{} bytes", read.len());
        task.await.expect("ends");
    }

    #[tokio::test]
    async fn a_side_that_is_reset_resets_the_other() {
        let ((mut client, inner), (outer, server)) = (pair().await, pair().await);
        let task = tokio::spawn(async move { splice(inner, b"hello", outer, IDLE).await });
        reset(&server);
        drop(server);
        let error = client.read(&mut [0; 8]).await.expect_err("is reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        task.await.expect("ends");
    }

    #[tokio::test]
    async fn silence_ends_both_sides() {
        let ((mut client, inner), (outer, mut server)) = (pair().await, pair().await);
        let idle = Duration::from_millis(50);
        let task = tokio::spawn(async move { splice(inner, b"", outer, idle).await });
        for end in [&mut client, &mut server] {
            let error = end.read(&mut [0; 8]).await.expect_err("is reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        task.await.expect("ends");
    }
}
