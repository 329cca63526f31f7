//! TLS towards agents: the server name in the hello must be one that is served, and the leaf is made for exactly that name.
//! No name, or a foreign one, ends the handshake with an alert and a refusal that can be recorded. The caller bounds the time.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::Authority;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::dns::protected::{Universe, is_bigquerys, normalise};

/// The names a handshake may ask for, normalised.
#[derive(Debug, Clone, Default)]
pub struct ProtectedNames {
    names: BTreeSet<String>,
    universe: Universe,
}

impl FromIterator<String> for ProtectedNames {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self::new(names, Universe::default())
    }
}

impl ProtectedNames {
    /// These names; what else is BigQuery's by its letters is that in this universe.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>, universe: Universe) -> Self {
        let names = names.into_iter();
        Self {
            names: names.filter_map(|name| normalise(&name)).collect(),
            universe,
        }
    }

    /// Whether BigQuery is reached by this normalised name: it is protected, or BigQuery's by its letters.
    #[must_use]
    pub fn is_bigquerys(&self, name: &str) -> bool {
        self.contains(name) || is_bigquerys(name, &self.universe)
    }

    /// Whether this normalised name is protected.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// Why a handshake did not become a connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsRefusal {
    /// The bytes were no readable ClientHello.
    #[error("no readable TLS hello came")]
    Unreadable(#[source] std::io::Error),
    /// The hello named no server: an address alone says nothing about what is wanted there.
    #[error("the TLS hello named no server (SNI)")]
    NoName,
    /// The hello named a server that is not protected.
    #[error("the TLS hello asked for {0}, which is not a protected name")]
    ForeignName(String),
    /// The client broke off, most often because it does not trust the authority.
    #[error(
        "the TLS handshake for {name} failed; run `enforcer client setup` if the client does not trust the authority"
    )]
    Handshake {
        /// The protected name asked for.
        name: String,
        /// What the client or the library said.
        #[source]
        source: std::io::Error,
    },
}

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// The protected name asked for, normalised.
    pub name: String,
    /// Whether HTTP/2 was agreed on.
    pub h2: bool,
    /// Whether nobody but who has said the first hello can have agreed on the keys: those of a full handshake of TLS 1.3 with no second hello follow
    /// from it. Of a session that goes on the library does not say whether there was a second one.
    pub follows_from_hello: bool,
}

/// Whether a client may go on with an earlier session of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// It may.
    Allowed,
    /// Each handshake is a full one, and the client is given nothing to go on with.
    Never,
}

/// Accepts handshakes for the protected names.
#[derive(Debug, Clone)]
pub struct TlsFront {
    config: Arc<ServerConfig>,
    never_resumed: Arc<ServerConfig>,
    names: Arc<ProtectedNames>,
}

impl TlsFront {
    /// A front for these names, with leaves from this authority.
    ///
    /// # Errors
    /// When the TLS library has no protocol version in common with itself; never seen.
    pub fn new(
        authority: Arc<Authority>,
        names: Arc<ProtectedNames>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let leaves = Leaves {
            authority,
            names: Arc::clone(&names),
            clock,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaves));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut never_resumed = config.clone();
        never_resumed.session_storage = Arc::new(NoServerSessionStorage {});
        never_resumed.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            never_resumed: Arc::new(never_resumed),
            names,
        })
    }

    /// The server side of one handshake.
    ///
    /// # Errors
    /// [`TlsRefusal`]; the client has been sent an alert where it could still be.
    pub async fn accept<S>(&self, io: S, resumption: Resumption) -> Result<Accepted<S>, TlsRefusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
        let start = acceptor.await.map_err(TlsRefusal::Unreadable)?;
        let asked = start.client_hello().server_name().map(ToOwned::to_owned);
        let wanted = self.judge(asked.as_deref());
        // The same resolver sees the same name again: a refused one ends in an alert here.
        let config = match resumption {
            Resumption::Allowed => &self.config,
            Resumption::Never => &self.never_resumed,
        };
        let handshake = start.into_stream(Arc::clone(config)).await;
        let name = wanted?;
        let stream = handshake.map_err(|source| TlsRefusal::Handshake {
            name: name.clone(),
            source,
        })?;
        let agreed = stream.get_ref().1;
        let h2 = agreed.alpn_protocol() == Some(b"h2");
        let follows_from_hello = match agreed.handshake_kind() {
            Some(HandshakeKind::Full) => {
                agreed.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
            }
            Some(HandshakeKind::FullWithHelloRetryRequest | HandshakeKind::Resumed) | None => false,
        };
        Ok(Accepted {
            stream,
            name,
            h2,
            follows_from_hello,
        })
    }

    fn judge(&self, asked: Option<&str>) -> Result<String, TlsRefusal> {
        let asked = asked.ok_or(TlsRefusal::NoName)?;
        match normalise(asked) {
            Some(name) if self.names.contains(&name) => Ok(name),
            Some(_) | None => Err(TlsRefusal::ForeignName(asked.to_owned())),
        }
    }
}

/// Leaves by server name, for protected names alone.
#[derive(Debug)]
struct Leaves {
    authority: Arc<Authority>,
    names: Arc<ProtectedNames>,
    clock: Arc<dyn Clock>,
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = normalise(hello.server_name()?)?;
        if !self.names.contains(&name) {
            return None;
        }
        match self.authority.leaf(&name, self.clock.now()) {
            Ok(leaf) => Some(leaf),
            Err(error) => {
                tracing::error!(%name, error = %Causes(&error), "no certificate could be made");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
