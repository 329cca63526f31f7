//! How clients on this host come to trust the proxy: files that are published to them, and what of the host is set up to name those.
//!
//! No credential is in any of it: the token is a placeholder, and the proxy drops whatever a client sends. `setup` plans what is to be
//! written and writes it, `found` keeps what was there before, `remove` puts that back, `check` has each client connect, `container` says what a
//! runtime is to be told, `unpacked` is what of an unpacked root is otherwise.

mod bundle;
mod change;
pub mod check;
pub mod container;
mod diff;
mod found;
mod host;
mod ini;
mod place;
mod remove;
mod setup;
#[cfg(test)]
mod testing;
mod unpacked;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustls_pki_types::CertificateDer;

pub use change::Change;
pub use found::Found;
pub use host::{Host, Store};
pub use place::Place;
pub use remove::{Removal, Removed, remove};
pub use setup::{Part, Plan, Wanted, plan};

use bundle::bundle;
use change::PUBLISHED;

use crate::atomic_file::{self, Rights};

/// What a client sends where a token is expected. It opens nothing.
pub const PLACEHOLDER_TOKEN: &str = "enforcer-placeholder";

/// The files that clients read, all in the run folder.
#[derive(Debug, Clone)]
pub struct Files {
    /// The proxy's CA alone.
    pub ca: PathBuf,
    /// The system's roots and the proxy's CA: what replaces a client's own roots.
    pub bundle: PathBuf,
    /// The placeholder token.
    pub token: PathBuf,
}

impl Files {
    /// The files' places.
    #[must_use]
    pub fn in_run_dir(run_dir: &Path) -> Self {
        Self {
            ca: run_dir.join("ca.pem"),
            bundle: run_dir.join("ca-bundle.pem"),
            token: run_dir.join("placeholder-token"),
        }
    }

    /// Writes all three; `ca_pem` is the proxy's CA, `roots` are the system's.
    ///
    /// # Errors
    /// When a file cannot be written, or the system has no roots.
    pub fn publish(&self, ca_pem: &str, roots: &[CertificateDer<'_>]) -> Result<()> {
        let bundle = bundle(ca_pem, roots)?;
        for (path, text) in [
            (&self.ca, ca_pem),
            (&self.bundle, &bundle),
            (&self.token, PLACEHOLDER_TOKEN),
        ] {
            atomic_file::replace(path, text.as_bytes(), Rights::of_mode(PUBLISHED))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// The environment of a client in a workload: the Cloud SDK (`bq`, `gcloud`), Python, gRPC, Node and whatever reads OpenSSL's own.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = self.trust();
        env.push((
            "SSL_CERT_FILE".to_owned(),
            self.bundle.display().to_string(),
        ));
        env.push((
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE".to_owned(),
            self.token.display().to_string(),
        ));
        env
    }

    /// What of it may be set for a whole host: whom the clients trust that look nowhere else. Nothing that would take the place of
    /// somebody's own credentials, or of the roots of every program.
    #[must_use]
    pub fn trust(&self) -> Vec<(String, String)> {
        let (bundle, ca) = (self.bundle.display(), self.ca.display());
        [
            ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundle.to_string()),
            ("REQUESTS_CA_BUNDLE", bundle.to_string()),
            ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", bundle.to_string()),
            ("NODE_EXTRA_CA_CERTS", ca.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{pem_of, roots};
    use super::*;

    #[test]
    fn without_roots_of_the_system_nothing_is_published_and_the_cure_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = Files::in_run_dir(dir.path());
        for roots in [vec![], vec![CertificateDer::from(b"ours".as_slice())]] {
            let error = files
                .publish(&pem_of(b"ours"), &roots)
                .expect_err("no roots");
            assert!(
                error.to_string().contains("install ca-certificates"),
                "{error}"
            );
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        files.publish(&pem_of(b"ours"), &roots()).expect("writes");
    }

    #[test]
    fn what_is_set_for_a_whole_host_takes_the_place_of_nobodys_credentials() {
        let files = Files::in_run_dir(Path::new("/run/enforcer"));
        let trust = files.trust();
        assert!(
            trust
                .iter()
                .all(|(name, _)| !name.contains("TOKEN") && !name.starts_with("SSL_"))
        );
        assert!(trust.iter().all(|variable| files.env().contains(variable)));
    }
}
