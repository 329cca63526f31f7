//! Waiting for a decision: one connection that is told, and on a terminal a line that says who must decide and how long that may take.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use enforcer_proto::id::RequestId;
use enforcer_proto::wire::{Ask, GrantView, Reply};

use super::{Failure, ask, show};
use crate::control::client::Client;

/// How often the line on a terminal is written anew.
const REFRESH: Duration = Duration::from_secs(1);

/// A request that waits.
pub(super) struct Pending {
    pub(super) request: RequestId,
    /// Whose decision it waits for.
    wanting: String,
    /// How long it waits.
    left: Duration,
    since: Instant,
}

impl Pending {
    /// As the daemon answers.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a person is shown to have: nothing is decided by it"
    )]
    pub(super) fn new(request: RequestId, wanting: Option<&str>, expires_in_ns: u64) -> Self {
        Self {
            request,
            wanting: wanting.unwrap_or("nobody").to_owned(),
            left: Duration::from_nanos(expires_in_ns),
            since: Instant::now(),
        }
    }

    fn line(&self) -> String {
        let left = self.left.saturating_sub(self.since.elapsed());
        let left = show::left(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        format!(
            "enforcer: {} waits for {}; {left} left",
            self.request, self.wanting
        )
    }
}

/// Waits until it is decided. People are told on standard error; where that is no terminal, once.
pub(super) async fn decided(
    socket: &Path,
    client: &mut Client,
    pending: &Pending,
) -> Result<GrantView, Failure> {
    let line = Line::begun(pending);
    let asked = Ask::Wait {
        request: pending.request,
    };
    let mut refresh = tokio::time::interval(REFRESH);
    let mut answer = std::pin::pin!(client.ask(&asked));
    let reply = loop {
        tokio::select! {
            biased;
            reply = &mut answer => break reply,
            _ = refresh.tick() => line.refresh(pending),
        }
    };
    drop(line);
    match reply {
        Ok(Reply::Opened(grant)) => Ok(grant),
        Ok(Reply::Refused(refusal)) => Err(Failure::Refused(refusal)),
        Ok(
            Reply::Requested { .. }
            | Reply::Counted(_)
            | Reply::Notified(_)
            | Reply::Checked(_)
            | Reply::GivenBack(_)
            | Reply::Done
            | Reply::Status(_)
            | Reply::Records(_)
            | Reply::Joined(_),
        ) => Err(ask::something_else("the decision")),
        Err(error) => Err(Failure::Unreachable(socket.to_owned(), error)),
    }
}

/// The line on standard error; gone from a terminal once it is dropped.
struct Line {
    is_terminal: bool,
}

impl Line {
    fn begun(pending: &Pending) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal {
            eprintln!("{}", pending.line());
        }
        Self { is_terminal }
    }

    fn refresh(&self, pending: &Pending) {
        if self.is_terminal {
            eprint!("\r\u{1b}[2K{}", pending.line());
            // A line that is not shown is no reason to end.
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_terminal {
            eprint!("\r\u{1b}[2K");
            let _ = std::io::stderr().flush();
        }
    }
}
