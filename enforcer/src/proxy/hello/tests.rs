//! Hellos as a TLS library writes them, cut and broken in every way.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::client::{EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs::{default_provider, hpke};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<Hello>, HelloRefusal> {
    HelloReader::default().push(bytes)
}

/// What comes of the bytes when they come in parts of these sizes, over and over.
fn read_in_parts(mut bytes: &[u8], sizes: &[usize]) -> Result<Option<Hello>, HelloRefusal> {
    let mut reader = HelloReader::default();
    for size in sizes.iter().cycle() {
        let (part, rest) = bytes.split_at((*size).clamp(1, bytes.len().max(1)).min(bytes.len()));
        bytes = rest;
        let done = reader.push(part)?;
        if done.is_some() || bytes.is_empty() {
            return Ok(done);
        }
    }
    Ok(None)
}

fn written(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("writes");
    bytes
}

fn config(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn hello_for(name: &str) -> Vec<u8> {
    written(config(rustls::ALL_VERSIONS), name)
}

/// A record that holds `content`.
fn record(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("fits");
    [&[22, 3, 1], &length.to_be_bytes()[..], content].concat()
}

/// The same hello in records of so many bytes each.
fn in_records(hello: &[u8], bytes: usize) -> Vec<u8> {
    let parts = hello[RECORD_HEAD_BYTES..].chunks(bytes);
    parts.flat_map(record).collect()
}

/// A hello with these extensions, each a kind and its content.
fn with_extensions(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let long = |content: &[u8]| {
        let length = u16::try_from(content.len()).expect("fits");
        [&length.to_be_bytes()[..], content].concat()
    };
    let each =
        |(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &long(content)].concat();
    let list: Vec<u8> = extensions.iter().flat_map(each).collect();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(long(&list));
    let length = u32::try_from(body.len()).expect("fits").to_be_bytes();
    record(&[&[CLIENT_HELLO], &length[1..], &body].concat())
}

fn names(list: &[&[u8]]) -> (u16, Vec<u8>) {
    let each = |name: &&[u8]| {
        let length = u16::try_from(name.len()).expect("fits").to_be_bytes();
        [&[HOST_NAME], &length[..], name].concat()
    };
    let list: Vec<u8> = list.iter().flat_map(each).collect();
    let length = u16::try_from(list.len()).expect("fits").to_be_bytes();
    (EXTENSION_SERVER_NAME, [&length[..], &list].concat())
}

fn named(name: &[u8]) -> Result<Option<Hello>, HelloRefusal> {
    read(&with_extensions(&[names(&[name])]))
}

#[test]
fn the_name_and_the_protocols_of_a_librarys_hello_are_read_in_every_version() {
    for versions in [
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13],
        rustls::ALL_VERSIONS,
    ] {
        let mut config = config(versions);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let hello = read(&written(config, "Storage.GoogleAPIs.com")).expect("reads");
        let wanted = Hello {
            name: "storage.googleapis.com".to_owned(),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        assert_eq!(hello, Some(wanted));
    }
}

#[test]
fn a_hello_in_several_records_is_put_together_up_to_a_bound() {
    let hello = hello_for("storage.googleapis.com");
    let whole = read(&hello);
    for bytes in [hello.len() / 2, 100, hello.len().div_ceil(RECORDS_MAX)] {
        assert_eq!(read(&in_records(&hello, bytes)), whole, "{bytes} a record");
    }
    let most = hello.len().div_ceil(RECORDS_MAX + 2);
    assert_eq!(
        read(&in_records(&hello, most)),
        Err(HelloRefusal::TooManyRecords)
    );
}

#[test]
fn what_follows_the_hello_in_records_of_its_own_is_not_looked_at() {
    let mut bytes = hello_for("storage.googleapis.com");
    bytes.extend([0xff; 20_000]);
    assert!(read(&bytes).expect("reads").is_some());
}

#[test]
fn a_hello_without_a_name_or_with_a_hidden_one_is_refused() {
    // A client that connects to an address sends no name.
    assert_eq!(read(&hello_for("192.0.2.1")), Err(HelloRefusal::NoName));
    assert_eq!(read(&with_extensions(&[])), Err(HelloRefusal::NoName));
    let suite = hpke::ALL_SUPPORTED_SUITES[0];
    let (key, _) = suite.generate_key_pair().expect("a key");
    let mode = EchMode::Grease(EchGreaseConfig::new(suite, key));
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_ech(mode)
        .expect("ECH")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let hello = written(config, "storage.googleapis.com");
    assert_eq!(read(&hello), Err(HelloRefusal::Encrypted));
    for kind in EXTENSIONS_ENCRYPTED {
        let hello = with_extensions(&[names(&[b"a.example"]), (kind, vec![1])]);
        assert_eq!(read(&hello), Err(HelloRefusal::Encrypted), "{kind:x}");
    }
}

#[test]
fn a_name_that_is_an_address_or_holds_odd_letters_is_refused() {
    for name in [
        &b"192.0.2.1"[..],
        b"0xc0.0x00.0x02.0x01",
        b"127.1",
        b"2001:db8::1",
        b"[::1]",
        b"bigquery.googleapis.com\0.example.com",
        b"bigquery.googleapis.com\n",
        b"a..example",
        b".",
        b"*.googleapis.com",
        "b\u{131}gquery.googleapis.com".as_bytes(),
        &[0xff, 0xfe],
        &[b'a'; 64],
        "a.".repeat(150).as_bytes(),
    ] {
        assert!(
            matches!(named(name), Err(HelloRefusal::OddName(_))),
            "{:?}",
            String::from_utf8_lossy(name)
        );
    }
    let name = named(b"My_Bucket.storage.googleapis.com.").expect("reads");
    assert_eq!(
        name.expect("a hello").name,
        "my_bucket.storage.googleapis.com"
    );
}

#[test]
fn what_two_readers_could_take_differently_is_refused() {
    let one = names(&[b"a.example"]);
    let two = names(&[b"a.example", b"bigquery.googleapis.com"]);
    for hello in [
        with_extensions(&[two]),
        with_extensions(&[one.clone(), one.clone()]),
        with_extensions(&[(EXTENSION_SERVER_NAME, vec![0, 4, 1, 0, 1, b'a'])]),
        with_extensions(&[one.clone(), (EXTENSION_ALPN, vec![0, 1, 0])]),
        // A second message in the record of the first.
        record(
            &[
                &with_extensions(std::slice::from_ref(&one))[RECORD_HEAD_BYTES..],
                &[1, 0, 0, 0],
            ]
            .concat(),
        ),
        // An empty record, and one of another kind, between its parts.
        [record(&[1]), record(&[])].concat(),
        [record(&[1]), vec![21, 3, 3, 0, 2, 1, 0]].concat(),
    ] {
        let refused = read(&hello);
        assert!(
            matches!(refused, Err(HelloRefusal::Malformed(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn what_is_no_tls_is_known_by_its_first_bytes() {
    for bytes in [
        &b"G"[..],
        b"SSH-2.0-OpenSSH_9\r\n",
        &[0x80, 0x2e, 1, 3, 1],
        &[22, 2, 0],
        &[22, 3, 1, 0, 1, 2],
    ] {
        assert_eq!(read(bytes), Err(HelloRefusal::NotTls), "{bytes:?}");
    }
}

#[test]
fn a_hello_that_announces_or_brings_too_much_is_refused() {
    assert_eq!(
        read(&record(&[1, 0, 0x40, 0])),
        Err(HelloRefusal::TooLong),
        "announced"
    );
    let padding = (21, vec![0; HELLO_BYTES_MAX - 100]);
    let hello = with_extensions(&[names(&[b"a.example"]), padding]);
    assert!(read(&hello).expect("reads").is_some(), "within the bound");
    assert_eq!(read(&in_records(&hello, 300)), Err(HelloRefusal::TooLong));
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        sizes in prop::collection::vec(1_usize..300, 1..8), records in 60_usize..2000, broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>()))
    ) {
        let mut bytes = in_records(&hello_for("storage.googleapis.com"), records);
        if let Some((at, byte)) = broken {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(read_in_parts(&bytes, &sizes), read(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_read_without_panic_and_alike_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..600), sizes in prop::collection::vec(1_usize..40, 1..5), is_framed in any::<bool>()
    ) {
        let bytes = if is_framed {
            let length = u32::try_from(bytes.len()).expect("fits").to_be_bytes();
            record(&[&[CLIENT_HELLO], &length[1..], &bytes].concat())
        } else {
            bytes
        };
        prop_assert_eq!(read_in_parts(&bytes, &sizes), read(&bytes));
    }

    #[test]
    fn a_name_that_is_read_is_one_that_everything_compares_alike(name in prop::collection::vec(prop_oneof![Just(b'.'), Just(b'-'), any::<u8>(), b'a'..=b'z'], 1..80)) {
        if let Ok(Some(hello)) = named(&name) {
            prop_assert!(hello.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')));
            prop_assert_eq!(hello.name, String::from_utf8(name).expect("ASCII").trim_end_matches('.').to_ascii_lowercase());
        }
    }
}
