//! The bundle of roots that replaces a client's own: the system's, and the proxy's CA.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The system's roots, then ours: each once, also where the system's hold ours already.
pub(super) fn bundle(ca_pem: &str, roots: &[CertificateDer<'_>]) -> Result<String> {
    let ours = CertificateDer::pem_slice_iter(ca_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("reading the proxy's CA")?;
    let mut known: BTreeSet<&[u8]> = ours.iter().map(AsRef::as_ref).collect();
    let system: String = roots
        .iter()
        .filter(|root| known.insert((*root).as_ref()))
        .map(pem)
        .collect();
    ensure!(
        !system.is_empty(),
        "the system has no root certificates, so clients could verify nothing but the proxy: install ca-certificates, or name a file of roots in SSL_CERT_FILE"
    );
    Ok(system + ca_pem)
}

/// The certificates of a text, each once.
pub(super) fn certificates(text: &str) -> BTreeSet<Vec<u8>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .filter_map(Result::ok)
        .map(|certificate| certificate.to_vec())
        .collect()
}

/// The text without these certificates; all else of it stays as it is.
pub(super) fn without(text: &str, gone: &BTreeSet<Vec<u8>>) -> String {
    let (mut kept, mut block) = (String::new(), String::new());
    for line in text.split_inclusive('\n') {
        let is_begin = line.trim_end() == "-----BEGIN CERTIFICATE-----";
        if is_begin {
            // The one before had no end.
            kept += &std::mem::take(&mut block);
        }
        if !is_begin && block.is_empty() {
            kept += line;
            continue;
        }
        block += line;
        if line.trim_end() == "-----END CERTIFICATE-----" {
            let block = std::mem::take(&mut block);
            if certificates(&block).is_disjoint(gone) {
                kept += &block;
            }
        }
    }
    kept + &block
}

pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::pem_of;
    use super::*;

    #[test]
    fn of_a_text_only_the_certificates_that_are_named_go_and_all_else_stays() {
        let [one, two] = [pem_of(b"one"), pem_of(b"two")];
        let odd = "-----BEGIN CERTIFICATE-----\nno end\n";
        let text = format!("# a\r\n{one}# b\n{two}{odd}{one}# c");
        let gone = certificates(&one);
        assert_eq!(without(&text, &gone), format!("# a\r\n# b\n{two}{odd}# c"));
        assert_eq!(without(odd, &gone), odd);
    }

    #[test]
    fn a_root_that_the_system_names_twice_and_our_own_stand_in_the_bundle_once() {
        let twice: Vec<_> = [b"one".as_slice(), b"ours", b"one"]
            .map(CertificateDer::from)
            .into();
        let bundle = bundle(&pem_of(b"ours"), &twice).expect("has roots");
        assert_eq!(bundle, pem_of(b"one") + &pem_of(b"ours"));
    }
}
