//! The set and its task under virtual time, and hostile answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use enforcer_proto::time::{NS_PER_S, Now};
use http::{HeaderValue, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::endpoints::{
    ADDRESSES_PER_NAME_MAX, BACKOFF_MAX, EndpointSet, GRACE, TTL_MAX, TTL_MIN, keep,
};
use super::protected::{
    Service, Universe, VIP_NAMES, api_beside, class_of, is_bigquerys, normalise,
    permitted_subtrees, protected_default, service, vips,
};
use super::*;
use crate::clock::ManualClock;
use crate::config::AddressClass::{self, Dedicated, Shared};

const BQ: &str = "bigquery.googleapis.com";

fn answer(addresses: &[&str], ttl_s: u64) -> Answer {
    Answer {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ttl: Duration::from_secs(ttl_s),
    }
}

fn set() -> EndpointSet {
    EndpointSet::new([(BQ.to_owned(), Shared)], [])
}

fn nets(set: &EndpointSet) -> Vec<String> {
    set.current().keys().map(ToString::to_string).collect()
}

const fn s(seconds: u64) -> u64 {
    seconds * NS_PER_S
}

#[test]
fn a_new_set_asks_both_families_at_once_and_holds_the_prefixes_from_the_start() {
    let net = "199.36.153.8/30".parse().unwrap();
    let set = EndpointSet::new([(BQ.to_owned(), Shared)], [(net, Dedicated)]);
    assert_eq!(set.due(0).len(), 2);
    assert_eq!(set.current(), BTreeMap::from([(net, Dedicated)]));
    assert_eq!(set.unanswered(), [BQ]);
}

#[test]
fn a_name_is_asked_again_after_its_ttl_clamped_to_the_bounds() {
    for (ttl, wait) in [
        (0, TTL_MIN),
        (60, Duration::from_secs(60)),
        (86400, TTL_MAX),
    ] {
        let mut set = set();
        set.answered(BQ, Family::V4, &answer(&["192.0.2.1"], ttl), 0);
        set.answered(BQ, Family::V6, &answer(&[], 86400), 0);
        assert_eq!(set.next_boot_ns(), Some(s(wait.as_secs())));
        assert!(set.due(s(wait.as_secs()) - 1).is_empty());
    }
}

#[test]
fn an_address_that_vanishes_is_kept_for_the_grace_and_then_dropped() {
    let mut set = set();
    set.answered(BQ, Family::V4, &answer(&["192.0.2.1", "192.0.2.2"], 60), 0);
    set.answered(BQ, Family::V4, &answer(&["192.0.2.2"], 60), s(60));
    assert_eq!(nets(&set), ["192.0.2.1/32", "192.0.2.2/32"]);
    let end = s(60) + s(GRACE.as_secs());
    set.expire(end - 1);
    assert_eq!(nets(&set).len(), 2);
    set.expire(end);
    assert_eq!(nets(&set), ["192.0.2.2/32"]);
}

#[test]
fn an_address_whose_ttl_outlasts_the_grace_is_kept_until_the_ttl_ends() {
    let mut set = set();
    set.answered(BQ, Family::V4, &answer(&["192.0.2.1"], 7200), 0);
    set.answered(BQ, Family::V4, &answer(&["192.0.2.2"], 60), s(300));
    set.expire(s(7199));
    assert_eq!(nets(&set).len(), 2);
    set.expire(s(7200));
    assert_eq!(nets(&set), ["192.0.2.2/32"]);
}

#[test]
fn an_address_that_comes_back_is_current_again() {
    let mut set = set();
    set.answered(BQ, Family::V4, &answer(&["192.0.2.1"], 60), 0);
    set.answered(BQ, Family::V4, &answer(&["192.0.2.2"], 60), s(60));
    set.answered(BQ, Family::V4, &answer(&["192.0.2.1"], 60), s(120));
    set.expire(s(120) + s(GRACE.as_secs()));
    assert_eq!(nets(&set), ["192.0.2.1/32"]);
}

#[test]
fn a_failed_look_up_keeps_every_address_and_waits_longer_each_time() {
    let mut set = set();
    set.answered(BQ, Family::V4, &answer(&["192.0.2.1"], 60), 0);
    set.answered(BQ, Family::V6, &answer(&[], 300), 0);
    let mut now = s(60);
    let mut waits = Vec::new();
    for _ in 0..20 {
        set.failed(BQ, Family::V4, now);
        set.failed(BQ, Family::V6, now);
        set.expire(now);
        assert_eq!(nets(&set), ["192.0.2.1/32"]);
        let next = set.next_boot_ns().unwrap();
        waits.push((next - now) / NS_PER_S);
        now = next;
    }
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32]);
    assert_eq!(*waits.last().unwrap(), BACKOFF_MAX.as_secs());
}

