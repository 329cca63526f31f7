//! How clients on this host come to trust the proxy: files to write, and the environment that names them. No credential is in any of
//! them: the token is a placeholder, and the proxy drops whatever a client sends.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustls_pki_types::CertificateDer;

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

    /// Writes all three; `ca_pem` is the proxy's CA.
    ///
    /// # Errors
    /// When a file cannot be written, or the system has no roots.
    pub fn publish(&self, ca_pem: &str) -> Result<()> {
        write_atomically(&self.ca, ca_pem)?;
        write_atomically(&self.bundle, &bundle(ca_pem))?;
        write_atomically(&self.token, PLACEHOLDER_TOKEN)
    }

    /// The environment of a client in a workload: the Cloud SDK (`bq`, `gcloud`), Python, gRPC, Node and whatever reads OpenSSL's own.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let bundle = [
            "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        ];
        let mut env: Vec<(String, String)> = bundle
            .iter()
            .map(|name| ((*name).to_owned(), self.bundle.display().to_string()))
            .collect();
        env.push((
            "NODE_EXTRA_CA_CERTS".to_owned(),
            self.ca.display().to_string(),
        ));
        env.push((
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE".to_owned(),
            self.token.display().to_string(),
        ));
        env
    }
}

/// One file to be written.
#[derive(Debug)]
pub struct Change {
    /// Which.
    pub path: PathBuf,
    text: String,
}

impl Change {
    /// What would be written; certificates are only counted.
    #[must_use]
    pub fn shown(&self) -> String {
        let certificates = self.text.matches("-----BEGIN CERTIFICATE-----").count();
        if certificates > 0 {
            format!("  {certificates} certificates")
        } else {
            self.text.clone()
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn apply(&self) -> Result<()> {
        write_atomically(&self.path, &self.text)
    }
}

/// What setting clients up would change: the bundle, the Cloud SDK's properties, an environment file.
///
/// # Errors
/// When the daemon has not published its CA yet, or a file cannot be read.
pub fn plan(files: &Files, sdk: Option<&Path>, env_file: Option<&Path>) -> Result<Vec<Change>> {
    let ca = std::fs::read_to_string(&files.ca).with_context(|| {
        format!(
            "reading {}: start the daemon once, it publishes its CA there",
            files.ca.display()
        )
    })?;
    let mut changes = vec![Change {
        path: files.bundle.clone(),
        text: bundle(&ca),
    }];
    if let Some(sdk) = sdk {
        let path = sdk.join("properties");
        let before = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let with_ca = set_property(
            &before,
            "core",
            "custom_ca_certs_file",
            &files.bundle.display().to_string(),
        );
        let text = set_property(
            &with_ca,
            "auth",
            "access_token_file",
            &files.token.display().to_string(),
        );
        changes.push(Change { path, text });
    }
    if let Some(path) = env_file {
        let text = files
            .env()
            .iter()
            .map(|(name, value)| format!("export {name}={value}\n"))
            .collect();
        changes.push(Change {
            path: path.to_owned(),
            text,
        });
    }
    Ok(changes)
}

/// The system's roots, then ours.
fn bundle(ca_pem: &str) -> String {
    let roots = rustls_native_certs::load_native_certs();
    for error in &roots.errors {
        tracing::warn!(%error, "a system root could not be read and is not in the bundle");
    }
    let mut text: String = roots.certs.iter().map(pem).collect();
    text.push_str(ca_pem);
    text
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
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

/// `text` (INI) with `key` of `section` set to `value`, everything else as it was.
fn set_property(text: &str, section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let line = format!("{key} = {value}");
    let mut out: Vec<String> = Vec::new();
    let (mut is_inside, mut is_set) = (false, false);
    for old in text.lines() {
        if old.trim_start().starts_with('[') {
            if is_inside && !is_set {
                out.push(line.clone());
                is_set = true;
            }
            is_inside = old.trim() == header;
        }
        if is_inside && old.split('=').next().is_some_and(|name| name.trim() == key) {
            if !is_set {
                out.push(line.clone());
                is_set = true;
            }
        } else {
            out.push(old.to_owned());
        }
    }
    if !is_set {
        if !is_inside {
            out.push(header);
        }
        out.push(line);
    }
    out.join("\n") + "\n"
}

fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().context("the file has no folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let next = path.with_extension("next");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&next)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_set_in_its_section_and_nothing_else_changes() {
        let before = "[core]\ndisable_usage_reporting = True\ncustom_ca_certs_file = /old\n\n[proxy]\ntype = http\n";
        let after = set_property(before, "core", "custom_ca_certs_file", "/new");
        assert_eq!(
            after,
            "[core]\ndisable_usage_reporting = True\ncustom_ca_certs_file = /new\n\n[proxy]\ntype = http\n"
        );
        assert_eq!(
            set_property(&after, "core", "custom_ca_certs_file", "/new"),
            after,
            "doing it again changes nothing"
        );
        let with_auth = set_property(&after, "auth", "access_token_file", "/token");
        assert!(
            with_auth.ends_with("[auth]\naccess_token_file = /token\n")
                && with_auth.starts_with(&after)
        );
        assert_eq!(set_property("", "core", "a", "1"), "[core]\na = 1\n");
    }

    #[test]
    fn setting_up_twice_writes_the_same_and_carries_no_credential() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = Files::in_run_dir(dir.path());
        assert!(
            plan(&files, None, None).is_err(),
            "without a published CA there is nothing to trust"
        );
        files
            .publish("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
            .expect("writes");
        let env_file = dir.path().join("env.sh");
        for change in plan(&files, Some(dir.path()), Some(&env_file)).expect("plans") {
            change.apply().expect("writes");
        }
        let properties = std::fs::read_to_string(dir.path().join("properties")).expect("text");
        assert!(
            properties.contains("custom_ca_certs_file") && properties.contains("access_token_file")
        );
        assert!(
            std::fs::read_to_string(env_file)
                .expect("text")
                .contains("REQUESTS_CA_BUNDLE=")
        );
    }
}
