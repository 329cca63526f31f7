//! The authority as OpenSSL and webpki see it, and its life on disk.

use std::fs;
use std::process::Command;

use super::*;

const START: Now = Now {
    boot_ns: 0,
    unix_ns: 1_800_000_000 * NS_PER_S,
};
const DAY_NS: u64 = 86400 * NS_PER_S;

fn options(dir: &Path) -> AuthorityOptions {
    AuthorityOptions {
        dir: dir.to_owned(),
        host: "host-a".to_owned(),
        permitted: vec!["bq.corp.example".to_owned(), "googleapis.com".to_owned()],
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// `openssl verify` at the start of the authority's life.
fn openssl_verify(dir: &Path, leaf: &[u8], host: &str) -> (bool, String) {
    let path = dir.join("leaf.pem");
    // OpenSSL wants lines of 64 characters.
    let text = pem(leaf);
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    let body = lines.next().unwrap();
    let folded: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    fs::write(
        &path,
        format!(
            "{first}\n{}\n-----END CERTIFICATE-----\n",
            folded.join("\n")
        ),
    )
    .unwrap();
    let asked = if host.parse::<std::net::IpAddr>().is_ok() {
        "-verify_ip"
    } else {
        "-verify_hostname"
    };
    let output = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-attime",
            "1800000000",
        ])
        .args([asked, host, "-CAfile"])
        .arg(dir.join("ca.pem"))
        .arg(&path)
        .output()
        .expect("openssl is needed by this test: apt-get install openssl");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What a thief with the key could sign.
fn stolen_key_signs(authority: &Authority, sans: Vec<String>) -> Vec<u8> {
    let state = authority.locked();
    let mut params = CertificateParams::new(sans).unwrap();
    last(&mut params, unix_s(START), unix_s(START) + 3600);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    params
        .signed_by(&key, &state.issuer)
        .unwrap()
        .der()
        .to_vec()
}

#[test]
fn openssl_accepts_a_leaf_for_a_protected_name() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(options(dir.path()), START).unwrap();
    for name in [
        "bigquery.googleapis.com",
        "bigquery.us-east4.rep.googleapis.com",
        "bq.corp.example",
    ] {
        let leaf = authority.leaf(name, START).unwrap();
        let (sound, said) = openssl_verify(dir.path(), &leaf.cert[0], name);
        assert!(sound, "{said}");
        let (sound, _) = openssl_verify(dir.path(), &leaf.cert[0], "storage.googleapis.com");
        assert!(!sound, "the leaf is for one name only");
    }
}

#[test]
fn openssl_rejects_what_a_stolen_key_signs_for_other_names_and_for_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(options(dir.path()), START).unwrap();
    for name in [
        "example.com",
        "notgoogleapis.com",
        "googleapis.com.evil.example",
        "corp.example",
    ] {
        let forged = stolen_key_signs(&authority, vec![name.to_owned()]);
        let (sound, said) = openssl_verify(dir.path(), &forged, name);
        assert!(
            !sound && said.contains("permitted subtree violation"),
            "{name}: {said}"
        );
    }
    for address in ["192.0.2.1", "2001:db8::1"] {
        let forged = stolen_key_signs(&authority, vec![address.to_owned()]);
        let (sound, said) = openssl_verify(dir.path(), &forged, address);
        assert!(
            !sound && said.contains("excluded subtree violation"),
            "{address}: {said}"
        );
    }
}

#[test]
fn the_certificate_says_pathlen_zero_critical_constraints_and_thirty_days() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open(options(dir.path()), START).unwrap();
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(dir.path().join("ca.pem"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("CA:TRUE, pathlen:0"), "{text}");
    assert!(text.contains("X509v3 Name Constraints: critical"), "{text}");
    assert!(
        text.contains("DNS:googleapis.com") && text.contains("prime256v1"),
        "{text}"
    );
    let certificate =
        CertificateDer::from_pem_slice(&fs::read(dir.path().join("ca.pem")).unwrap()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    let life = parsed.validity().not_after.timestamp() - 1_800_000_000;
    assert_eq!(u64::try_from(life).unwrap(), AUTHORITY_LIFE.as_secs());
}

#[test]
fn a_name_outside_the_constraints_gets_no_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(options(dir.path()), START).unwrap();
    for name in [
        "example.com",
        "xgoogleapis.com",
        "googleapis.com.evil.example",
    ] {
        assert!(matches!(
            authority.leaf(name, START),
            Err(AuthorityError::Foreign(_))
        ));
    }
}

