//! Handshakes with a client that trusts only the authority.

use std::sync::Mutex;

use enforcer_proto::time::{NS_PER_S, Now};
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::clock::ManualClock;
use crate::proxy::authority::AuthorityOptions;

const START: Now = Now {
    boot_ns: 0,
    unix_ns: 1_800_000_000 * NS_PER_S,
};

/// The clients' clock stands where the front's does.
#[derive(Debug)]
struct Standing;

impl rustls::time_provider::TimeProvider for Standing {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_nanos(
            START.unix_ns,
        )))
    }
}

type Client = tokio_rustls::client::TlsStream<tokio::io::DuplexStream>;

struct World {
    front: TlsFront,
    roots: Arc<RootCertStore>,
    _dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let options = AuthorityOptions {
        dir: dir.path().to_owned(),
        host: "host-a".to_owned(),
        permitted: vec!["googleapis.com".to_owned()],
    };
    let authority = Arc::new(Authority::open(options, START).unwrap());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let names = ["BigQuery.googleapis.com.".to_owned()]
        .into_iter()
        .collect();
    let clock = Arc::new(ManualClock::at(START));
    World {
        front: TlsFront::new(authority, Arc::new(names), clock).unwrap(),
        roots: Arc::new(roots),
        _dir: dir,
    }
}

impl World {
    async fn shake(
        &self,
        name: &str,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (
        std::io::Result<Client>,
        Result<Accepted<tokio::io::DuplexStream>, TlsRefusal>,
    ) {
        let mut config = self.client(default_provider(), versions);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        self.shake_by(config, name, Resumption::Allowed).await
    }

    fn client(
        &self,
        provider: CryptoProvider,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Standing))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth()
    }

    async fn shake_by(
        &self,
        config: ClientConfig,
        name: &str,
        resumption: Resumption,
    ) -> (
        std::io::Result<Client>,
        Result<Accepted<tokio::io::DuplexStream>, TlsRefusal>,
    ) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        // The client stays until both sides are done: a TLS 1.3 server still writes tickets after the client is content.
        let client = connector.connect(name, ours);
        tokio::join!(client, self.front.accept(theirs, resumption))
    }

    /// How a client's handshake went by its own word, and whether the keys follow from its first hello by the front's. It has read then what the front gave
    /// it to go on with.
    async fn went(
        &self,
        config: &ClientConfig,
        resumption: Resumption,
    ) -> (Option<HandshakeKind>, bool) {
        let name = "bigquery.googleapis.com";
        let (client, server) = self.shake_by(config.clone(), name, resumption).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        server.stream.write_all(b"x").await.unwrap();
        server.stream.flush().await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        let kind = client.get_ref().1.handshake_kind();
        (kind, server.follows_from_hello)
    }
}

#[tokio::test]
async fn a_protected_name_is_served_in_tls_1_2_and_1_3_with_http_2_and_1_1() {
    let world = world();
    for (version, shown) in [
        (&rustls::version::TLS12, "TLSv1_2"),
        (&rustls::version::TLS13, "TLSv1_3"),
    ] {
        for (alpn, h2) in [
            (&["h2", "http/1.1"][..], true),
            (&["http/1.1"][..], false),
            (&[][..], false),
        ] {
            let (client, server) = world
                .shake("BIGQUERY.googleapis.com", alpn, &[version])
                .await;
            let agreed = client.unwrap().get_ref().1.protocol_version();
            assert_eq!(format!("{:?}", agreed.unwrap()), shown);
            let accepted = server.unwrap();
            assert_eq!(
                (accepted.name.as_str(), accepted.h2),
                ("bigquery.googleapis.com", h2)
            );
        }
    }
}

/// A group that the front has none of: who comes with a key of it is asked for a second hello.
#[derive(Debug)]
struct Unserved;

impl SupportedKxGroup for Unserved {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

impl ActiveKeyExchange for Unserved {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, rustls::Error> {
        Err(rustls::Error::General("nobody serves it".to_owned()))
    }

    fn pub_key(&self) -> &[u8] {
        &[4; 133]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

/// What a client was given to go on with. It does not keep which group a server took: so it comes with the same key each time.
#[derive(Debug, Default)]
struct Given(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Given {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.lock().unwrap().push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap().pop()
    }
}

#[tokio::test]
async fn keys_follow_from_the_first_hello_in_a_full_handshake_alone_and_no_session_goes_on_where_none_may()
 {
    use HandshakeKind::{Full, FullWithHelloRetryRequest, Resumed};
    let world = world();
    let mut asks_again = default_provider();
    asks_again.kx_groups.insert(0, &Unserved);
    for (provider, first, follows) in [
        (default_provider(), Full, true),
        (asks_again, FullWithHelloRetryRequest, false),
    ] {
        let mut config = world.client(provider, &[&rustls::version::TLS13]);
        config.resumption = rustls::client::Resumption::store(Arc::new(Given::default()));
        // Nothing is given where no session may go on.
        for _ in 0..2 {
            let went = world.went(&config, Resumption::Never).await;
            assert_eq!(went, (Some(first), follows));
        }
        let went = world.went(&config, Resumption::Allowed).await;
        assert_eq!(went, (Some(first), follows));
        // Of a session that goes on behind a second hello the library says as much as of one that does without.
        let went = world.went(&config, Resumption::Allowed).await;
        assert_eq!(went, (Some(Resumed), false));
        // What was given elsewhere is nothing here.
        let went = world.went(&config, Resumption::Never).await;
        assert_eq!(went, (Some(first), follows));
    }
}

#[tokio::test]
async fn a_foreign_name_and_no_name_are_refused_with_an_alert_and_a_reason() {
    let world = world();
    let (client, server) = world
        .shake("storage.googleapis.com", &["h2"], rustls::ALL_VERSIONS)
        .await;
    assert!(client.unwrap_err().to_string().contains("alert"));
    assert!(
        matches!(server, Err(TlsRefusal::ForeignName(name)) if name == "storage.googleapis.com")
    );
    // A client that connects to an address sends no server name.
    let (client, server) = world
        .shake("192.0.2.1", &["h2"], rustls::ALL_VERSIONS)
        .await;
    assert!(client.is_err());
    assert!(matches!(server, Err(TlsRefusal::NoName)));
}

#[tokio::test]
async fn bytes_that_are_no_hello_are_refused() {
    let world = world();
    let (mut ours, theirs) = tokio::io::duplex(1024);
    ours.write_all(b"GET / HTTP/1.1\r\nHost: bigquery.googleapis.com\r\n\r\n")
        .await
        .unwrap();
    let refused = world.front.accept(theirs, Resumption::Allowed).await;
    assert!(matches!(refused, Err(TlsRefusal::Unreadable(_))));
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_ends_the_handshake_by_name() {
    let world = world();
    let stranger = World {
        roots: Arc::new({
            let other = super::tests::world();
            Arc::unwrap_or_clone(other.roots)
        }),
        ..world
    };
    let (client, server) = stranger
        .shake(
            "bigquery.googleapis.com",
            &["h2"],
            &[&rustls::version::TLS12],
        )
        .await;
    assert!(client.is_err());
    assert!(
        matches!(server, Err(TlsRefusal::Handshake { name, .. }) if name == "bigquery.googleapis.com")
    );
}
