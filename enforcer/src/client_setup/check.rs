//! Whether the clients of this host trust the proxy: each connects to BigQuery's name as an agent would, and what it hears is the proxy's or is not.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use enforcer_proto::refusal::Code;
use enforcer_proto::text::safe_line;

use super::change::read;
use super::host::{Host, open_to_all};
use super::setup::ENVIRONMENT;

/// What a script says with its exit code where the library it is about is not there.
const ABSENT: i32 = 3;
/// The longest answer that is shown, characters.
const SAID_CHARS_MAX: usize = 300;
/// What an answer of BigQuery's own is known by.
const BIGQUERY: &str = "bigquery#";

/// A kind of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The Cloud SDK's `bq`.
    Sdk,
    /// Python's requests, which google-auth and google-cloud-bigquery use.
    Python,
    /// gRPC, for rows by the storage API.
    Grpc,
    /// Node.
    Node,
    /// What reads the system's trust store.
    Store,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sdk, Self::Python, Self::Grpc, Self::Node, Self::Store];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Python => "python",
            Self::Grpc => "grpc",
            Self::Node => "node",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A program that is to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Of which kind.
    pub client: Client,
    /// Which.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The proxy was heard: the client trusts it.
    Trusts {
        /// What it said.
        said: String,
    },
    /// It was not.
    Fails {
        /// What the client said instead.
        said: String,
    },
    /// There was nothing to try.
    NotTried {
        /// Why.
        why: String,
    },
}

/// Programs besides those that are found on `PATH`.
#[derive(Debug)]
pub struct Named<'a> {
    /// The Cloud SDK's folder.
    pub sdk: Option<&'a Path>,
    /// Interpreters of Python.
    pub pythons: &'a [PathBuf],
    /// Node's programs.
    pub nodes: &'a [PathBuf],
}

/// What is to be tried of one kind; nothing where there is no such client here.
///
/// # Errors
/// When the Cloud SDK that is named is none.
pub fn attempts(host: &Host, client: Client, named: &Named<'_>) -> Result<Vec<Attempt>> {
    let of = |programs: Vec<PathBuf>, arguments: &[&str]| {
        let attempt = |program| Attempt {
            client,
            program,
            arguments: arguments.iter().map(OsString::from).collect(),
        };
        programs.into_iter().map(attempt).collect()
    };
    let found = |name: &str, named: &[PathBuf]| {
        let mut programs: Vec<PathBuf> = open_to_all(name).into_iter().collect();
        programs.extend(named.iter().cloned());
        programs
    };
    Ok(match client {
        Client::Sdk => {
            let sdks = host.sdks(named.sdk)?.into_iter();
            let programs = sdks.map(|sdk| sdk.join("bin/bq")).filter(|bq| bq.is_file());
            of(
                programs.collect(),
                &["--headless", "--format=json", "ls", "-p"],
            )
        }
        Client::Python => {
            let script = include_str!("check/rest.py");
            of(found("python3", named.pythons), &["-c", script])
        }
        Client::Grpc => {
            let script = include_str!("check/grpc.py");
            of(found("python3", named.pythons), &["-c", script])
        }
        Client::Node => {
            let script = include_str!("check/rest.js");
            of(found("node", named.nodes), &["-e", script])
        }
        Client::Store => of(
            open_to_all("curl").into_iter().collect(),
            &[
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "https://bigquery.googleapis.com/bigquery/v2/projects",
            ],
        ),
    })
}

/// The variables that are set for the whole host; none where that was not set up.
///
/// # Errors
/// When the file cannot be read.
pub fn environment(host: &Host) -> Result<Vec<(String, String)>> {
    let content = read(&host.place(ENVIRONMENT)?)?;
    let text = content.map_or_else(String::new, |content| content.text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let variables = lines.filter_map(|line| line.split_once('='));
    Ok(variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// What a client's end shows.
#[must_use]
pub fn judge(code: Option<i32>, output: &str) -> Outcome {
    let said = safe_line(
        &output.split_whitespace().collect::<Vec<_>>().join(" "),
        SAID_CHARS_MAX,
    );
    if code == Some(ABSENT) {
        return Outcome::NotTried { why: said };
    }
    let is_refusal = Code::ALL
        .iter()
        .any(|code| output.contains(&format!("[{}]", code.as_str())));
    if is_refusal || code == Some(0) && output.contains(BIGQUERY) {
        Outcome::Trusts { said }
    } else {
        Outcome::Fails { said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_proxy_or_bigquery_says_shows_that_a_client_trusts_it() {
        let trusts = |code, output| matches!(judge(code, output), Outcome::Trusts { .. });
        assert!(trusts(
            Some(1),
            "403: no open window. Ask for one [window.none]"
        ));
        assert!(trusts(Some(0), "200 {\"kind\": \"bigquery#projectList\"}"));
        for (code, output) in [
            (Some(0), ""),
            (Some(0), "200 <html>of somebody else's"),
            (
                Some(1),
                "certificate verify failed: self-signed certificate in chain",
            ),
            (Some(1), "[Errno 1] Operation not permitted"),
            (None, "bigquery#"),
        ] {
            assert!(
                matches!(judge(code, output), Outcome::Fails { .. }),
                "{output}"
            );
        }
        let absent = judge(Some(3), "it has no requests\n");
        let why = "it has no requests".to_owned();
        assert_eq!(absent, Outcome::NotTried { why });
    }
}