#[test]
fn a_leaf_is_kept_until_shortly_before_its_end_and_then_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(options(dir.path()), START).unwrap();
    let name = "bigquery.googleapis.com";
    let first = authority.leaf(name, START).unwrap();
    let later = START.plus_ns(DAY_NS - LEAF_MARGIN.as_secs() * NS_PER_S - NS_PER_S);
    assert!(Arc::ptr_eq(&first, &authority.leaf(name, later).unwrap()));
    let end = later.plus_ns(NS_PER_S);
    assert!(!Arc::ptr_eq(&first, &authority.leaf(name, end).unwrap()));
}

#[test]
fn leaves_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(options(dir.path()), START).unwrap();
    for index in 0..LEAVES_MAX + 5 {
        authority
            .leaf(&format!("n{index}.googleapis.com"), START)
            .unwrap();
    }
    assert_eq!(authority.locked().leaves.len(), LEAVES_MAX);
}

#[test]
fn the_authority_on_disk_is_used_again_until_it_ends_soon() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(options(dir.path()), START).unwrap().pem();
    let again = Authority::open(options(dir.path()), START.plus_ns(20 * DAY_NS)).unwrap();
    assert_eq!(first, again.pem());
    assert!(!again.renew(START.plus_ns(20 * DAY_NS)).unwrap());
    assert!(again.renew(START.plus_ns(24 * DAY_NS)).unwrap());
    assert_ne!(first, again.pem());
    let reopened = Authority::open(options(dir.path()), START.plus_ns(24 * DAY_NS)).unwrap();
    assert_eq!(reopened.pem(), again.pem());
}

#[test]
fn what_was_made_by_a_wall_clock_that_was_set_back_since_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = START.plus_ns(DAY_NS);
    let authority = Authority::open(options(dir.path()), ahead).unwrap();
    let name = "bigquery.googleapis.com";
    let first = authority.leaf(name, ahead).unwrap();
    // A little behind is within what certificates allow for.
    let behind = Now {
        unix_ns: ahead.unix_ns - BACKDATE.as_secs() * NS_PER_S,
        ..ahead
    };
    assert!(!authority.renew(behind).unwrap());
    assert!(Arc::ptr_eq(&first, &authority.leaf(name, behind).unwrap()));
    let set_back = Now {
        unix_ns: START.unix_ns,
        ..ahead
    };
    assert!(authority.renew(set_back).unwrap());
    let anew = authority.leaf(name, set_back).unwrap();
    assert!(!Arc::ptr_eq(&first, &anew));
    let (accepted, said) = openssl_verify(dir.path(), &anew.cert[0], name);
    assert!(accepted, "{said}");
    // Likewise at a start.
    let other = tempfile::tempdir().unwrap();
    let made = Authority::open(options(other.path()), ahead).unwrap().pem();
    let reopened = Authority::open(options(other.path()), set_back).unwrap();
    assert_ne!(made, reopened.pem());
    // Set forward past its end, a day is nothing.
    assert!(!reopened.renew(START.plus_ns(DAY_NS)).unwrap());
}

#[test]
fn other_constraints_a_foreign_key_or_garbage_on_disk_make_a_new_authority() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(options(dir.path()), START).unwrap().pem();
    let mut narrower = options(dir.path());
    narrower.permitted = vec!["googleapis.com".to_owned()];
    let second = Authority::open(narrower.clone(), START).unwrap().pem();
    assert_ne!(first, second);
    keyfile::write(
        &dir.path().join("ca.key"),
        &KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    let third = Authority::open(narrower.clone(), START).unwrap().pem();
    assert_ne!(second, third);
    keyfile::write(&dir.path().join("ca.pem"), "garbage").unwrap();
    assert_ne!(third, Authority::open(narrower, START).unwrap().pem());
}

#[test]
fn a_key_that_others_can_read_stops_the_start_instead_of_being_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    Authority::open(options(dir.path()), START).unwrap();
    fs::set_permissions(dir.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = Authority::open(options(dir.path()), START).unwrap_err();
    assert!(error.to_string().contains("chmod 0600"), "{error}");
}

#[test]
fn an_authority_without_constraints_is_never_made() {
    let dir = tempfile::tempdir().unwrap();
    for permitted in [Vec::new(), vec![String::new()]] {
        let options = AuthorityOptions {
            permitted,
            ..options(dir.path())
        };
        assert!(matches!(
            Authority::open(options, START),
            Err(AuthorityError::Unconfined)
        ));
    }
}
