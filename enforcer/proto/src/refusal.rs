//! Every "no". A refusal is data, not an error: a stable code, a sentence and the next step, the same words in the client, console and log.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $next:literal;)+) => {
        /// A stable name for one kind of refusal. Codes are only ever added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Code {
            /// Every code there is, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as written in logs and answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What to do about it; `{agent}` is not filled in, the sentence before it names who was refused.
            #[must_use]
            pub const fn next_step(self) -> &'static str {
                match self { $(Self::$name => $next),+ }
            }

            /// What the code means, for the documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

impl Code {
    /// Whether it says that a request went out without a token that is accepted, or not at all.
    #[must_use]
    pub const fn is_without_token(self) -> bool {
        matches!(
            self,
            Self::TokenUnavailable
                | Self::TokenDenied
                | Self::TokenMisconfigured
                | Self::TokenThrottled
        )
    }
}

codes! {
    /// No window is open for the agent.
    WindowNone = "window.none", "Ask for one: enforcer request --scope PROJECT.DATASET:read --ttl 15m --reason WHY";
    /// The window of this connection has ended.
    WindowClosed = "window.closed", "Ask for a new one: enforcer request --scope PROJECT.DATASET:read --ttl 15m --reason WHY";
    /// The window's budget of bytes, rows or queries is spent, or too little is left for what is asked.
    WindowBudget = "window.budget", "Make the query smaller, or ask for a new window with a larger budget.";
    /// As many jobs of the window run as may at once, or all that is left of its rows is held for what is on its way.
    WindowBusy = "window.busy", "Wait until some of that has ended, or end it.";
    /// A dataset or table outside the window's scope.
    ScopeOutside = "scope.outside", "Leave it out, or ask for a window that names it: enforcer request --scope PROJECT.DATASET:read";
    /// A table of a dataset that the window only reads would be written.
    ScopeReadOnly = "scope.read_only", "Ask for a window that may write there: enforcer request --scope PROJECT.DATASET:write";
    /// A table would be made, changed or removed as such, or could get other columns with what fills it, where the window only fills tables and changes rows.
    ScopeDdl = "scope.ddl", "Ask for a window that may: enforcer request --scope PROJECT.DATASET:ddl";
    /// Data that would go to a bucket of Cloud Storage, or come from one, which the window does not name for that.
    ScopeBucket = "scope.bucket", "Ask for a window that names it: enforcer request --scope PROJECT.DATASET:read,gs://BUCKET:write";
    /// A billing project that the window does not name.
    ScopeProject = "scope.project", "Run the query in a project of the window's datasets.";
    /// A statement of a kind that is never let through.
    StatementKind = "query.statement", "SELECT is let through and, where a window may write, INSERT, UPDATE, DELETE, MERGE and TRUNCATE TABLE, with :ddl CREATE TABLE and DROP TABLE; EXPORT DATA to a bucket that it names, written out in full.";
    /// Legacy SQL, which an absent useLegacySql means as well.
    LegacySql = "query.legacy_sql", "Use GoogleSQL: bq query --nouse_legacy_sql, or useLegacySql=false.";
    /// BigQuery's dry run did not say, or could not say, which tables the query reads.
    NotVouched = "query.not_vouched", "Write it as one plain statement over named tables.";
    /// BigQuery's dry run refused the query.
    DryRunRefused = "query.dry_run", "Correct the query: where BigQuery's own words name nothing but what the query names, they are above.";
    /// A job, an upload or a read stream that this window did not start.
    JobForeign = "job.foreign", "Only what was started in the open window can be read, continued or cancelled.";
    /// The id that a client chose for a job is that of a job of this window, or may be: one that has ended or was deleted, too.
    JobIdUsed = "job.id_used", "Choose another id, or leave it out.";
    /// A start that is tried again while nobody knows whether BigQuery has taken it; it is answered as BigQuery answers what is to be tried again.
    JobUnanswered = "job.unanswered", "Send the same once more in some seconds.";
    /// A start that is tried again though its job is there; it is answered as BigQuery answers that.
    JobDuplicate = "job.duplicate", "Ask for the job by its name (jobs.get).";
    /// An API method, host or path that is not let through.
    MethodUnknown = "api.method", "See the list of methods in the documentation.";
    /// A request that is malformed or ambiguous.
    RequestMalformed = "api.malformed", "Send one plain JSON request.";
    /// A query parameter or body field that is not let through.
    FieldUnknown = "api.field", "Leave it out.";
    /// A body larger than what is inspected.
    BodyTooLarge = "api.body_too_large", "Make it smaller than the bound that is named above; what is loaded can be sent in parts.";
    /// The name asked for is not a protected BigQuery name, or does not match the TLS name.
    HostMismatch = "api.host", "Send the request to the host the connection was made for.";
    /// The upstream token could not be had: Google could not be reached, did not answer in time or did not answer usably.
    TokenUnavailable = "token.unavailable", "Nothing was sent. Try again later; the operator sees the cause in the daemon's log.";
    /// Google says that the host or the agent may not have the token, or does not accept it.
    TokenDenied = "token.denied", "Nothing was done. The operator must let this agent's identity in at Google: enforcer check";
    /// The host's own set-up cannot get a token: its key, its provider, the agent's service account or its base identity is not as Google knows it.
    TokenMisconfigured = "token.misconfigured", "Nothing was sent. The operator must mend the daemon's configuration or Google's: enforcer check";
    /// Google gives no more tokens for now.
    TokenThrottled = "token.throttled", "Nothing was sent. Try again in some minutes.";
    /// BigQuery could not be reached, or its answer could not be used.
    UpstreamFailed = "upstream.failed", "Try again later; the operator sees the cause in the daemon's log.";
    /// The audit log cannot be written, so nothing is allowed.
    AuditUnavailable = "audit.unavailable", "Nothing was sent. The operator must make the audit log writable again.";
    /// The daemon is too busy to decide.
    Overloaded = "daemon.overloaded", "Send fewer requests at once.";
    /// The caller is not an agent this daemon knows.
    CallerUnknown = "caller.unknown", "Run inside an agent's workload: enforcer run --agent NAME -- COMMAND";
    /// A process in the agent's workload that runs another executable than the agent is narrowed to.
    ProgramNotAllowed = "program.not_allowed", "Run one of the agent's `executables`, or ask the operator to add this one.";
    /// The caller has no right to this.
    CallerForbidden = "caller.forbidden", "Ask someone whom the policy names.";
    /// Approving one's own request.
    SelfApproval = "approve.self", "Another person must decide.";
    /// The request is not pending any more, or never was.
    NotPending = "request.not_pending", "See: enforcer status";
    /// What was approved is not what was shown.
    DigestChanged = "approve.changed", "Look at the request again: enforcer status";
    /// The same person has agreed already.
    ApprovedAlready = "approve.again", "Another person must agree as well.";
    /// The policy asks for a signature, and there is none, or none of a key that may sign.
    SignatureNeeded = "approve.signature", "Approve with: enforcer approve REQUEST --sign KEY";
    /// A review of a window that waits for none, by who asked for it or opened it, or by its agent.
    ReviewRefused = "review.refused", "Another person must review; see: enforcer status";
    /// An approval that would widen or lengthen the request.
    ApprovalWider = "approve.wider", "An approver may shorten and narrow, never widen.";
    /// No policy rule allows the request.
    PolicyNone = "policy.none", "Ask the operator for a rule that covers these datasets.";
    /// The request exceeds what the policy rule allows.
    PolicyExceeded = "policy.exceeded", "Ask for less.";
    /// With this window the agent would hold one for a larger share of the day than the policy allows.
    DutyCycle = "policy.duty_cycle", "Ask for a shorter window, or later.";
    /// As many windows are open under the rule as may be at once.
    WindowsAtOnce = "policy.windows_at_once", "Wait until one of them has closed.";
    /// The rule opens by itself at other times, and names nobody who could decide now.
    PolicyHours = "policy.hours", "Ask at a time that the policy names.";
    /// The agent asks again, or would hold a window again, too soon: after a window, after a denial, or more often than the policy allows in an hour.
    TooSoon = "request.too_soon", "Wait for as long as it says.";
    /// Somebody keeps the agent from windows.
    AgentLocked = "agent.locked", "Talk to whoever locked it; only people can unlock it: enforcer unlock AGENT";
    /// Too many requests are pending.
    TooManyPending = "request.too_many", "Wait for a decision on those.";
    /// A request that was denied.
    RequestDenied = "request.denied", "Talk to whoever denied it before asking again.";
    /// A query without a window, of which a request was made that nobody has decided on yet.
    WindowAsked = "window.asked", "Run it again once it is approved; see: enforcer status";
    /// The agent already holds an open window.
    WindowOpen = "request.window_open", "Close it first: enforcer close GRANT";
    /// The grant is not open.
    NotOpen = "grant.not_open", "See: enforcer status";
    /// The kernel did not take the window.
    KernelFailed = "kernel.failed", "The operator sees the cause in the daemon's log.";
    /// A text that is empty, too long or not a name.
    InputInvalid = "input.invalid", "Correct it and try again.";
    /// A TLS hello that is late, malformed or too long, or that names no server in the clear.
    HelloUnreadable = "tls.hello", "Use TLS with a server name (SNI) and without Encrypted Client Hello.";
    /// A TLS hello that the process which connected did not send: somebody else who may make packets in its network namespace spoke in its place.
    HelloForeign = "tls.foreign", "Share a network namespace with nobody who may make packets in it (CAP_NET_RAW, or its root); then try again.";
    /// A question for a name that the process which connected did not send, likewise.
    QuestionForeign = "names.foreign", "Share a network namespace with nobody who may make packets in it (CAP_NET_RAW, or its root); then try again.";
    /// TLS 1.2 or a second hello (HelloRetryRequest) from a network namespace of its own: with less than TLS 1.3 from the first hello on, it is not known there who speaks.
    TlsInsufficient = "tls.insufficient_security", "Use TLS 1.3 there, with a key share of X25519 in the first hello, as current clients do.";
    /// A name besides BigQuery's that is not on the agent's list.
    HostNotAllowed = "host.not_allowed", "Ask the operator to add the name to the agent's `allow` list.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no code of a refusal; there are: {}", Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownCode {
    text: String,
}

impl std::str::FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().find(|code| code.as_str() == text);
        found.copied().ok_or_else(|| UnknownCode {
            text: text.chars().take(64).collect(),
        })
    }
}

/// One refusal: which kind, and what exactly was refused and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind.
    pub code: Code,
    /// One sentence without the final full stop: what was refused, and why. Safe to show: it holds no control characters.
    pub what: String,
}

/// The longest sentence of a refusal, characters; what an agent wrote may be part of it.
pub const REFUSAL_CHARS_MAX: usize = 600;

impl Refusal {
    /// A refusal of `code`, saying `what`.
    #[must_use]
    pub fn new(code: Code, what: impl AsRef<str>) -> Self {
        Self {
            code,
            what: crate::text::safe_line(what.as_ref(), REFUSAL_CHARS_MAX),
        }
    }

    /// The whole message, one line: sentence, next step, code.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{}. {} [{}]", self.what, self.code.next_step(), self.code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_told_the_bound_that_it_met_and_no_other() {
        let next = Code::BodyTooLarge.next_step();
        assert!(!next.contains(|c: char| c.is_ascii_digit()), "{next}");
    }

    #[test]
    fn every_code_is_unique_and_serialises_to_its_own_text() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert_eq!(
                serde_json::to_string(code).expect("a code"),
                format!("\"{code}\"")
            );
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(!code.next_step().is_empty() && !code.meaning().is_empty());
        }
    }
}
