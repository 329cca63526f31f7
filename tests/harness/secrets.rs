//! What must be nowhere: every world ends with a search for the secrets that were made in it, in all that the daemon, the command line and the
//! agents have written. So a run of the whole suite is a search of all that it wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What the command line printed, for the search.
pub(crate) const PRINTED: &str = "printed.log";
/// The far side, which is given the tokens, and what holds a key of the host's own, below the stage.
const WHERE_THEY_BELONG: [&str; 4] = ["google", "engine", "credentials", "base"];
/// The files that hold a key, below the stage.
const KEY_FILES: [&str; 7] = [
    "state/ca.key",
    "state/issuer.pem",
    "state/issuer-next.pem",
    "state/issuer-last.pem",
    "state/checkpoint-key",
    "credentials/issuer-key",
    "base/key.pem",
];
/// The most secrets of one kind that are looked for, and the largest file that is looked through, bytes: a test that makes more has its own way to look.
const SECRETS_MAX: usize = 64;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The shortest text that is looked for: shorter ones are found by chance.
const SECRET_BYTES_MIN: usize = 20;

/// A secret, and what it is.
struct Secret {
    what: String,
    bytes: Vec<u8>,
}

/// Looks through what is below `stage`, and says which secret is where. Never the secret.
pub(crate) fn found_in(stage: &Path) -> Vec<String> {
    let mut secrets = minted(stage);
    secrets.extend(assertions(stage));
    secrets.extend(keys(stage));
    secrets.retain(|secret| secret.bytes.len() >= SECRET_BYTES_MIN);
    if secrets.is_empty() {
        return Vec::new();
    }
    let mut found = BTreeSet::new();
    for path in files(stage) {
        let Ok(text) = std::fs::read(&path) else {
            continue;
        };
        let has = |secret: &&Secret| memchr::memmem::find(&text, &secret.bytes).is_some();
        let here = secrets.iter().filter(has);
        found.extend(here.map(|secret| format!("{} is in {}", secret.what, path.display())));
    }
    found.into_iter().collect()
}

/// The tokens that the far side gave.
fn minted(stage: &Path) -> Vec<Secret> {
    let lines = std::fs::read_to_string(stage.join("google/tokens.jsonl")).unwrap_or_default();
    let tokens = lines.lines().rev().filter_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        Some(Secret {
            what: format!("a {} token", entry["kind"].as_str()?),
            bytes: entry["token"].as_str()?.as_bytes().to_vec(),
        })
    });
    tokens.take(SECRETS_MAX).collect()
}

/// The assertions that it was shown.
fn assertions(stage: &Path) -> Vec<Secret> {
    let lines = std::fs::read_to_string(stage.join("google/requests.jsonl")).unwrap_or_default();
    let shown = lines.lines().rev().filter_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let body = entry["body"].as_str()?.to_owned();
        let mut form = form_urlencoded::parse(body.as_bytes());
        let (_, assertion) = form.find(|(name, _)| name == "subject_token")?;
        Some(Secret {
            what: "an assertion".to_owned(),
            bytes: assertion.into_owned().into_bytes(),
        })
    });
    shown.take(SECRETS_MAX).collect()
}

/// The host's private keys, as they stand in their files and as what is in them.
fn keys(stage: &Path) -> Vec<Secret> {
    let of_file = |name: &str| {
        let text = std::fs::read_to_string(stage.join(name)).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        let body: String = lines.collect();
        let raw = STANDARD.decode(&body).unwrap_or_default();
        // The checkpoint's key is one line: its last part is the secret. In others a plus is a letter, and what is behind the last may be any few.
        let is_one_line = !text.starts_with("-----");
        let last = is_one_line.then(|| body.rsplit('+').next()).flatten();
        let last = last.map(|last| last.as_bytes().to_vec());
        let all = [Some(body.clone().into_bytes()), Some(raw), last];
        let what = format!("what {name} holds");
        let secret = move |bytes| Secret {
            what: what.clone(),
            bytes,
        };
        all.into_iter().flatten().map(secret)
    };
    KEY_FILES.iter().flat_map(|name| of_file(name)).collect()
}

/// All that was written below the stage, but for where secrets belong.
fn files(stage: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![stage.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            let belongs = (folder == stage && WHERE_THEY_BELONG.contains(&&*name))
                || KEY_FILES.iter().any(|file| path == stage.join(file));
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if belongs || kind.is_symlink() {
            } else if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && entry
                    .metadata()
                    .is_ok_and(|file| file.len() <= FILE_BYTES_MAX)
            {
                found.push(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_an_assertion_and_a_key_are_found_wherever_they_were_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("one")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let token = "ya29.a-token-that-is-long-enough";
        let assertion = "eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmVk";
        write(
            "google/tokens.jsonl",
            format!("{{\"kind\": \"federated\", \"token\": \"{token}\"}}\n").as_bytes(),
        );
        write(
            "google/requests.jsonl",
            format!("{{\"body\": \"a=b&subject_token={assertion}\"}}\n").as_bytes(),
        );
        let raw = b"the raw bytes of a private key, as it is";
        let body = STANDARD.encode(raw);
        write(
            "state/issuer.pem",
            format!("-----BEGIN\n{body}\n-----END\n").as_bytes(),
        );
        write("state/audit/1", b"nothing");
        assert_eq!(found_in(dir.path()), Vec::<String>::new());
        for (name, text) in [
            ("daemon.log", token.as_bytes()),
            ("state/audit/2", assertion.as_bytes()),
            ("agent/core", &raw[..]),
            ("run/jwks.json", body.as_bytes()),
        ] {
            write(name, &[b"before ", text, b" behind"].concat());
            assert_eq!(found_in(dir.path()).len(), 1, "{name}");
            std::fs::remove_file(dir.path().join(name)).expect("removed");
        }
    }
}
