//! Witnesses: who is given each checkpoint to keep it off this host. They are given the newest; one that was overtaken meanwhile is not sent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Uri, header};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Watched;
use crate::causes::Causes;
use crate::config::Program;
use crate::helper::Helper;
use crate::upstream::{Upstream, full};

/// How long a command may take with one checkpoint.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a POST may take.
pub const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first wait is after a delivery that failed; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest of these waits.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// The daemon's own key in the pool of connections: no grant has it.
const POOL_KEY: u64 = u64::MAX - 1;

/// Somebody who keeps checkpoints.
#[async_trait]
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// What it is called in `status`.
    fn name(&self) -> String;
    /// Gives it a note.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    async fn give(&self, note: &str) -> Result<(), String>;
}

/// A program, which gets the note on its standard input.
#[derive(Debug)]
pub struct CommandWitness {
    file: String,
    helper: Helper,
}

impl CommandWitness {
    /// The program, run in a cgroup of its own in `cgroups`.
    #[must_use]
    pub fn new(program: &Program, cgroups: &Path) -> Self {
        Self {
            file: program.words.first().cloned().unwrap_or_default(),
            helper: Helper::new(cgroups.to_owned(), program.clone(), "witness".to_owned()),
        }
    }
}

#[async_trait]
impl Witness for CommandWitness {
    fn name(&self) -> String {
        format!("the command {}", self.file)
    }

    async fn give(&self, note: &str) -> Result<(), String> {
        let note = note.as_bytes().to_vec();
        // A stop waits for the last note to be given, as long as that may take.
        let never = CancellationToken::new();
        self.helper.run(note, COMMAND_TIMEOUT, &never).await
    }
}

/// An https address that takes a POST of the note.
#[derive(Debug)]
pub struct WebWitness {
    /// The address.
    pub url: String,
    /// The way there.
    pub upstream: Arc<Upstream>,
}

#[async_trait]
impl Witness for WebWitness {
    fn name(&self) -> String {
        // Its path may be a secret, as that of chats is.
        let url = self.url.parse::<Uri>().ok();
        let host = url.as_ref().and_then(Uri::host).unwrap_or_default();
        format!("the witness at {host}")
    }

    async fn give(&self, note: &str) -> Result<(), String> {
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(full(note.to_owned()))
            .map_err(|error| error.to_string())?;
        let sent = tokio::time::timeout(POST_TIMEOUT, self.upstream.send(POOL_KEY, request)).await;
        let answer = sent
            .map_err(|_| format!("it did not answer within {} s", POST_TIMEOUT.as_secs()))?
            .map_err(|error| Causes(&error).to_string())?;
        // What it says besides is not read: the connection goes with it.
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it answered {status}"))
        }
    }
}

/// Gives a witness each note that comes, the newest first, until there will be no more. A delivery that fails is tried again until it succeeds or
/// a newer note comes, and is said as long as it does.
pub(super) async fn deliver(
    witness: Arc<dyn Witness>,
    mut news: watch::Receiver<Option<Arc<str>>>,
    watched: Arc<Watched>,
) {
    let mut wait = RETRY_FIRST;
    let mut is_owed = false;
    loop {
        let is_over = if is_owed {
            let newer = tokio::time::timeout(wait, news.changed()).await;
            wait = (wait * 2).min(RETRY_MAX);
            matches!(newer, Ok(Err(_)))
        } else {
            news.changed().await.is_err()
        };
        let note = news.borrow_and_update().clone();
        // At the end once more what is owed, and nothing that was delivered.
        let Some(note) = note.filter(|_| !is_over || is_owed) else {
            return;
        };
        let given = witness.give(&note).await;
        is_owed = given.is_err();
        let fault = given.err().map(|why| {
            format!(
                "{} did not take the newest checkpoint of the audit log: {why}",
                witness.name()
            )
        });
        if fault.is_none() {
            wait = RETRY_FIRST;
        }
        watched.say(&witness.name(), fault);
        if is_over {
            return;
        }
    }
}