#[test]
fn what_was_protected_before_a_restart_is_kept_until_every_name_answers_and_for_the_grace() {
    let held = ["192.0.2.1/32", "199.36.153.8/30", "2001:db8::1/128"];
    let held = held.map(|net| (net.parse().unwrap(), Shared));
    let mut set = set();
    set.inherit(held, 0);
    let late = s(GRACE.as_secs());
    set.failed(BQ, Family::V4, 0);
    set.answered(BQ, Family::V6, &answer(&[], 60), 0);
    set.expire(late);
    let singles = ["192.0.2.1/32", "2001:db8::1/128"];
    assert_eq!(nets(&set), singles, "a prefix is not inherited");

    set.answered(BQ, Family::V4, &answer(&["192.0.2.2"], 60), 1);
    set.expire(late - 1);
    assert_eq!(nets(&set).len(), 3);
    set.expire(late);
    assert_eq!(nets(&set), ["192.0.2.2/32"]);
}

#[test]
fn what_an_address_answers_for_today_holds_against_what_was_inherited() {
    let net = "192.0.2.1/32".parse().unwrap();
    let mut set = EndpointSet::new([("a.test".to_owned(), Dedicated)], []);
    set.inherit([(net, Shared)], 0);
    set.answered("a.test", Family::V4, &answer(&["192.0.2.1"], 60), 0);
    assert_eq!(set.current(), BTreeMap::from([(net, Dedicated)]));
}

#[test]
fn a_server_that_rotates_endlessly_cannot_grow_the_set_past_its_bound_and_that_is_said() {
    let mut set = set();
    for round in 0..5_u32 {
        assert!(set.overfull(s(25)).is_empty());
        let addresses = (0..1000).map(|index| {
            IpAddr::from(std::net::Ipv4Addr::from(0xC000_0200 + round * 1000 + index))
        });
        let many = Answer {
            addresses: addresses.collect(),
            ttl: Duration::from_secs(5),
        };
        set.answered(BQ, Family::V4, &many, s(u64::from(round) * 5));
    }
    assert_eq!(nets(&set).len(), ADDRESSES_PER_NAME_MAX);
    assert_eq!(set.overfull(s(25)), [BQ]);
    let remembered = s(20) + u64::try_from(GRACE.as_nanos()).unwrap();
    assert!(set.overfull(remembered).is_empty());
}

#[test]
fn what_the_operator_says_of_a_prefix_holds_for_the_names_that_answer_in_it() {
    let [wide, narrow, apart] = ["192.0.2.0/24", "192.0.2.7/32", "198.51.100.7/32"]
        .map(|net| net.parse::<ipnet::IpNet>().unwrap());
    let mut set = EndpointSet::new(
        [(BQ.to_owned(), Shared)],
        [(wide, Shared), (narrow, Dedicated)],
    );
    let answer = Answer {
        addresses: [narrow, apart].map(|net| net.addr()).to_vec(),
        ttl: Duration::from_secs(60),
    };
    set.answered(BQ, Family::V4, &answer, 0);
    let wanted = [(wide, Shared), (narrow, Dedicated), (apart, Shared)];
    assert_eq!(set.current(), BTreeMap::from(wanted));
}

#[test]
fn an_address_that_is_shared_by_one_name_is_shared() {
    let mut set = EndpointSet::new(
        [("a.test".to_owned(), Dedicated), (BQ.to_owned(), Shared)],
        [],
    );
    for name in ["a.test", BQ] {
        set.answered(name, Family::V4, &answer(&["192.0.2.1"], 60), 0);
    }
    let only: Vec<AddressClass> = set.current().into_values().collect();
    assert_eq!(only, [Shared]);
}

