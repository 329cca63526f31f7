//! The system's root certificates, and never our own bundle in their place: an environment that was set up for clients names that
//! one, and whoever took it for the system's would keep roots that the system has dropped.

use std::ffi::OsStr;
use std::path::Path;

use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use rustls_pki_types::CertificateDer;

/// Where distributions keep their roots in one file; the first that is there is taken.
const FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where they keep them one by one.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The system's roots, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. `own_bundle` is the bundle that we publish.
#[must_use]
pub fn system(own_bundle: &Path) -> Vec<CertificateDer<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE");
    let CertificateResult { certs, errors, .. } = if is_own(named.as_deref(), own_bundle) {
        load_certs_from_paths(first(&FILES), first(&FOLDERS))
    } else {
        load_native_certs()
    };
    for error in &errors {
        tracing::warn!(%error, "a root certificate of the system cannot be read");
    }
    certs
}

/// Whether the file that the environment names is our own bundle, also by another path to it.
fn is_own(named: Option<&OsStr>, own_bundle: &Path) -> bool {
    let Some(named) = named.map(Path::new) else {
        return false;
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(named) == real(own_bundle)
}

fn first(places: &'static [&'static str]) -> Option<&'static Path> {
    places.iter().map(Path::new).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_bundle_is_known_by_any_path_and_no_other_file_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (own, link) = (folder.path().join("own.pem"), folder.path().join("link"));
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(
            is_own(Some(own.as_os_str()), &own),
            "also before it is there"
        );
        std::fs::write(&own, "").unwrap();
        assert!(is_own(Some(link.as_os_str()), &own));
        assert!(!is_own(None, &own));
        assert!(!is_own(Some(OsStr::new("/etc/ssl/cert.pem")), &own));
    }
}
