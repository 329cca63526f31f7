//! `enforcer log show`: everything about one window, request or query as one readable story, in the order in which it happened, and what it
//! comes to. It is told as it is read: nothing of it is held but the sums, and what waits for its place ([`order`]).

mod order;

use enforcer_proto::audit::Record;
use enforcer_proto::event::{About, Event};
use enforcer_proto::principal::{ContainerOrigin, Process, ProcessOrigin};
use enforcer_proto::sentence::sentence;
use enforcer_proto::size;
use enforcer_proto::text::{safe_json, safe_line, utc, wrapped};
use serde::Serialize;

use super::source::Source;
use crate::cli::Failure;
use enforcer_proto::sentence::judged_in;
use enforcer_proto::why::Id;

/// How wide SQL and reasons are shown, characters.
const WIDTH: usize = 100;
/// What stands before the lines that belong to the one above, as wide as a time and the word behind it.
const INDENT: &str = "                                    ";

/// What a story comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    /// Queries admitted.
    queries: u64,
    /// Those whose answer is through.
    answered: u64,
    /// Requests, connections and socket operations refused, those that share a record counted each.
    refused: u64,
    /// Jobs that were cancelled, or could not be.
    cancelled: u64,
    /// Bytes billed: as the close says, or as the answers did where the window is open.
    bytes_billed: u64,
    /// Bytes of answers passed on.
    bytes_passed_on: u64,
    /// How long the window was open, nanoseconds; absent where it is open or never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_ns: Option<u64>,
    #[serde(skip)]
    opened_boot_ns: Option<u64>,
}

impl Totals {
    fn add(&mut self, record: &Record) {
        match &record.event {
            Event::Approved { opens_boot_ns, .. } => self.opened_boot_ns = Some(*opens_boot_ns),
            Event::QueryAdmitted { is_dry_run, .. } if !is_dry_run => self.queries += 1,
            Event::QueryFinished {
                bytes, body_bytes, ..
            } => {
                self.answered += 1;
                self.bytes_billed += bytes;
                self.bytes_passed_on += body_bytes;
            }
            Event::QueryRefused { .. } | Event::DecisionRefused { .. } => self.refused += 1,
            Event::ConnectionRefused { count, .. }
            | Event::KernelRefused { count, .. }
            | Event::FurtherRefused { count, .. } => self.refused += count,
            // What failed is tried again, and counts when it has come to something.
            Event::JobCancelled { is_settled, .. } => {
                self.cancelled += u64::from(is_settled.unwrap_or(true));
            }
            Event::Closed { bytes, .. } => {
                self.bytes_billed = *bytes;
                self.open_ns = self
                    .opened_boot_ns
                    .map(|opened| record.boot_ns.saturating_sub(opened));
            }
            Event::QueryAdmitted { .. }
            | Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::Requested { .. }
            | Event::RequestRefused { .. }
            | Event::Opened { .. }
            | Event::Denied { .. }
            | Event::RequestExpired { .. }
            | Event::RequestWithdrawn { .. }
            | Event::ApprovalGiven { .. }
            | Event::Reviewed { .. }
            | Event::AgentLocked { .. }
            | Event::AgentUnlocked { .. }
            | Event::PolicyLoaded { .. }
            | Event::NotificationFailed { .. }
            | Event::SegmentsRemoved { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::PolicyRejected { .. }
            | Event::HealthChanged { .. }
            | Event::QueryAsked { .. }
            | Event::EstimateAsked { .. }
            | Event::JobSeen { .. }
            | Event::EventsLost { .. }
            | Event::TooLong { .. }
            | Event::RequestJoined { .. }
            | Event::ProcessJoined { .. }
            | Event::Detached { .. }
            | Event::Forwarded { .. }
            | Event::IssuerKeySigns { .. }
            | Event::NamespaceServed { .. }
            | Event::NamespaceLeft { .. }
            | Event::NamespaceRefused { .. }
            | Event::ContainerChanged { .. }
            | Event::WayExamined { .. }
            | Event::CredentialPresented { .. } => {}
        }
    }

    fn in_words(&self) -> String {
        let open = self.open_ns.map_or_else(String::new, |ns| {
            format!("; open for {:.1} s", ns as f64 / 1e9)
        });
        format!(
            "{} queries, {} answered, {} refused, {} jobs cancelled; {} billed, {} passed on{open}",
            self.queries,
            self.answered,
            self.refused,
            self.cancelled,
            size::whole(self.bytes_billed),
            size::whole(self.bytes_passed_on)
        )
    }
}

/// Tells the story of `id`.
pub(super) fn show(source: &Source, id: Id, json: bool) -> Result<(), Failure> {
    let mut teller = Teller::new(json);
    let left_out = order::story(source, id, &mut |record, line| {
        teller.tell(record, line);
        Ok(())
    })?;
    if teller.count == 0 {
        return Err(Failure::Other(anyhow::anyhow!(
            "nothing in the log concerns {id}"
        )));
    }
    teller.end(id, left_out);
    Ok(())
}

/// Prints a story.
struct Teller {
    json: bool,
    count: u64,
    totals: Totals,
    /// The text that was told last, so that it is not told twice.
    sql: String,
}

impl Teller {
    fn new(json: bool) -> Self {
        Self {
            json,
            count: 0,
            totals: Totals::default(),
            sql: String::new(),
        }
    }

