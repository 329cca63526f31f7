//! How clients on this host come to trust the proxy: files to write, and the environment that names them. No credential is in any of
//! them: the token is a placeholder, and the proxy drops whatever a client sends.

mod diff;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use enforcer_proto::text::safe_line;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::atomic_file::{self, Rights};
use diff::Line;

/// What a new file may be: read by everybody, as clients of any uid must.
const PUBLISHED: Rights = Rights::of_mode(0o644);
/// The largest file that is changed, bytes; a bundle of roots has some 250 KB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The longest line that is shown, characters.
const SHOWN_CHARS_MAX: usize = 500;

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
            write(path, text, PUBLISHED)?;
        }
        Ok(())
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

/// One file as it is, and as it should be.
#[derive(Debug)]
pub struct Change {
    /// Which.
    pub path: PathBuf,
    /// What it holds, if it is there.
    before: Option<String>,
    after: String,
    rights: Rights,
}

impl Change {
    /// What `edit` makes of the file at `path`; a file that is there keeps its mode and owner.
    fn new(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<Self> {
        let (before, rights) =
            match read(path).with_context(|| format!("reading {}", path.display()))? {
                Some((text, rights)) => (Some(text), rights),
                None => (None, PUBLISHED),
            };
        let after = edit(before.as_deref().unwrap_or_default());
        Ok(Self {
            path: path.to_owned(),
            before,
            after,
            rights,
        })
    }

    /// Whether the file is not as it should be already.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.before.as_deref() != Some(self.after.as_str())
    }

    /// What changes, one indented line each: lines that go and come, and certificates only by their number. Lines that stay are not
    /// shown: a properties file may hold a password.
    #[must_use]
    pub fn shown(&self) -> String {
        let before = self.before.as_deref().unwrap_or_default();
        let (old, new) = (certificates(before), certificates(&self.after));
        if old.len() + new.len() > 0 {
            let (gone, added) = (old.difference(&new).count(), new.difference(&old).count());
            let (old, new) = (old.len(), new.len());
            return format!("  certificates: {old} before, {new} after; {gone} go, {added} come\n");
        }
        let changed = diff::lines(before, &self.after).into_iter();
        changed
            .filter_map(|line| match line {
                Line::Kept(_) => None,
                Line::Gone(text) => Some(('-', text)),
                Line::New(text) => Some(('+', text)),
            })
            .map(|(sign, text)| format!("  {sign}{}\n", safe_line(text, SHOWN_CHARS_MAX)))
            .collect()
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn apply(&self) -> Result<()> {
        write(&self.path, &self.after, self.rights)
    }
}

/// What setting clients up comes to: the bundle, the Cloud SDK's properties, an environment file. `roots` are the system's.
///
/// # Errors
/// When the daemon has not published its CA yet, the system has no roots, or a file cannot be read.
pub fn plan(
    files: &Files,
    roots: &[CertificateDer<'_>],
    sdk: Option<&Path>,
    env_file: Option<&Path>,
) -> Result<Vec<Change>> {
    let ca = std::fs::read_to_string(&files.ca).with_context(|| {
        format!(
            "reading {}: start the daemon once, it publishes its CA there",
            files.ca.display()
        )
    })?;
    let bundle = bundle(&ca, roots)?;
    let mut changes = vec![Change::new(&files.bundle, |_| bundle)?];
    if let Some(sdk) = sdk {
        changes.push(Change::new(&sdk.join("properties"), |text| {
            with_properties(text, files)
        })?);
    }
    if let Some(path) = env_file {
        changes.push(Change::new(path, |_| exports(files))?);
    }
    Ok(changes)
}

fn with_properties(text: &str, files: &Files) -> String {
    let (bundle, token) = (files.bundle.display(), files.token.display());
    let with_ca = set_property(text, "core", "custom_ca_certs_file", &bundle.to_string());
    set_property(&with_ca, "auth", "access_token_file", &token.to_string())
}

fn exports(files: &Files) -> String {
    let export = |(name, value)| format!("export {name}={value}\n");
    files.env().into_iter().map(export).collect()
}

/// The system's roots, then ours: each once, also where the system's hold ours already.
fn bundle(ca_pem: &str, roots: &[CertificateDer<'_>]) -> Result<String> {
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
fn certificates(text: &str) -> BTreeSet<Vec<u8>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .filter_map(Result::ok)
        .map(|certificate| certificate.to_vec())
        .collect()
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

/// A file's text and rights; `None` where there is none. A link is not followed: whoever may make links in the folder would choose
/// what root reads and replaces.
fn read(path: &Path) -> io::Result<Option<(String, Rights)>> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(io::Error::other("it is a link: name the file it leads to"));
        }
        other => other?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is no file of sensible size"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some((text, Rights::of_file(&metadata))))
}

fn write(path: &Path, text: &str, rights: Rights) -> Result<()> {
    atomic_file::replace(path, text.as_bytes(), rights)
        .with_context(|| format!("writing {}", path.display()))
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

    fn pem_of(bytes: &'static [u8]) -> String {
        pem(&CertificateDer::from(bytes))
    }

    fn roots() -> Vec<CertificateDer<'static>> {
        [b"one".as_slice(), b"two"].map(CertificateDer::from).into()
    }

    struct Host {
        dir: tempfile::TempDir,
        files: Files,
    }

    impl Host {
        /// A host whose daemon has published its CA.
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let files = Files::in_run_dir(dir.path());
            files.publish(&pem_of(b"ours"), &roots()).expect("writes");
            Self { dir, files }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn plan(&self) -> Result<Vec<Change>> {
            let env_file = self.path("env.sh");
            plan(
                &self.files,
                &roots(),
                Some(self.dir.path()),
                Some(&env_file),
            )
        }

        fn apply(&self) {
            for change in self.plan().expect("plans") {
                change.apply().expect("writes");
            }
        }

        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.path(name)).expect("text")
        }

