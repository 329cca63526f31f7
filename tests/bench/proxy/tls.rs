//! One authority, one certificate and one cipher for everybody who is compared: TLS 1.3 with AES-256-GCM, on both sides of each proxy.

use std::path::Path;
use std::sync::Arc;

use harness::stage::Stage;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The name that everybody is asked under.
pub(super) const NAME: &str = "bigquery.googleapis.com";
/// The only cipher, as OpenSSL calls it.
pub(super) const CIPHER: &str = "TLS_AES_256_GCM_SHA384";
/// Files in the folder: the authority's certificate, that of [`NAME`], its key, and both in one.
pub(super) const ROOT: &str = "root.pem";
pub(super) const LEAF: &str = "leaf.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const BOTH: &str = "both.pem";

/// Makes the authority and the certificate, for the name and for this address.
pub(super) fn make(stage: &Stage, address: &str) -> std::path::PathBuf {
    let dir = stage.dir().join("bench");
    std::fs::create_dir_all(&dir).expect("makes a folder");
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::new(Vec::new()).expect("no names");
    // Not the leaf's: a library tells by the names who signed for whom.
    let subject = &mut root.distinguished_name;
    subject.push(DnType::CommonName, "the bench's authority");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).expect("signs").pem();
    let key = KeyPair::generate().expect("a key");
    let names = [NAME, address].map(str::to_owned);
    let leaf = CertificateParams::new(names).expect("names");
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key));
    let (leaf, key) = (leaf.expect("signs").pem(), key.serialize_pem());
    let both = format!("{leaf}{key}");
    for (name, text) in [(ROOT, root_pem), (LEAF, leaf), (KEY, key), (BOTH, both)] {
        std::fs::write(dir.join(name), text).expect("writes");
    }
    dir
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    })
}

/// The far side's end.
pub(super) fn server(dir: &Path) -> ServerConfig {
    let leaf = CertificateDer::from_pem_file(dir.join(LEAF)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join(KEY)).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The client's end, which trusts what is in the file.
pub(super) fn client(roots: &Path) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).expect("reads") {
        store.add(root.expect("a certificate")).expect("a root");
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