    fn tell(&mut self, record: &Record, line: &str) {
        self.count += 1;
        self.totals.add(record);
        if self.json {
            let before = if self.count == 1 {
                "{\"records\":["
            } else {
                ","
            };
            println!("{before}{}", safe_json(line));
            return;
        }
        let (said, below) = said(&record.event);
        println!("{}  {said}", utc(record.unix_ns));
        for part in below {
            println!("{INDENT}{part}");
        }
        if let Some(sql) = About::of(&record.event).sql.filter(|sql| *sql != self.sql) {
            for part in quoted(sql) {
                println!("{INDENT}{part}");
            }
            sql.clone_into(&mut self.sql);
        }
    }

    fn end(&self, id: Id, left_out: u64) {
        if self.json {
            let totals = serde_json::to_string(&self.totals).unwrap_or_default();
            println!("],\"id\":\"{id}\",\"left_out\":{left_out},\"totals\":{totals}}}");
            return;
        }
        if left_out > 0 {
            println!(
                "and {left_out} more that were refused of its request (enforcer log --request)"
            );
        }
        println!("in all  {}", self.totals.in_words());
    }
}

/// A text that somebody else wrote, each line of it marked: none can be taken for what is told here.
fn quoted(text: &str) -> Vec<String> {
    let lines = wrapped(text, WIDTH).into_iter();
    lines.map(|line| format!("| {line}")).collect()
}

fn by(process: &Process) -> String {
    format!("by {}", process.words(16))
}

/// The processes above the one that asked, and its unit.
fn came_from(uid: u32, origin: &ProcessOrigin) -> Vec<String> {
    let chain = Some(origin.chain(uid)).filter(|chain| !chain.is_empty());
    let chain = chain.map(|chain| format!("started by {chain}"));
    let place = origin.place().map(|place| format!("in {place}"));
    let lines = chain.into_iter().chain(place);
    let lines = lines.flat_map(|line| wrapped(&line, WIDTH));
    lines
        .chain(container_of(origin.container.as_deref()))
        .collect()
}

fn container_of(container: Option<&ContainerOrigin>) -> Vec<String> {
    container.map_or_else(Vec::new, |container| {
        wrapped(&format!("in the container {}", container.shown()), WIDTH)
    })
}

/// What is said of an event in its story: a line, and what stands below it. The query's text is said by itself.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn said(event: &Event) -> (String, Vec<String>) {
    match event {
        Event::Requested {
            request,
            agent,
            process,
            ask,
            rule,
            from_query,
            origin,
            ..
        } => (
            format!("asked     {request} by agent {agent}, {}", by(process)),
            [
                origin
                    .as_ref()
                    .map_or_else(Vec::new, |origin| came_from(process.uid, origin)),
                vec![
                    format!("for {} for {}", ask.scope, ask.ttl),
                    format!("covered by rule {rule} of the policy; because:"),
                ],
                quoted(&ask.reason),
                from_query
                    .as_ref()
                    .and_then(|from| from.estimate.as_ref())
                    .map_or_else(Vec::new, |estimate| wrapped(&estimate.said(), WIDTH)),
            ]
            .concat(),
        ),
        Event::Approved {
            grant,
            approver,
            scope,
            ttl,
            bytes_max,
            queries_max,
            agreed,
            break_glass,
            ..
        } => {
            let mut below = vec![format!(
                "{scope} for {ttl}, at most {queries_max} queries and {}",
                size::whole(*bytes_max)
            )];
            below.extend(
                agreed
                    .iter()
                    .map(|who| format!("agreed to by {who} before")),
            );
            if let Some(reason) = break_glass {
                below.push(
                    "IN AN EMERGENCY, without the others whom the policy asks for:".to_owned(),
                );
                below.extend(quoted(reason));
            }
            (format!("approved  by {approver}: window {grant}"), below)
        }
        Event::QueryAdmitted {
            query,
            session,
            process,
            container,
            method,
            tables,
            writes,
            bytes,
            ceiling,
            is_dry_run,
            dry_run_us,
            ..
        } => {
            let dry = if *is_dry_run { ", a dry run" } else { "" };
            let mut below = container_of(container.as_deref());
            below.extend(tables.iter().map(|table| format!("reads {table}")));
            below.extend(writes.iter().map(|table| format!("writes {table}")));
            let held = ceiling.map_or_else(String::new, |held| {
                format!(", {} held for it", size::whole(held))
            });
            below.push(format!(
                "{} by BigQuery's estimate{held}",
                size::whole(*bytes)
            ));
            below.extend(dry_run_us.map(|took_us| format!("judged {}", judged_in(took_us))));
            (
                format!(
                    "admitted  {query} {method}{dry} on {session}, {}",
                    by(process)
                ),
                below,
            )
        }
        Event::QueryAsked {
            session,
            process,
            method,
            ..
        } => (
            format!("asked     {method} on {session}, {}", by(process)),
            Vec::new(),
        ),
        Event::EstimateAsked {
            session,
            process,
            method,
            ..
        } => (
            format!("estimated {method} on {session}, {}", by(process)),
            Vec::new(),
        ),
        Event::QueryRefused {
            session,
            process,
            container,
            request,
            refusal,
            ..
        } => (
            format!(
                "REFUSED   [{}] {} on {session}, {}",
                refusal.code,
                safe_line(request, 80),
                by(process)
            ),
            [
                container_of(container.as_deref()),
                wrapped(&refusal.what, WIDTH),
            ]
            .concat(),
        ),
        Event::Closed {
            grant,
            reason,
            by: who,
            ..
        } => {
            let who = who
                .as_ref()
                .map_or_else(String::new, |who| format!(", {}", by(who)));
            (format!("closed    {grant}: {reason}{who}"), Vec::new())
        }
        Event::QueryFinished { .. }
        | Event::JobSeen { .. }
        | Event::JobCancelled { .. }
        | Event::Opened { .. }
        | Event::ApprovalGiven { .. }
        | Event::Reviewed { .. }
        | Event::AgentLocked { .. }
        | Event::AgentUnlocked { .. }
        | Event::PolicyLoaded { .. }
        | Event::NotificationFailed { .. }
        | Event::SegmentsRemoved { .. }
        | Event::SnapshotTaken { .. }
        | Event::SnapshotSetAside { .. }
        | Event::PolicyRejected { .. }
        | Event::Denied { .. }
        | Event::RequestExpired { .. }
        | Event::RequestWithdrawn { .. }
        | Event::RequestRefused { .. }
        | Event::DecisionRefused { .. }
        | Event::ConnectionRefused { .. }
        | Event::KernelRefused { .. }
        | Event::FurtherRefused { .. }
        | Event::RequestJoined { .. }
        | Event::ProcessJoined { .. }
        | Event::Forwarded { .. }
        | Event::CredentialPresented { .. }
        | Event::IssuerKeySigns { .. }
        | Event::NamespaceServed { .. }
        | Event::NamespaceLeft { .. }
        | Event::NamespaceRefused { .. }
        | Event::ContainerChanged { .. }
        | Event::WayExamined { .. }
        | Event::DaemonStarted { .. }
        | Event::DaemonStopped {}
        | Event::TailRepaired { .. }
        | Event::HealthChanged { .. }
        | Event::EventsLost { .. }
        | Event::TooLong { .. }
        | Event::Detached { .. } => {
            let sentence = sentence(event);
            let (word, rest) = sentence.split_once(' ').unwrap_or((&sentence, ""));
            (format!("{word:<10}{}", rest.trim_start()), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_reason_can_be_taken_for_one_that_is_told() {
        let quoted = quoted("month end\nagreed to by uid 5002 before");
        assert_eq!(quoted, ["| month end", "| agreed to by uid 5002 before"]);
    }
}
