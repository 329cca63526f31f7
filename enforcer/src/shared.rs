//! One socket with two holders: TLS and HTTP read and write it, deep inside, and who watches over the connection resets it. Without a second
//! file descriptor, of which there would be as many as connections.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A holder. The socket is closed with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<TcpStream>);

impl Shared {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// The stream itself, for its last holder.
    pub(crate) fn into_inner(self) -> Option<TcpStream> {
        Arc::into_inner(self.0)
    }

    /// Tries `write` as soon as the socket has room.
    fn poll_out(
        &self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(out.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    out.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(context, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(&*self.0, Shutdown::Write)?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Shared) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let to = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
        let (server, _) = accepted.expect("accepts");
        (client.expect("connects"), Shared::new(server))
    }

    #[tokio::test]
    async fn what_is_written_arrives_whole_also_past_what_the_socket_holds() {
        let (mut client, mut server) = pair().await;
        let sent = vec![7; 8 * 1024 * 1024];
        let mut got = Vec::new();
        let (wrote, read) = tokio::join!(
            async {
                server.write_all(&sent).await?;
                server.shutdown().await
            },
            client.read_to_end(&mut got)
        );
        assert!(wrote.is_ok() && read.is_ok() && got == sent);
        client.write_all(b"and back").await.expect("writes");
        drop(client);
        let mut back = String::new();
        server.read_to_string(&mut back).await.expect("reads");
        assert_eq!(back, "and back");
    }

    #[tokio::test]
    async fn the_second_holder_resets_it_and_only_the_last_has_it_to_itself() {
        let (mut client, server) = pair().await;
        let second = server.clone();
        assert!(server.into_inner().is_none());
        let linger = rustix::net::sockopt::set_socket_linger(&second, Some(Duration::ZERO));
        assert!(linger.is_ok());
        drop(second.into_inner().expect("the last"));
        let ended = client.read(&mut [0]).await.expect_err("is reset");
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
    }
}