        fn mode(&self, name: &str) -> u32 {
            let metadata = std::fs::metadata(self.path(name)).expect("is there");
            std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777
        }
    }

    #[test]
    fn setting_up_a_second_time_finds_everything_as_it_should_be() {
        let host = Host::new();
        let needed = |host: &Host| -> Vec<bool> {
            let plan = host.plan().expect("plans");
            plan.iter().map(Change::is_needed).collect()
        };
        assert_eq!(needed(&host), [false, true, true]);
        host.apply();
        assert_eq!(needed(&host), [false, false, false]);
        let properties = host.text("properties");
        assert!(
            properties.contains("custom_ca_certs_file") && properties.contains("access_token_file")
        );
        assert!(host.text("env.sh").contains("REQUESTS_CA_BUNDLE="));
    }

    #[test]
    fn without_a_published_ca_there_is_nothing_to_trust() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = Files::in_run_dir(dir.path());
        let error = plan(&files, &roots(), None, None).expect_err("no CA");
        assert!(format!("{error:#}").contains("start the daemon once"));
    }

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
    }

    #[test]
    fn a_root_that_the_system_names_twice_and_our_own_stand_in_the_bundle_once() {
        let twice: Vec<_> = [b"one".as_slice(), b"ours", b"one"]
            .map(CertificateDer::from)
            .into();
        let bundle = bundle(&pem_of(b"ours"), &twice).expect("has roots");
        assert_eq!(bundle, pem_of(b"one") + &pem_of(b"ours"));
    }

    #[test]
    fn what_changes_is_shown_line_by_line_and_what_stays_is_not() {
        let host = Host::new();
        let before = "[core]\ncustom_ca_certs_file = /old\n[proxy]\npassword = secret\n";
        std::fs::write(host.path("properties"), before).expect("writes");
        let plan = host.plan().expect("plans");
        let run = host.dir.path().display();
        assert_eq!(
            plan[1].shown(),
            format!(
                "  -custom_ca_certs_file = /old\n  +custom_ca_certs_file = {run}/ca-bundle.pem\n  +[auth]\n  +access_token_file = {run}/placeholder-token\n"
            )
        );
        std::fs::write(
            host.path("ca-bundle.pem"),
            pem_of(b"gone") + &pem_of(b"one"),
        )
        .expect("writes");
        assert_eq!(
            host.plan().expect("plans")[0].shown(),
            "  certificates: 2 before, 3 after; 1 go, 2 come\n"
        );
    }

    #[test]
    fn a_file_that_was_there_keeps_its_mode_and_a_new_one_can_be_read_by_all() {
        use std::os::unix::fs::PermissionsExt as _;
        let host = Host::new();
        std::fs::write(host.path("properties"), "").expect("writes");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(host.path("properties"), private).expect("closes");
        host.apply();
        assert_eq!(
            (host.mode("properties"), host.mode("env.sh")),
            (0o600, 0o644)
        );
    }

    #[test]
    fn a_link_is_neither_followed_nor_replaced() {
        let host = Host::new();
        std::fs::write(host.path("elsewhere"), "kept").expect("writes");
        std::os::unix::fs::symlink(host.path("elsewhere"), host.path("properties")).expect("links");
        let error = host.plan().expect_err("a link");
        assert!(
            format!("{error:#}").contains("name the file it leads to"),
            "{error:#}"
        );
    }
}
