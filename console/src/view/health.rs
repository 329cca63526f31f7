//! What is known of whether all is well, a line each.

use std::collections::BTreeMap;

use enforcer_proto::size;
use enforcer_proto::wire::{self, CheckState, CheckpointView, Status};

use crate::app::evidence;
use crate::app::popup::clock;
use crate::app::signed::{self, Signed};
use crate::app::{Link, Model};

/// How old the newest checkpoint may be while there are records that it does not sign, nanoseconds: one hour.
const CHECKPOINT_AGE_NS: u64 = 3_600_000_000_000;

/// One thing that is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthLine {
    pub(crate) what: String,
    /// Which one it is of several about the same.
    pub(crate) nth: usize,
    pub(crate) said: String,
    pub(crate) state: CheckState,
}

/// The line about `what`, the nth of those.
pub(crate) fn health_line(model: &Model, (what, nth): (&str, usize)) -> Option<HealthLine> {
    let mut lines = health_lines(model).into_iter();
    lines.find(|line| line.what == what && line.nth == nth)
}

fn line(what: &str, said: impl Into<String>, is_bad: bool) -> HealthLine {
    HealthLine {
        what: what.to_owned(),
        nth: 0,
        said: said.into(),
        state: if is_bad {
            CheckState::Bad
        } else {
            CheckState::Well
        },
    }
}

/// All of them, what is wrong first. Of what was heard too long ago nothing is said to be well.
pub(crate) fn health_lines(model: &Model) -> Vec<HealthLine> {
    let mut lines = lines(model);
    let mut counts = BTreeMap::<String, usize>::new();
    for line in &mut lines {
        let count = counts.entry(line.what.clone()).or_default();
        line.nth = *count;
        *count += 1;
    }
    if let Some(since) = model.doubt_since_unix_ns() {
        let since = clock(since);
        let well = lines
            .iter_mut()
            .filter(|line| line.state == CheckState::Well);
        for line in well {
            line.state = CheckState::Unknown;
            line.said = format!("unknown since {since} UTC; before: {}", line.said);
        }
    }
    lines.sort_by_key(|line| match line.state {
        CheckState::Bad => 0,
        CheckState::Warning => 1,
        CheckState::Well | CheckState::Unknown => 2,
    });
    lines
}

fn lines(model: &Model) -> Vec<HealthLine> {
    let mut lines = Vec::new();
    if let Link::Down { why, .. } = &model.link {
        lines.push(line("connection", why, true));
    }
    let faults = model.log_faults().into_iter();
    lines.extend(faults.map(|fault| line(fault.what, fault.said, true)));
    lines.extend(
        model
            .unrecorded
            .as_ref()
            .map(|why| line("recording", format!("it has stopped: {why}"), true)),
    );
    let Some(status) = model.status() else {
        return lines;
    };
    lines.extend(
        status
            .unhealthy
            .iter()
            .map(|fault| line("fault", fault, true)),
    );
    lines.extend(
        status
            .enforce
            .warning()
            .map(|warning| line("enforced on", warning, true)),
    );
    lines.push(line(
        "daemon",
        format!("{} on {}", status.version, status.host),
        false,
    ));
    lines.push(line(
        "console",
        format!(
            "{}, version {} of the control protocol",
            env!("CARGO_PKG_VERSION"),
            wire::VERSION
        ),
        false,
    ));
    lines.extend(status.checks.iter().map(|check| HealthLine {
        what: check.what.clone(),
        nth: 0,
        said: check.said.clone(),
        state: check.state,
    }));
    let kernel = &status.kernel;
    lines.push(line(
        "kernel",
        format!(
            "{} connections led to the proxy, {} operations refused, {} packets dropped",
            kernel.redirected, kernel.denied, kernel.egress_dropped
        ),
        false,
    ));
    lines.push(line(
        "events",
        format!(
            "{} of the kernel's were lost before they were read",
            kernel.events_lost
        ),
        kernel.events_lost > 0,
    ));
    log_lines(model, status, &mut lines);
    hook_lines(status, &mut lines);
    lines
}

fn log_lines(model: &Model, status: &Status, lines: &mut Vec<HealthLine>) {
    let log = &status.log;
    let free = log
        .free_bytes
        .map_or_else(|| "unknown".to_owned(), size::short);
    lines.push(line(
        "log",
        format!(
            "{} records, {}, {free} free",
            log.records,
            size::short(log.bytes)
        ),
        log.free_bytes.is_none(),
    ));
    lines.push(match &log.checkpoint {
        Some(checkpoint) => with_state(
            checkpoint_state(model, checkpoint),
            line(
                "checkpoint",
                format!(
                    "record {}, {} old, {} records not yet signed for",
                    checkpoint.records,
                    model.checkpoint_age().unwrap_or_default(),
                    log.records.saturating_sub(checkpoint.records)
                ),
                false,
            ),
        ),
        None => line("checkpoint", "none was signed yet", false),
    });
    lines.push(chain_line(model));
    lines.extend(signature_line(model));
}

/// What was checked here of the records' hashes.
fn chain_line(model: &Model) -> HealthLine {
    let (state, said) = match (model.chain.run(), model.mode.is_replay()) {
        (_, true) => (
            CheckState::Unknown,
            "as it was recorded: nothing of it is checked".to_owned(),
        ),
        (Some((first, last)), false) => (
            CheckState::Well,
            format!("the hashes of records {first} to {last} hold, checked here"),
        ),
        (None, false) => (
            CheckState::Unknown,
            "no record has come that could be checked".to_owned(),
        ),
    };
    with_state(state, line(evidence::CHAIN, said, false))
}

/// What the key shows of the newest checkpoint, where there is one; what is wrong with it has a line among the faults.
fn signature_line(model: &Model) -> Option<HealthLine> {
    let (state, said) = match signed::of(model) {
        Signed::None if model.signer.has_key() => {
            (CheckState::Unknown, "there is no checkpoint".to_owned())
        }
        Signed::None | Signed::Said { .. } | Signed::Wrong(_) => return None,
        Signed::Holds { records } => (
            CheckState::Well,
            format!("record {records} is the one that the key has signed"),
        ),
        Signed::OfElsewhere { records } => (
            CheckState::Unknown,
            format!("signed by the key; record {records} is not among those that came"),
        ),
    };
    Some(with_state(state, line(evidence::SIGNATURE, said, false)))
}

/// A checkpoint that is old while there is more to sign is on its way to showing nothing.
fn checkpoint_state(model: &Model, checkpoint: &CheckpointView) -> CheckState {
    let age_ns = model.now_unix_ns().saturating_sub(checkpoint.unix_ns);
    let records = model.status().map_or(0, |status| status.log.records);
    if records > checkpoint.records && age_ns > CHECKPOINT_AGE_NS {
        CheckState::Warning
    } else {
        CheckState::Well
    }
}

fn with_state(state: CheckState, line: HealthLine) -> HealthLine {
    HealthLine { state, ..line }
}

fn hook_lines(status: &Status, lines: &mut Vec<HealthLine>) {
    for hook in &status.hooks {
        let trouble = hook.trouble.as_ref().map_or_else(String::new, |why| {
            format!("; the last attempt failed: {why}")
        });
        lines.push(line(
            "hook",
            format!(
                "{}: {} delivered, {} wait, {} given up{trouble}",
                hook.hook, hook.delivered, hook.waiting, hook.given_up
            ),
            hook.trouble.is_some(),
        ));
    }
}
