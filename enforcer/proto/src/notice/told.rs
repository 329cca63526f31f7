//! What each kind of record is told as.

use super::{Notice, NoticeKind, TEXT_CHARS_MAX};
use crate::audit::Record;
use crate::event::Event;
use crate::size;
use crate::text::safe_line;

impl Notice {
    /// What a record is told as; `None` where it is told as nothing, or as one of many refusals.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
    pub fn of(host: &str, record: &Record) -> Option<Self> {
        let about =
            |kind, summary: String| Self::new(host, record.seq, record.unix_ns, kind, &summary);
        let text = |text: &str| safe_line(text, TEXT_CHARS_MAX);
        let notice = match &record.event {
            Event::Requested {
                request,
                agent,
                process,
                ask,
                digest,
                budget,
                ..
            } => Self {
                agent: Some(agent.clone()),
                request: Some(*request),
                scope: Some(text(&ask.scope.to_string())),
                ttl: Some(ask.ttl),
                reason: Some(text(&ask.reason)),
                digest: Some(text(digest)),
                budget: *budget,
                by: Some(format!("uid {}", process.uid)),
                ..about(
                    NoticeKind::Request,
                    format!("{request}: {agent} asks for {} for {}: {}", ask.scope, ask.ttl, text(&ask.reason)),
                )
            },
            Event::Approved {
                request,
                grant,
                agent,
                approver,
                scope,
                ttl,
                closes_unix_ns,
                break_glass,
                ..
            } => {
                let (kind, how) = match break_glass {
                    None => (NoticeKind::Decision, "was approved".to_owned()),
                    Some(why) => (
                        NoticeKind::BreakGlass,
                        format!("was opened IN AN EMERGENCY ({})", text(why)),
                    ),
                };
                Self {
                    agent: Some(agent.clone()),
                    request: Some(*request),
                    grant: Some(*grant),
                    scope: Some(text(&scope.to_string())),
                    ttl: Some(*ttl),
                    reason: break_glass.as_deref().map(text),
                    outcome: Some("approved".to_owned()),
                    by: Some(approver.to_string()),
                    closes_unix_ms: Some(closes_unix_ns / 1_000_000),
                    ..about(
                        kind,
                        format!("{request} of {agent} {how} by {approver}: {grant}, {scope} for {ttl}"),
                    )
                }
            }
            Event::ApprovalGiven {
                request,
                agent,
                approver,
                scope,
                ttl,
                next_digest,
                budget,
                ..
            } => Self {
                agent: Some(agent.clone()),
                request: Some(*request),
                scope: Some(text(&scope.to_string())),
                ttl: Some(*ttl),
                digest: Some(text(next_digest)),
                budget: *budget,
                outcome: Some("agreed".to_owned()),
                by: Some(approver.to_string()),
                ..about(
                    NoticeKind::Decision,
                    format!("{request} of {agent} was agreed to by {approver}, for {scope} and {ttl} at most: others must agree as well"),
                )
            },
            Event::Reviewed {
                grant,
                agent,
                reviewer,
                note,
            } => Self {
                agent: Some(agent.clone()),
                grant: Some(*grant),
                reason: Some(text(note)),
                outcome: Some("reviewed".to_owned()),
                by: Some(reviewer.to_string()),
                ..about(
                    NoticeKind::BreakGlass,
                    format!("{grant} of {agent}, opened in an emergency, was reviewed by {reviewer}: {}", text(note)),
                )
            },
            Event::AgentLocked { agent, by, reason } => Self {
                agent: Some(agent.clone()),
                reason: Some(text(reason)),
                outcome: Some("locked".to_owned()),
                by: Some(by.to_string()),
                ..about(
                    NoticeKind::Decision,
                    format!("{agent} was locked by {by}, and gets no window: {}", text(reason)),
                )
            },
            Event::AgentUnlocked { agent, by } => Self {
                agent: Some(agent.clone()),
                outcome: Some("unlocked".to_owned()),
                by: Some(by.to_string()),
                ..about(
                    NoticeKind::Decision,
                    format!("{agent} was unlocked by {by}, and may have windows again"),
                )
            },
            Event::WayExamined { process, of } => about(
                NoticeKind::Daemon,
                format!(
                    "uid {} had the way to Google looked at, as {}",
                    process.uid,
                    of.as_deref().map_or_else(|| "all agents".to_owned(), text)
                ),
            ),
            Event::IssuerKeySigns { kid } => Self {
                digest: Some(text(kid)),
                ..about(
                    NoticeKind::Daemon,
                    format!("assertions are signed by the key {} from here on", text(kid)),
                )
            },
            Event::CredentialPresented {
                agent,
                what,
                fingerprint,
                count,
                ..
            } => Self {
                agent: Some(agent.clone()),
                digest: fingerprint.as_deref().map(text),
                count: Some(*count),
                ..about(
                    NoticeKind::Credential,
                    format!("{agent} has a credential of its own and sent it {count} times: {}", text(what)),
                )
            },
            Event::PolicyLoaded { digest, rules, .. } => Self {
                digest: Some(text(digest)),
                ..about(
                    NoticeKind::Policy,
                    format!("the policy is another one from here on: {rules} rules"),
                )
            },
            Event::PolicyRejected { why, .. } => Self {
                message: Some(text(why)),
                ..about(
                    NoticeKind::Policy,
                    format!("a changed policy cannot be used, the rules stay as they are: {}", text(why)),
                )
            },
            Event::Denied {
                request,
                agent,
                approver,
                reason,
            } => Self {
                agent: Some(agent.clone()),
                request: Some(*request),
                reason: Some(text(reason)),
                outcome: Some("denied".to_owned()),
                by: Some(approver.to_string()),
                ..about(
                    NoticeKind::Decision,
                    format!("{request} of {agent} was denied by {approver}: {}", text(reason)),
                )
            },
            Event::RequestWithdrawn { request, agent, .. } => Self {
                agent: Some(agent.clone()),
                request: Some(*request),
                outcome: Some("withdrawn".to_owned()),
                ..about(
                    NoticeKind::Decision,
                    format!("{request} of {agent} was withdrawn: the process that it was for has ended"),
                )
            },
            Event::RequestExpired { request, agent } => Self {
                agent: Some(agent.clone()),
                request: Some(*request),
                outcome: Some("expired".to_owned()),
                ..about(
                    NoticeKind::Decision,
                    format!("{request} of {agent} has expired: nobody decided in time"),
                )
            },
            Event::Opened { grant, agent } => Self {
                agent: Some(agent.clone()),
                grant: Some(*grant),
                ..about(NoticeKind::Open, format!("{grant} of {agent} is open"))
            },
            Event::Closed {
                grant,
                agent,
                reason,
                by,
                queries,
                bytes,
            } => Self {
                agent: Some(agent.clone()),
                grant: Some(*grant),
                reason: Some(reason.to_string()),
                by: by.as_ref().map(|process| format!("uid {}", process.uid)),
                queries: Some(*queries),
                bytes: Some(*bytes),
                ..about(
                    NoticeKind::Close,
                    format!("{grant} of {agent} has closed: {reason}; {queries} queries, {}", size::whole(*bytes)),
                )
            },
            Event::HealthChanged { faults } if faults.is_empty() => {
                about(NoticeKind::Health, "the enforcement is as it should be again".to_owned())
            }
            Event::HealthChanged { faults } => Self {
                message: Some(text(&faults.join("; "))),
                ..about(
                    NoticeKind::Health,
                    format!("the enforcement is not as it should be: {}", text(&faults.join("; "))),
                )
            },
            Event::Detached { uid, reason } => Self {
                reason: Some(text(reason)),
                by: Some(format!("uid {uid}")),
                ..about(
                    NoticeKind::Health,
                    format!("the programs were detached by uid {uid}, nothing is enforced: {}", text(reason)),
                )
            },
            Event::DaemonStarted { version, .. } => {
                about(NoticeKind::Daemon, format!("the daemon started, version {}", text(version)))
            }
            Event::EventsLost { kinds } => about(
                NoticeKind::Health,
                format!(
                    "{} events have no record: they happened while the log could not be written",
                    kinds.values().fold(0, |all: u64, count| all.saturating_add(*count))
                ),
            ),
            Event::DaemonStopped {} => about(NoticeKind::Daemon, "the daemon stopped".to_owned()),
            Event::TailRepaired { .. }
            | Event::SegmentsRemoved { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::RequestRefused { .. }
            | Event::DecisionRefused { .. }
            | Event::QueryAsked { .. }
            | Event::EstimateAsked { .. }
            | Event::QueryAdmitted { .. }
            | Event::JobSeen { .. }
            | Event::QueryFinished { .. }
            | Event::QueryRefused { .. }
            | Event::ConnectionRefused { .. }
            | Event::JobCancelled { .. }
            | Event::KernelRefused { .. }
            | Event::FurtherRefused { .. }
            | Event::TooLong { .. }
            | Event::RequestJoined { .. }
            | Event::ProcessJoined { .. }
            | Event::Forwarded { .. }
            | Event::NamespaceServed { .. }
            | Event::NamespaceLeft { .. }
            | Event::NamespaceRefused { .. }
            | Event::ContainerChanged { .. }
            // That a notice was given up must not make another.
            | Event::NotificationFailed { .. } => return None,
        };
        Some(notice)
    }
}
