//! A host in a folder, as the tests of this module need it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::bundle::pem;
use super::{Files, Found, Host, Part, Place, Plan, Removed, Wanted, plan, remove};

pub(super) fn pem_of(bytes: &'static [u8]) -> String {
    pem(&CertificateDer::from(bytes))
}

pub(super) fn roots() -> Vec<CertificateDer<'static>> {
    [b"one".as_slice(), b"two"].map(CertificateDer::from).into()
}

/// Where a host has its Cloud SDK's properties.
pub(super) const PROPERTIES: &str = "opt/google-cloud-sdk/properties";

/// A host whose daemon has published its CA, with a Cloud SDK and a trust store.
pub(super) struct Unpacked {
    dir: tempfile::TempDir,
    pub(super) files: Files,
    /// Whether nothing stands in for the metadata server.
    pub(super) needs_token: bool,
}

impl Unpacked {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let run = dir.path().join("run");
        let files = Files::in_run_dir(&run);
        let host = Self {
            dir,
            files,
            needs_token: false,
        };
        std::fs::create_dir_all(run).expect("makes");
        host.files
            .publish(&pem_of(b"ours"), &roots())
            .expect("writes");
        for path in [
            "opt/google-cloud-sdk/bin/gcloud",
            "usr/sbin/update-ca-certificates",
            "usr/local/share/ca-certificates/theirs.crt",
        ] {
            host.write(path, "");
        }
        host
    }

    /// Has the Cloud SDK reached by a link, as packages and people do.
    pub(super) fn through_a_link(&self) {
        let sdk = self.path("opt/google-cloud-sdk");
        std::fs::rename(&sdk, self.path("opt/real")).expect("renames");
        std::os::unix::fs::symlink("real", sdk).expect("links");
    }

    /// Has that link lead to a folder whose files root runs, with properties as they are in the SDK.
    pub(super) fn lead_elsewhere(&self) {
        let text = self.text("opt/real/properties");
        self.write("etc/cron.daily/properties", &text);
        std::os::unix::fs::symlink("../etc/cron.daily", self.path("opt/next")).expect("links");
        let link = self.path("opt/google-cloud-sdk");
        std::fs::rename(self.path("opt/next"), link).expect("renames");
    }

    /// Has it belong to somebody else.
    pub(super) fn give_away(&self, name: &str) {
        std::os::unix::fs::chown(self.path(name), Some(64321), None).expect("gives away");
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        std::fs::write(path, text).expect("writes");
    }

    pub(super) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("text")
    }

    pub(super) fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).expect("is there").mode() & 0o7777
    }

    pub(super) fn host(&self) -> Host {
        Host::unpacked(self.dir.path()).expect("is root's")
    }

    pub(super) fn kept(&self) -> Place {
        self.host().kept(Path::new("/state")).expect("below")
    }

    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        plan(&Wanted {
            host: &self.host(),
            files: &self.files,
            roots: &roots(),
            sdk: None,
            parts: &Part::ALL,
            needs_token: self.needs_token,
        })
    }

    pub(super) fn set_up(&self) -> anyhow::Result<()> {
        let mut found = Found::load(&self.kept())?;
        for step in self.plan()?.steps {
            step.apply(&mut found, &self.kept())?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, is_dry_run: bool) -> Vec<Removed> {
        let mut found = Found::load(&self.kept()).expect("reads");
        remove(&self.host(), &mut found, &self.kept(), is_dry_run).expect("removes")
    }

    /// Every file with its text, and every folder.
    pub(super) fn everything(&self) -> Vec<(PathBuf, Option<String>)> {
        let mut all = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("reads") {
                let path = entry.expect("reads").path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                all.push((path.clone(), std::fs::read_to_string(path).ok()));
            }
        }
        all.sort();
        all
    }
}
