//! Reads the hello off a connection and keeps its bytes: whoever takes the connection over gets them first, unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use enforcer_proto::refusal::{Code, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::hello::{HELLO_BYTES_MAX, Hello, HelloReader};
use crate::causes::Causes;

/// Reads a hello. The caller bounds the time.
///
/// # Errors
/// [`Code::HelloUnreadable`].
pub(super) async fn peek<S>(mut stream: S) -> Result<(Hello, Replayed<S>), Refusal>
where
    S: AsyncRead + Unpin,
{
    let refused = |why: &(dyn std::error::Error + 'static)| {
        Refusal::new(Code::HelloUnreadable, Causes(why).to_string())
    };
    let mut reader = HelloReader::default();
    let mut came = BytesMut::with_capacity(HELLO_BYTES_MAX);
    loop {
        let before = came.len();
        // Never more than the bound at once: the reader says so when that is used up.
        let read = (&mut stream)
            .take((HELLO_BYTES_MAX - before) as u64)
            .read_buf(&mut came)
            .await
            .map_err(|error| refused(&error))?;
        if read == 0 {
            let what = "The connection ended before the TLS hello was whole";
            return Err(Refusal::new(Code::HelloUnreadable, what));
        }
        if let Some(hello) = reader
            .push(&came[before..])
            .map_err(|error| refused(&error))?
        {
            let came = came.freeze();
            return Ok((hello, Replayed { came, stream }));
        }
    }
}

/// A connection whose first bytes have been read already: they are read once more, then what follows.
#[derive(Debug)]
pub(super) struct Replayed<S> {
    came: Bytes,
    stream: S,
}

impl<S> Replayed<S> {
    /// The bytes that were read and are to be read once more.
    pub(super) fn came(&self) -> &[u8] {
        &self.came
    }

    /// The bytes that were read, and the connection that goes on after them.
    pub(super) fn into_parts(self) -> (Bytes, S) {
        (self.came, self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.came.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, out);
        }
        let bytes = self.came.len().min(out.remaining());
        out.put_slice(&self.came[..bytes]);
        self.came.advance(bytes);
        if self.came.is_empty() {
            // Its memory is let go with the last of it.
            self.came = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn hello() -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name =
            rustls_pki_types::ServerName::try_from("storage.googleapis.com").expect("a name");
        let mut client =
            rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("writes");
        bytes
    }

    #[tokio::test]
    async fn what_was_read_is_read_again_and_then_what_follows() {
        let (mut client, server) = duplex(HELLO_BYTES_MAX);
        let sent = [&hello()[..], b"what follows"].concat();
        client.write_all(&sent[..40]).await.expect("writes");
        let (peeked, ()) = tokio::join!(peek(server), async {
            tokio::task::yield_now().await;
            client.write_all(&sent[40..]).await.expect("writes");
        });
        let (hello, mut replayed) = peeked.expect("a hello");
        assert_eq!(hello.name, "storage.googleapis.com");
        drop(client);
        let mut got = Vec::new();
        replayed.read_to_end(&mut got).await.expect("reads");
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn a_connection_that_ends_or_goes_on_too_long_without_a_hello_is_refused() {
        for (sent, said) in [
            (hello()[..60].to_vec(), "ended before"),
            (
                [22, 3, 1, 0, 200].into_iter().chain([1; 200]).collect(),
                "longer than",
            ),
            (b"GET / HTTP/1.1\r\n".to_vec(), "no TLS"),
        ] {
            let (mut client, server) = duplex(HELLO_BYTES_MAX);
            client.write_all(&sent).await.expect("writes");
            drop(client);
            let refusal = peek(server).await.expect_err("is refused");
            assert_eq!(refusal.code, Code::HelloUnreadable);
            assert!(refusal.what.contains(said), "{refusal}");
        }
    }
}
