//! What can be asked of the log on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use enforcer_proto::event::kind_named;
use enforcer_proto::id::{GrantId, QueryId, RequestId, SessionId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::Code;
use enforcer_proto::scope::{DatasetRef, TableRef};
use enforcer_proto::search::{Filter, Words};
use jiff::Timestamp;

use crate::clock::{Clock, SystemClock};
use crate::search::LIMIT_MAX;

/// Which records are wanted; all of it must be true of them.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct FilterArgs {
    /// Only what concerns this agent, or a window of its.
    #[arg(long)]
    agent: Option<AgentName>,
    /// Only what concerns this window, such as g-17.
    #[arg(long)]
    grant: Option<GrantId>,
    /// Only what concerns this request for a window, such as r-17.
    #[arg(long)]
    request: Option<RequestId>,
    /// Only what concerns this query, such as q-17.
    #[arg(long)]
    query: Option<QueryId>,
    /// Only what happened on this connection, such as s-17.
    #[arg(long)]
    session: Option<SessionId>,
    /// Only what concerns this dataset or a table of it: asked for, granted, read, written, or refused for the scope.
    #[arg(long, value_name = "PROJECT.DATASET")]
    dataset: Option<DatasetRef>,
    /// Only what concerns this table: read, written, or refused for the scope.
    #[arg(long, value_name = "PROJECT.DATASET.TABLE")]
    table: Option<TableRef>,
    /// Only refusals with this code, such as window.none.
    #[arg(long)]
    code: Option<Code>,
    /// Only records of this kind, such as query_admitted.
    #[arg(long, value_parser = kind_named)]
    kind: Option<&'static str>,
    /// Only what was recorded at this time or later: 2026-11-24T15:00:00Z, 2026-11-24, or 15m, 2h, 3d ago.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only what was recorded before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Only queries whose text has these words, one after another, in capitals or not.
    #[arg(long, value_name = "TEXT")]
    sql: Option<Words>,
}

impl FilterArgs {
    /// What is asked, times being seen from now.
    pub(super) fn filter(&self) -> Filter {
        let now = SystemClock.now().unix_ns;
        Filter {
            agent: self.agent.clone(),
            grant: self.grant,
            request: self.request,
            query: self.query,
            session: self.session,
            dataset: self.dataset.clone(),
            table: self.table.clone(),
            code: self.code,
            kind: self.kind.map(str::to_owned),
            sql: self.sql.clone(),
            since_unix_ns: self.since.map(|moment| moment.unix_ns(now)),
            until_unix_ns: self.until.map(|moment| moment.unix_ns(now)),
            first: None,
            last: None,
        }
    }
}

/// Which log.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct PlaceArgs {
    /// Read the log in this folder, instead of asking the daemon for its.
    #[arg(long, value_name = "FOLDER")]
    pub(super) dir: Option<PathBuf>,
    /// The index of that log; index.sqlite in the folder when absent. It is made, or brought up to date, before it is asked.
    #[arg(long, value_name = "FILE", requires = "dir")]
    pub(super) index: Option<PathBuf>,
}

/// `enforcer log` without a further command.
#[derive(Args, Debug)]
pub(in crate::cli) struct ReadArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Only the newest so many of them.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(super) limit: Option<usize>,
    /// Go on as records come.
    #[arg(long, conflicts_with = "dir")]
    pub(super) follow: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("it is a number from 1 to {LIMIT_MAX}"))
}

/// A moment as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Unix time, nanoseconds.
    At(u64),
    /// So long before now, nanoseconds.
    Ago(u64),
}

impl Moment {
    const fn unix_ns(self, now: u64) -> u64 {
        match self {
            Self::At(at) => at,
            Self::Ago(ns) => now.saturating_sub(ns),
        }
    }
}

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time: write it as 2026-11-24T15:00:00Z, 2026-11-24 (from midnight UTC), or as 15m, 2h or 3d for so long ago"
)]
pub(super) struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let unreadable = || MomentError(text.chars().take(64).collect());
        if let Some(ns) = ago(text) {
            return Ok(Self::Ago(ns));
        }
        let at: Timestamp = text
            .parse()
            .or_else(|_| format!("{text}T00:00:00Z").parse())
            .map_err(|_| unreadable())?;
        let ns = u64::try_from(at.as_nanosecond()).map_err(|_| unreadable())?;
        Ok(Self::At(ns))
    }
}

/// `15m`, or `15m ago`, in nanoseconds.
fn ago(text: &str) -> Option<u64> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    count.checked_mul(seconds)?.checked_mul(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_day_or_so_long_ago() {
        let at = |text: &str| text.parse::<Moment>().ok();
        assert_eq!(at("1970-01-01T00:00:01Z"), Some(Moment::At(1_000_000_000)));
        assert_eq!(
            at("1970-01-01T01:00:01+01:00"),
            Some(Moment::At(1_000_000_000))
        );
        assert_eq!(at("1970-01-02"), Some(Moment::At(86_400_000_000_000)));
        assert_eq!(at("15m"), Some(Moment::Ago(900_000_000_000)));
        assert_eq!(at("2h ago"), Some(Moment::Ago(7_200_000_000_000)));
        assert_eq!(at("3d").map(|moment| moment.unix_ns(1)), Some(0));
        for text in [
            "",
            "m",
            "15",
            "15 y",
            "yesterday",
            "99999999999999999999d",
            "2026-13-01",
            "-5m",
            "é",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
        let error = "noon".parse::<Moment>().expect_err("no time").to_string();
        assert!(error.contains("15m") && error.contains("2026"), "{error}");
    }

    #[test]
    fn a_limit_has_a_limit() {
        assert_eq!(limit("10"), Ok(10));
        assert!(limit("0").is_err() && limit("10001").is_err() && limit("x").is_err());
    }
}