#[test]
fn rebinding_answers_are_refused_also_when_they_are_mapped_into_v6() {
    for text in [
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
    ] {
        assert!(refused_address(text.parse().unwrap()).is_some(), "{text}");
    }
    for text in [
        "10.77.8.7",
        "172.16.0.1",
        "fd77:8::7",
        "2607:f8b0::1",
        "199.36.153.8",
    ] {
        assert!(refused_address(text.parse().unwrap()).is_none(), "{text}");
    }
    let mixed = vec!["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    assert_eq!(
        usable(BQ, mixed, Duration::ZERO).unwrap(),
        answer(&["192.0.2.1"], 0)
    );
    let only = usable(
        BQ,
        vec!["::ffff:127.0.0.1".parse().unwrap()],
        Duration::ZERO,
    );
    assert!(matches!(only, Err(NamesError::OnlyRefused { .. })));
}

#[test]
fn names_are_compared_in_one_form_and_odd_ones_are_no_names() {
    assert_eq!(normalise("BigQuery.GoogleAPIs.com.").as_deref(), Some(BQ));
    for odd in [
        "",
        ".",
        "a..b",
        "a.b..",
        "a b",
        "[::1]",
        "a%2eb",
        "-a.b",
        "bigquéry.com",
        "a\0.b",
    ] {
        assert_eq!(normalise(odd), None, "{odd:?}");
    }
}

#[test]
fn the_built_in_names_are_sound_and_their_authority_is_confined_to_one_subtree() {
    let names = protected_default(&Universe::default());
    assert_eq!(names.len(), 9 + 7 * 2 + 24 * 5);
    for name in &names {
        assert_eq!(normalise(name).as_ref(), Some(name));
        assert_eq!(class_of(name, &Universe::default()), Shared);
    }
    let regional = "bigquerystorage.us-east4.rep.googleapis.com";
    assert!(names.iter().any(|name| name == regional));
    assert_eq!(service(regional), Service::Storage);
    assert_eq!(api_beside(regional), "bigquery.us-east4.rep.googleapis.com");
    assert_eq!(
        permitted_subtrees(&names, &Universe::default()),
        ["googleapis.com"]
    );
    assert_eq!(
        class_of("bigquery-x.p.googleapis.com", &Universe::default()),
        Dedicated
    );
    assert_eq!(class_of("bq.corp.example", &Universe::default()), Dedicated);
}

#[test]
fn in_another_universe_the_built_in_names_lie_in_its_domain_and_googles_own_are_still_bigquerys() {
    let there = Universe::named("GoogleAPIs.cloud.example.").expect("a domain");
    let names = protected_default(&there);
    assert_eq!(names.len(), protected_default(&Universe::default()).len());
    for name in &names {
        assert!(name.ends_with(".googleapis.cloud.example"), "{name}");
        assert_eq!(class_of(name, &there), Shared);
    }
    assert_eq!(
        permitted_subtrees(&names, &there),
        ["googleapis.cloud.example"]
    );
    assert_eq!(
        class_of("bigquery-x.p.googleapis.cloud.example", &there),
        Dedicated
    );
    let storage = "bigquerystorage.us-east4.rep.googleapis.cloud.example";
    assert_eq!(service(storage), Service::Storage);
    for name in [
        "bigquery.googleapis.com",
        "us-bigquery.googleapis.cloud.example",
    ] {
        assert!(is_bigquerys(name, &there), "{name}");
    }
    let elsewhere = Universe::default();
    assert!(!is_bigquerys(
        "us-bigquery.googleapis.cloud.example",
        &elsewhere
    ));
    for none in ["", "com", "*.example.com", "a b.example"] {
        assert_eq!(Universe::named(none), None, "{none}");
    }
}

