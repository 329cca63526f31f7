//! Whoever is logged in to the Cloud SDK, by its own program: run as the daemon's user outside the daemon's cgroup, where all of it ends with its time,
//! and nothing that it prints is logged. Not by gcp_auth, which waits for it without a bound and leaves it behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gcp_auth::{Error, Token, TokenProvider};
use rustix::process::{getegid, geteuid};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::config::Program;
use crate::helper::Helper;

/// How long it may run.
const LIMIT: Duration = Duration::from_secs(8);
/// The bound on one call: what it leaves has to be ended too.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// How long what it printed is believed, seconds. It does not say how long its token lives, and gives a cached one while that has five minutes left.
const BELIEVED_S: u64 = 240;
const WORDS: [&str; 4] = ["gcloud", "auth", "print-access-token", "--quiet"];
/// What of the daemon's environment it is given, beside all that begins with `CLOUDSDK_`: where it finds itself, its login and the way out.
const ENVIRONMENT: [&str; 13] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SSL_CERT_FILE",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
];
const OWN: &str = "CLOUDSDK_";

/// The login of the Cloud SDK's.
pub(super) struct Gcloud {
    helper: Helper,
    held: Mutex<Option<Held>>,
}

struct Held {
    token: Arc<Token>,
    until_boot_ns: u64,
}

impl Gcloud {
    /// The program, to be run in cgroups of its own in `helpers`; none where none is found.
    pub(super) fn find(helpers: &Path) -> Option<Self> {
        let environment = environment(std::env::vars_os());
        let path = environment.get(&OsString::from("PATH"))?;
        let found = std::env::split_paths(path).map(|dir| dir.join(WORDS[0]));
        let program = found.into_iter().find(is_program)?;
        let mut words = WORDS.map(str::to_owned).to_vec();
        words[0] = program.to_str()?.to_owned();
        let program = Program {
            words,
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
        };
        let helper = Helper::new(helpers.to_owned(), program, WORDS[0].to_owned());
        Some(Self {
            helper: helper.with_environment(environment.into_iter().collect()),
            held: Mutex::default(),
        })
    }
}

fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    all.filter(|(name, _)| {
        let name = name.to_string_lossy();
        ENVIRONMENT.contains(&name.as_ref()) || name.starts_with(OWN)
    })
    .collect()
}

fn is_program(file: &PathBuf) -> bool {
    std::fs::metadata(file)
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[async_trait]
impl TokenProvider for Gcloud {
    async fn token(&self, _scopes: &[&str]) -> Result<Arc<Token>, Error> {
        // One at a time: who waits for another's gets that.
        let mut held = self.held.lock().await;
        let now_boot_ns = SystemClock.now().boot_ns;
        if let Some(held) = held.as_ref()
            && now_boot_ns < held.until_boot_ns
        {
            return Ok(Arc::clone(&held.token));
        }
        *held = None;
        let stop = CancellationToken::new();
        let printed = self.helper.output(LIMIT, &stop).await.map_err(|why| {
            tracing::warn!(why, "gcloud gave no token");
            Error::Str("gcloud gave no token")
        })?;
        let token = token(&printed)?;
        *held = Some(Held {
            token: Arc::clone(&token),
            until_boot_ns: super::super::plus(now_boot_ns, BELIEVED_S),
        });
        Ok(token)
    }

    async fn project_id(&self) -> Result<Arc<str>, Error> {
        Err(Error::Str("gcloud is asked for no project"))
    }
}

/// What it printed, as gcp_auth has tokens: its only public constructor is Deserialize.
fn token(printed: &[u8]) -> Result<Arc<Token>, Error> {
    #[derive(Serialize)]
    struct Shape<'a> {
        access_token: &'a str,
        expires_in: u64,
    }
    let text = std::str::from_utf8(printed).map_err(|_| Error::Str("gcloud printed no text"))?;
    let shape = Shape {
        access_token: text.trim(),
        expires_in: BELIEVED_S,
    };
    if shape.access_token.is_empty() {
        return Err(Error::Str("gcloud printed nothing"));
    }
    let unfit = |error| Error::Json("gcloud printed no token", error);
    let json = Zeroizing::new(serde_json::to_string(&shape).map_err(unfit)?);
    serde_json::from_str(&json).map(Arc::new).map_err(unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_what_it_finds_its_login_by_and_nothing_that_is_the_daemons() {
        let all = [
            ("PATH", "/usr/bin"),
            ("HOME", "/root"),
            ("CLOUDSDK_CONFIG", "/etc/sdk"),
            ("CREDENTIALS_DIRECTORY", "/run/credentials/enforcer"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/key.json"),
            ("LD_PRELOAD", "/tmp/x.so"),
        ];
        let all = all.map(|(name, text)| (OsString::from(name), OsString::from(text)));
        let given: Vec<OsString> = environment(all.into_iter()).into_keys().collect();
        assert_eq!(given, ["CLOUDSDK_CONFIG", "HOME", "PATH"]);
    }

    #[test]
    fn what_it_prints_is_a_token_for_four_minutes_and_nothing_is_none() {
        let token = token(b"ya29.of-a-login\n").expect("a token");
        assert_eq!(token.as_str(), "ya29.of-a-login");
        assert!(!token.has_expired());
        for none in [&b""[..], b" \n", b"\xff"] {
            assert!(super::token(none).is_err());
        }
    }
}
