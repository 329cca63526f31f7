//! The names of the kinds of events, as they stand in the log.

use super::Event;

/// Every kind, in the order of their definition.
pub const KINDS: &[&str] = &[
    "daemon_started",
    "daemon_stopped",
    "tail_repaired",
    "segments_removed",
    "snapshot_taken",
    "snapshot_set_aside",
    "requested",
    "request_refused",
    "approval_given",
    "approved",
    "reviewed",
    "agent_locked",
    "agent_unlocked",
    "policy_loaded",
    "policy_rejected",
    "opened",
    "denied",
    "request_expired",
    "request_withdrawn",
    "request_joined",
    "decision_refused",
    "closed",
    "health_changed",
    "query_asked",
    "estimate_asked",
    "query_admitted",
    "job_seen",
    "query_finished",
    "query_refused",
    "connection_refused",
    "job_cancelled",
    "kernel_refused",
    "further_refused",
    "too_long",
    "events_lost",
    "process_joined",
    "detached",
    "forwarded",
    "way_examined",
    "issuer_key_signs",
    "credential_presented",
    "namespace_served",
    "namespace_left",
    "namespace_refused",
    "container_changed",
    "notification_failed",
];

/// A text that names no kind of event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no kind of event; there are: {}", KINDS.join(", "))]
pub struct UnknownKind {
    text: String,
}

/// The kind of this name.
///
/// # Errors
/// [`UnknownKind`], which names all that there are.
pub fn kind_named(text: &str) -> Result<&'static str, UnknownKind> {
    let found = KINDS.iter().find(|kind| **kind == text);
    found.copied().ok_or_else(|| UnknownKind {
        text: text.chars().take(64).collect(),
    })
}

impl Event {
    /// The name of its kind: what stands under `kind` in the log.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::DaemonStarted { .. } => "daemon_started",
            Self::DaemonStopped { .. } => "daemon_stopped",
            Self::TailRepaired { .. } => "tail_repaired",
            Self::SegmentsRemoved { .. } => "segments_removed",
            Self::SnapshotTaken { .. } => "snapshot_taken",
            Self::SnapshotSetAside { .. } => "snapshot_set_aside",
            Self::Requested { .. } => "requested",
            Self::RequestRefused { .. } => "request_refused",
            Self::ApprovalGiven { .. } => "approval_given",
            Self::Approved { .. } => "approved",
            Self::Reviewed { .. } => "reviewed",
            Self::AgentLocked { .. } => "agent_locked",
            Self::AgentUnlocked { .. } => "agent_unlocked",
            Self::PolicyLoaded { .. } => "policy_loaded",
            Self::PolicyRejected { .. } => "policy_rejected",
            Self::NotificationFailed { .. } => "notification_failed",
            Self::Opened { .. } => "opened",
            Self::Denied { .. } => "denied",
            Self::RequestExpired { .. } => "request_expired",
            Self::RequestWithdrawn { .. } => "request_withdrawn",
            Self::RequestJoined { .. } => "request_joined",
            Self::DecisionRefused { .. } => "decision_refused",
            Self::Closed { .. } => "closed",
            Self::HealthChanged { .. } => "health_changed",
            Self::QueryAsked { .. } => "query_asked",
            Self::EstimateAsked { .. } => "estimate_asked",
            Self::QueryAdmitted { .. } => "query_admitted",
            Self::JobSeen { .. } => "job_seen",
            Self::QueryFinished { .. } => "query_finished",
            Self::QueryRefused { .. } => "query_refused",
            Self::ConnectionRefused { .. } => "connection_refused",
            Self::JobCancelled { .. } => "job_cancelled",
            Self::KernelRefused { .. } => "kernel_refused",
            Self::FurtherRefused { .. } => "further_refused",
            Self::TooLong { .. } => "too_long",
            Self::EventsLost { .. } => "events_lost",
            Self::ProcessJoined { .. } => "process_joined",
            Self::Detached { .. } => "detached",
            Self::Forwarded { .. } => "forwarded",
            Self::WayExamined { .. } => "way_examined",
            Self::IssuerKeySigns { .. } => "issuer_key_signs",
            Self::CredentialPresented { .. } => "credential_presented",
            Self::NamespaceServed { .. } => "namespace_served",
            Self::NamespaceLeft { .. } => "namespace_left",
            Self::NamespaceRefused { .. } => "namespace_refused",
            Self::ContainerChanged { .. } => "container_changed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_are_those_that_the_log_is_read_with() {
        let error = serde_json::from_str::<Event>(r#"{"kind":"nothing"}"#)
            .expect_err("no such kind")
            .to_string();
        let named: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(named, KINDS, "{error}");
    }

    #[test]
    fn an_event_is_written_under_its_own_kind() {
        let event = Event::DaemonStopped {};
        let written = serde_json::to_value(&event).expect("an event");
        assert_eq!(written["kind"], event.kind());
    }

    #[test]
    fn an_unknown_kind_is_told_which_there_are() {
        let error = kind_named("query").expect_err("no such kind").to_string();
        assert!(
            error.contains("query_admitted") && error.contains("kernel_refused"),
            "{error}"
        );
        assert_eq!(kind_named("closed"), Ok("closed"));
    }
}