#[test]
fn the_addresses_of_private_access_are_protected_as_long_as_the_operator_says_nothing_of_them() {
    let all = |said: &[(&str, AddressClass)]| {
        let said: Vec<_> = said
            .iter()
            .map(|(net, class)| (net.parse().expect("a network"), *class))
            .collect();
        vips(&said)
            .map(|(net, class)| (net.to_string(), class))
            .collect::<BTreeMap<_, _>>()
    };
    let documented = [
        "199.36.153.8/30",
        "2600:2d00:2:2000::/56",
        "199.36.153.4/30",
        "2600:2d00:2:1000::/56",
        "34.126.0.0/18",
        "2001:4860:8040::/42",
    ];
    let documented = documented.map(|net| (net.to_owned(), Shared));
    assert_eq!(all(&[]), documented.clone().into());
    let said = all(&[("199.36.153.0/24", Dedicated), ("34.126.0.0/19", Dedicated)]);
    let left = documented
        .into_iter()
        .filter(|(net, _)| !net.starts_with("199."));
    assert_eq!(said, left.collect());
    for name in VIP_NAMES {
        assert!(
            is_bigquerys(name, &Universe::default())
                && protected_default(&Universe::default()).contains(&name.to_owned())
        );
    }
}

/// Answers that a test can change.
#[derive(Debug, Default)]
struct Scripted(Mutex<Option<Answer>>);

#[async_trait]
impl Lookup for Scripted {
    async fn lookup(&self, name: &str, family: Family) -> Result<Answer, NamesError> {
        match (family, self.0.lock().unwrap().clone()) {
            (Family::V4, Some(answer)) => Ok(answer),
            (Family::V6, Some(_)) => Ok(Answer {
                addresses: Vec::new(),
                ttl: Duration::from_secs(300),
            }),
            (Family::V4 | Family::V6, None) => Err(failed(name, &"down")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_sends_the_first_round_then_only_changes_and_stops_when_told() {
    let names = Arc::new(Scripted::default());
    let clock = Arc::new(ManualClock::at(Now {
        boot_ns: 0,
        unix_ns: 0,
    }));
    let (sender, mut current) = watch::channel(super::endpoints::Kept::default());
    let stop = CancellationToken::new();
    let task = tokio::spawn(keep(
        set(),
        names.clone(),
        clock.clone(),
        sender,
        stop.clone(),
    ));
    current.changed().await.unwrap();
    assert!(
        current.borrow_and_update().endpoints.is_empty(),
        "nothing answered yet"
    );
    *names.0.lock().unwrap() = Some(answer(&["192.0.2.1"], 60));
    clock.advance_ns(s(1));
    current.changed().await.unwrap();
    assert_eq!(current.borrow_and_update().endpoints.len(), 1);
    clock.advance_ns(s(60));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(
        !current.has_changed().unwrap(),
        "the same answer is no news"
    );
    stop.cancel();
    task.await.unwrap();
}

/// A DNS server on loopback that gives one A record (ttl 30), no AAAA, and SERVFAIL for other names.
async fn small_server() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let query = &buffer[..length];
            let _ = socket.send_to(&reply(query), from).await;
        }
    });
    (address, task)
}

/// Written by hand so that the test does not trust the library it tests.
fn reply(query: &[u8]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[12..name_end + 5];
    let known = question
        .to_ascii_lowercase()
        .starts_with(b"\x08bigquery\x0agoogleapis\x03com");
    let is_a = question[question.len() - 3] == 1;
    let answers = u8::from(known && is_a);
    let rcode = if known { 0 } else { 2 };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0]);
    out.extend(question);
    if answers == 1 {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 7]);
    }
    out
}

/// A server's certificate for a name that nobody else vouches for, and a client that believes it.
fn certified(name: &str, protocol: &[u8]) -> (TlsAcceptor, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![protocol.to_vec()];
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), client)
}

/// A DNS server on loopback over TLS: a length of two bytes before each message (RFC 7858). Gives where it is.
async fn server_over_tls(acceptor: TlsAcceptor) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; usize::from(length)];
                    stream.read_exact(&mut query).await.unwrap();
                    let reply = reply(&query);
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    address
}

/// A DNS server on loopback over HTTP/2: messages are posted to `/dns-query` (RFC 8484). Gives where it is.
async fn server_over_https(acceptor: TlsAcceptor) -> SocketAddr {
    async fn serve(
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
        assert_eq!(request.uri().path(), "/dns-query");
        let kind = HeaderValue::from_static("application/dns-message");
        assert_eq!(request.headers()[header::CONTENT_TYPE], kind);
        let query = request.into_body().collect().await?.to_bytes();
        let mut response = http::Response::new(Full::new(reply(&query).into()));
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let service = hyper::service::service_fn(serve);
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(served);
        }
    });
    address
}

/// Asks one server for BigQuery's address.
async fn asked(server: String, tls: &rustls::ClientConfig) -> Result<Answer, NamesError> {
    let server: Server = server.parse().unwrap();
    let names = Names::fresh(&[server], tls).unwrap();
    names.lookup(BQ, Family::V4).await
}

#[tokio::test]
async fn a_server_over_tls_is_asked_where_its_certificate_is_for_its_name() {
    let (acceptor, tls) = certified("dns.test", b"dot");
    let address = server_over_tls(acceptor).await;
    let answered = asked(format!("tls://{address}#dns.test"), &tls).await;
    assert_eq!(answered.unwrap(), answer(&["192.0.2.7"], 30));
    for (name, tls) in [("other.test", &tls), ("dns.test", &self::tls())] {
        let refused = asked(format!("tls://{address}#{name}"), tls).await;
        assert!(
            matches!(refused, Err(NamesError::Failed { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_server_over_https_is_asked_where_its_certificate_is_for_its_name() {
    let (acceptor, tls) = certified("dns.test", b"h2");
    let address = server_over_https(acceptor).await;
    let answered = asked(format!("https://{address}#dns.test"), &tls).await;
    assert_eq!(answered.unwrap(), answer(&["192.0.2.7"], 30));
    for (name, tls) in [("other.test", &tls), ("dns.test", &self::tls())] {
        let refused = asked(format!("https://{address}#{name}"), tls).await;
        assert!(
            matches!(refused, Err(NamesError::Failed { .. })),
            "{refused:?}"
        );
    }
}

/// Believes no server's certificate.
fn tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[tokio::test]
async fn configured_servers_are_asked_on_their_port_and_their_ttl_is_kept() {
    let (address, task) = small_server().await;
    let names = Names::fresh(&[address.into()], &tls()).unwrap();
    let v4 = names.lookup(BQ, Family::V4).await.unwrap();
    assert_eq!(v4, answer(&["192.0.2.7"], 30));
    let v6 = names.lookup(BQ, Family::V6).await.unwrap();
    assert!(v6.addresses.is_empty());
    let both = names.lookup_both(BQ).await.unwrap();
    assert_eq!(both.addresses.len(), 1);
    task.abort();
}

#[tokio::test]
async fn a_server_failure_is_an_error_and_never_an_empty_answer() {
    let (address, task) = small_server().await;
    let names = Names::fresh(&[address.into()], &tls()).unwrap();
    let failed = names.lookup("broken.googleapis.com", Family::V4).await;
    assert!(
        matches!(failed, Err(NamesError::Failed { .. })),
        "{failed:?}"
    );
    task.abort();
}

#[test]
fn what_answers_at_a_name_is_told_by_its_letters() {
    for (name, wanted) in [
        ("bigquery.googleapis.com", Service::Api),
        ("www.googleapis.com", Service::Api),
        ("europe-west2-bigquery.googleapis.com", Service::Api),
        ("bigquery-endpoint.p.googleapis.com", Service::Api),
        ("bigquery.example.com", Service::Api),
        ("bigquerystorage.googleapis.com", Service::Storage),
        (
            "bigquerystorage.us-east1.rep.googleapis.com",
            Service::Storage,
        ),
        ("bigquerydatatransfer.googleapis.com", Service::Neighbour),
        ("us-bigqueryconnection.googleapis.com", Service::Neighbour),
        ("analyticshub.mtls.googleapis.com", Service::Neighbour),
    ] {
        assert_eq!(service(name), wanted, "{name}");
    }
}

#[test]
fn beside_a_name_of_the_storage_api_is_one_of_the_api() {
    for (name, beside) in [
        ("bigquerystorage.googleapis.com", "bigquery.googleapis.com"),
        (
            "bigquerystorage.us-east1.rep.googleapis.com",
            "bigquery.us-east1.rep.googleapis.com",
        ),
        (
            "europe-west2-bigquery.googleapis.com",
            "europe-west2-bigquery.googleapis.com",
        ),
    ] {
        assert_eq!(api_beside(name), beside);
    }
}
