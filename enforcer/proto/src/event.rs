//! What happened, in the words of the log. The ledger is rebuilt from these, so a variant or field is never removed or given new meaning.

mod about;
mod bounded;
mod kind;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use about::About;
pub use bounded::{
    COMM_BYTES_MAX, FAULT_BYTES_MAX, FAULTS_RECORDED_MAX, GIDS_RECORDED_MAX, REFUSED_SQL_BYTES_MAX,
    REQUEST_LINE_BYTES_MAX, TEXT_BYTES_MAX,
};
pub use kind::{KINDS, UnknownKind, kind_named};

use crate::asking::FromQuery;
use crate::bucket::BucketRef;
use crate::id::{GrantId, QueryId, RequestId, SessionId};
use crate::policy::{Ask, Budget};
use crate::principal::{AgentName, Approver, Caller, ContainerOrigin, Process, ProcessOrigin};
use crate::query::{JobRef, Method};
use crate::refusal::{Code, Refusal};
use crate::scope::{Scope, TableRef};
use crate::time::Ttl;

/// Why a window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// Its time was up.
    Expired,
    /// A person ended it.
    Revoked,
    /// The agent gave it back.
    GivenBack,
    /// The process that it was asked for, and was to end with, has ended.
    ProcessEnded,
    /// Its budget of bytes was spent, or that of rows.
    BudgetSpent,
    /// A job of its read a table outside its scope.
    ScopeViolated,
    /// The host was booted anew: a deadline on the old boot clock means nothing.
    Rebooted,
    /// The kernel did not hold the window that the log said was open, or did not take it.
    KernelMissing,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "its time was up",
            Self::Revoked => "it was revoked",
            Self::GivenBack => "the agent gave it back",
            Self::ProcessEnded => "the process that it was asked for has ended",
            Self::BudgetSpent => "its budget was spent",
            Self::ScopeViolated => "a job of its read outside its scope",
            Self::Rebooted => "the host was booted anew",
            Self::KernelMissing => "the kernel did not hold it",
        })
    }
}

/// What refused, where many refusals share a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refuser {
    /// The kernel: socket operations.
    Kernel,
    /// The proxy: connections and requests.
    Proxy,
    /// The control socket: connections, requests for windows, decisions.
    Control,
}

impl std::fmt::Display for Refuser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "the kernel",
            Self::Proxy => "the proxy",
            Self::Control => "the control socket",
        })
    }
}

/// A SQL text of which only the beginning is in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlCut {
    /// How long the whole text is, bytes.
    pub bytes: u64,
    /// SHA-256 of the whole text.
    pub sha256: String,
}

/// The highest numbers given so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbers {
    /// Of a request.
    pub request: u64,
    /// Of a grant.
    pub grant: u64,
    /// Of a query.
    pub query: u64,
    /// Of a session.
    pub session: u64,
}

/// One thing that happened. In the log: `{"kind":"approved",…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The daemon began, with this policy.
    DaemonStarted {
        /// The host's configured name.
        host: String,
        /// The daemon's version.
        version: String,
        /// SHA-256 of the policy file.
        policy_digest: String,
    },
    /// The daemon was asked to stop, and did.
    DaemonStopped {},
    /// The last line of the log was torn by a crash and was set aside.
    TailRepaired {
        /// Bytes set aside.
        bytes: u64,
    },
    /// Old segments of the log go, as the operator's retention says. Recorded before the first of their files is removed.
    SegmentsRemoved {
        /// The first record that goes.
        first_seq: u64,
        /// The last.
        last_seq: u64,
        /// Its hash, which the first record that stays names as its predecessor's.
        head: String,
        /// The highest numbers that were given up to this record: no later one is given twice, though the record of it is gone.
        #[serde(default)]
        numbers: Numbers,
    },
    /// What the ledger was at a record of the log is on disk, so that a start need not read what is before it.
    SnapshotTaken {
        /// That record's number.
        records: u64,
        /// SHA-256 of the snapshot: another is not believed.
        sha256: String,
    },
    /// A snapshot could not be used at this start, and was set aside. The log was read from an older one on, or whole.
    SnapshotSetAside {
        /// Which, and what is wrong with it.
        why: String,
    },
    /// An agent asks.
    Requested {
        /// Its number.
        request: RequestId,
        /// The agent.
        agent: AgentName,
        /// The process that asked.
        process: Process,
        /// What is asked.
        ask: Ask,
        /// The policy rule that covers it.
        rule: u32,
        /// SHA-256 of what approvers are shown.
        digest: String,
        /// When it stops waiting, on the boot clock.
        expires_boot_ns: u64,
        /// The query that it was made of, where no process asked for it by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_query: Option<FromQuery>,
        /// It is for a command: it is withdrawn, or its window given back, when the process that asked ends.
        #[serde(default)]
        ends_with_process: bool,
        /// What a window of it may use: what is asked for, within what the rule allows. Older records have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
        /// Where the process that asked comes from, for people; absent where it could not be read, and in older records. It decides nothing and is
        /// no part of the digest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<ProcessOrigin>,
    },
    /// A request that was refused before anyone had to decide.
    RequestRefused {
        /// Who asked.
        caller: Caller,
        /// What was asked, as far as it was understood.
        ask: Option<Ask>,
        /// Why not.
        refusal: Refusal,
    },
    /// A person agreed to a request that others must agree to as well. It waits on, for no more than this person agreed to.
    ApprovalGiven {
        /// The request.
        request: RequestId,
        /// The agent.
        agent: AgentName,
        /// Who.
        approver: Approver,
        /// Those of the person's groups that the rule named.
        gids: BTreeSet<u32>,
        /// The digest of what the person was shown.
        digest: String,
        /// What may be granted from here on.
        scope: Scope,
        /// For how long at most.
        ttl: Ttl,
        /// The digest of what the next is shown.
        next_digest: String,
        /// The key that signed it, where it was signed: its name in the list of signers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signer: Option<String>,
        /// What a window of it may use from here on. Older records have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
        /// The number of the policy's rule under which it was decided. Older records have none: it is the request's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<u32>,
    },
    /// A decision to grant; the window opens once this is durable.
    Approved {
        /// The request.
        request: RequestId,
        /// The grant it makes.
        grant: GrantId,
        /// The agent.
        agent: AgentName,
        /// Who decided.
        approver: Approver,
        /// The digest the approver named.
        digest: String,
        /// What is granted; within what was asked.
        scope: Scope,
        /// How long; not longer than asked.
        ttl: Ttl,
        /// Byte budget.
        bytes_max: u64,
        /// Query budget.
        queries_max: u64,
        /// Bytes that one query may process. Older records have none of these three, and bounded nothing by them.
        #[serde(default)]
        query_bytes_max: Option<u64>,
        /// Bytes of rows that may be passed on.
        #[serde(default)]
        returned_bytes_max: Option<u64>,
        /// Jobs that may run at once.
        #[serde(default)]
        jobs_at_once_max: Option<u64>,
        /// Opens on the boot clock.
        opens_boot_ns: u64,
        /// Closes on the boot clock; absolute.
        closes_boot_ns: u64,
        /// Closes in unix time, for people.
        closes_unix_ns: u64,
        /// Who agreed before the one that decided.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        agreed: Vec<Approver>,
        /// The key that signed it, where it was signed: its name in the list of signers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signer: Option<String>,
        /// Why it was opened without the others whom the policy asks for. Somebody else must review it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        break_glass: Option<String>,
        /// The number of the policy's rule under which it was decided. Older records have none: it is the request's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<u32>,
    },
    /// A window that was opened in an emergency has been looked at by somebody else.
    Reviewed {
        /// The grant.
        grant: GrantId,
        /// The agent.
        agent: AgentName,
        /// Who looked.
        reviewer: Approver,
        /// What they say of it.
        note: String,
    },
    /// A person keeps an agent from windows from here on.
    AgentLocked {
        /// The agent.
        agent: AgentName,
        /// Who did.
        by: Approver,
        /// Why.
        reason: String,
    },
    /// It may have windows again.
    AgentUnlocked {
        /// The agent.
        agent: AgentName,
        /// Who let it.
        by: Approver,
    },
    /// The rules in force are others from here on.
    PolicyLoaded {
        /// SHA-256 of the file.
        digest: String,
        /// How many rules it has.
        rules: u32,
        /// The file is as it was: users or groups that it names are others than before.
        #[serde(default)]
        is_same_text: bool,
    },
    /// A changed policy file cannot be used: the rules in force stay as they are.
    PolicyRejected {
        /// SHA-256 of the file, where it could be read.
        digest: Option<String>,
        /// Why.
        why: String,
    },
    /// The kernel holds the window.
    Opened {
        /// The grant.
        grant: GrantId,
        /// The agent.
        agent: AgentName,
    },
    /// A decision not to grant.
    Denied {
        /// The request.
        request: RequestId,
        /// The agent.
        agent: AgentName,
        /// Who decided.
        approver: Approver,
        /// Why.
        reason: String,
    },
    /// Nobody decided in time.
    RequestExpired {
        /// The request.
        request: RequestId,
        /// The agent.
        agent: AgentName,
    },
    /// Whoever asked does not wait any more: the process that it was for has ended.
    RequestWithdrawn {
        /// The request.
        request: RequestId,
        /// The agent.
        agent: AgentName,
        /// The process that asked.
        by: Option<Process>,
    },
    /// A query of a uid that had no part in a request waits with it: that uid decides on it no more.
    RequestJoined {
        /// The request.
        request: RequestId,
        /// The agent.
        agent: AgentName,
        /// The process whose query it is.
        process: Process,
    },
    /// A decision that was refused: by someone who may not, on something that is not pending, or of something wider.
    DecisionRefused {
        /// Who tried.
        caller: Caller,
        /// What they tried to do, such as `approve r-3`.
        action: String,
        /// Why not.
        refusal: Refusal,
    },
    /// The window has ended. Recorded after the kernel has closed it.
    Closed {
        /// The grant.
        grant: GrantId,
        /// The agent.
        agent: AgentName,
        /// Why.
        reason: CloseReason,
        /// Who ended it, where a process did.
        by: Option<Process>,
        /// Queries admitted in it.
        queries: u64,
        /// Bytes billed in it.
        bytes: u64,
    },
    /// What is wrong with the enforcement changed: drift of programs and maps, gaps of the guards, probes that were not refused.
    HealthChanged {
        /// What is wrong now, one sentence each; none when all is well again.
        faults: Vec<String>,
    },
    /// A query was asked for. Its text goes to BigQuery's dry run only after this is durable; what came of it is the admission or the refusal
    /// that follows.
    QueryAsked {
        /// The window.
        grant: GrantId,
        /// The agent.
        agent: AgentName,
        /// The connection.
        session: SessionId,
        /// The process that connected.
        process: Process,
        /// The API method.
        method: Method,
        /// The whole SQL text.
        sql: String,
    },
    /// A query without a window is about to become a request: its text goes to BigQuery's dry run under the estimator's identity, only after this
    /// is durable. What came of it is in the request that follows.
    EstimateAsked {
        /// The agent.
        agent: AgentName,
        /// The connection.
        session: SessionId,
        /// The process that connected.
        process: Process,
        /// The API method.
        method: Method,
        /// The project that is asked, as the client named it.
        project: String,
        /// The whole SQL text.
        sql: String,
    },
    /// A query was admitted; it is forwarded only after this is durable.
    QueryAdmitted {
        /// Its number.
        query: QueryId,
        /// The window.
        grant: GrantId,
        /// The agent.
        agent: AgentName,
        /// The connection.
        session: SessionId,
        /// The process that connected.
        process: Process,
        /// The container that the process is in, as was known by the time that it connected; absent where it is in none or that could not be read, and
        /// in older records.
        #[serde(default)]
        container: Option<Box<ContainerOrigin>>,
        /// The API method.
        method: Method,
        /// The SQL text, if it has one.
        sql: Option<String>,
        /// The tables it reads.
        tables: Vec<TableRef>,
        /// The tables it writes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        writes: Vec<TableRef>,
        /// The buckets that data comes from.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        imports: Vec<BucketRef>,
        /// Those that it goes to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        exports: Vec<BucketRef>,
        /// What else it reaches for, such as `job p:US.j-1` or `dataset p.d`.
        #[serde(default)]
        resource: Option<String>,
        /// BigQuery's estimate, bytes.
        bytes: u64,
        /// Bytes of the budget that are held for it until its cost is known: the `maximumBytesBilled` that is sent, or the most
        /// that is passed on of a table's rows. In older records it is absent, and the estimate stands for it.
        #[serde(default)]
        ceiling: Option<u64>,
        /// The most that is passed on of its rows, held of the budget for them until the answer is through, or what goes to a bucket, as far as
        /// that is known before; none where it has no rows.
        #[serde(default)]
        returned_ceiling: Option<u64>,
        /// The client asked only for a dry run: it starts no job, costs nothing and counts for nothing.
        #[serde(default)]
        is_dry_run: bool,
        /// The name under which its job goes out. The job is the window's own only once BigQuery's answer says so: until then somebody
        /// else's may have this name.
        #[serde(default)]
        job: Option<JobRef>,
        /// What it loads comes in parts: no job runs before the last of them, whose admission names the job again.
        #[serde(default)]
        in_parts: bool,
        /// What the job is asked to do, as the SHA-256 of all that the client said of it: a start of the same name that asks for the same is the
        /// same start, tried again. Absent where it cannot be tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
        /// How long BigQuery's dry run took, microseconds: what the client waited for its verdict. 0 where the same was judged in this window
        /// just before; absent where none is needed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dry_run_us: Option<u64>,
    },
    /// BigQuery's answer named a job of the window. Recorded before the client can act on the answer: from here on the job is the
    /// window's own. Once more when an answer says that it is done, or what it cost.
    JobSeen {
        /// The query whose answer it was.
        query: QueryId,
        /// The window.
        grant: GrantId,
        /// The job.
        job: JobRef,
        /// The table that holds its result.
        destination: Option<TableRef>,
        /// Whether it has ended.
        is_done: bool,
        /// Bytes billed, where BigQuery says so.
        billed: Option<u64>,
        /// Bytes processed, where BigQuery says so.
        processed: Option<u64>,
        /// BigQuery's own description of the job said so once it had ended: what it has read was looked at.
        #[serde(default)]
        is_compared: bool,
        /// That description is of a query that ended well, and names no table that it has read.
        #[serde(default)]
        names_no_table: bool,
        /// A table outside the window that the job read all the same: a view or a table became another between its dry run and its run.
        #[serde(default)]
        read_outside: Option<String>,
    },
    /// The answer to an admitted query is through, or is lost.
    QueryFinished {
        /// Its number.
        query: QueryId,
        /// The window.
        grant: GrantId,
        /// The HTTP status, or absent where no answer came.
        status: Option<u16>,
        /// The job, where BigQuery named one.
        job: Option<JobRef>,
        /// The anonymous or named table that holds the job's result.
        destination: Option<TableRef>,
        /// Bytes billed or processed, as BigQuery says.
        bytes: u64,
        /// Body bytes sent to the agent.
        body_bytes: u64,
        /// From admission to the last byte, microseconds.
        duration_us: u64,
        /// How it ended, where not well: `cut`, `upstream`, `client gone`.
        trouble: Option<String>,
        /// It started nothing: it never left, or BigQuery refused it. What was held for it is free again.
        #[serde(default)]
        is_void: bool,
    },
    /// A request to BigQuery was refused. Nothing of it was forwarded.
    QueryRefused {
        /// The window, where one was open.
        grant: Option<GrantId>,
        /// The agent.
        agent: AgentName,
        /// The connection.
        session: SessionId,
        /// The process that connected.
        process: Process,
        /// The container that the process is in, as was known by the time that it connected; absent where it is in none or that could not be read, and
        /// in older records.
        #[serde(default)]
        container: Option<Box<ContainerOrigin>>,
        /// Method and path, or the API method.
        request: String,
        /// The SQL text, if it was read; its beginning where `sql_cut` says so.
        sql: Option<String>,
        /// What was cut off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sql_cut: Option<SqlCut>,
        /// Why.
        refusal: Refusal,
    },
    /// A connection that never became a request: no origin, no TLS, a foreign name.
    ConnectionRefused {
        /// The agent, where known.
        agent: Option<AgentName>,
        /// The process, where known.
        process: Option<Process>,
        /// Why.
        refusal: Refusal,
        /// How many like it this record stands for.
        count: u64,
    },
    /// A running job of a window that closed was cancelled, or could not be.
    JobCancelled {
        /// The window.
        grant: GrantId,
        /// The job.
        job: JobRef,
        /// `cancelled`, or what went wrong.
        outcome: String,
        /// Whether it is known that the job does not run on, so that nobody looks at it again. Older records do not say so but by their outcome.
        #[serde(default)]
        is_settled: Option<bool>,
    },
    /// The kernel refused a socket operation toward BigQuery.
    KernelRefused {
        /// The agent, where the process is one.
        agent: Option<AgentName>,
        /// The process.
        process: Process,
        /// The operation and why, such as `connect4: not an agent`.
        verdict: String,
        /// The destination.
        destination: String,
        /// How many like it this record stands for.
        count: u64,
    },
    /// Refusals that came in a flood: only counted.
    FurtherRefused {
        /// Who refused.
        by: Refuser,
        /// The agent that was refused, where known.
        #[serde(default)]
        agent: Option<AgentName>,
        /// The uid that was refused, outside every workload.
        #[serde(default)]
        uid: Option<u32>,
        /// Why; absent where they were of more kinds than are told apart.
        #[serde(default)]
        code: Option<Code>,
        /// How many.
        count: u64,
    },
    /// Something that happened and whose own record would not have fitted a line of the log.
    TooLong {
        /// What kind of event it was.
        event: String,
        /// How long its record would have been, bytes.
        bytes: u64,
    },
    /// Events that happened while the log could not be written, and for which there was no room in memory either: there is no record of them.
    EventsLost {
        /// How many of each kind.
        kinds: BTreeMap<String, u64>,
    },
    /// A process joined an agent's workload through `enforcer run`.
    ProcessJoined {
        /// The agent.
        agent: AgentName,
        /// The process.
        process: Process,
    },
    /// The programs were detached on purpose: from here on nothing is enforced on this host until a daemon starts again.
    Detached {
        /// By whom.
        uid: u32,
        /// Why.
        reason: String,
    },
    /// Requests to a name besides BigQuery's that the agent is allowed. They are passed on unjudged, with no token of ours.
    Forwarded {
        /// The agent.
        agent: AgentName,
        /// The process that connected; absent where requests of more kinds came than are told apart.
        process: Option<Process>,
        /// Method, host and path.
        request: String,
        /// How many like it this record stands for.
        count: u64,
    },
    /// Root had the way to Google looked at (`enforcer gcp doctor`): tokens are minted for it as each agent, outside of every window, for metadata and dry
    /// runs alone. Recorded before any is.
    WayExamined {
        /// Who asked.
        process: Process,
        /// As which agent, or the estimator by its name; absent: as all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
    },
    /// Assertions are signed by this key from here on: another one than before, or the first of this daemon's.
    IssuerKeySigns {
        /// The key's RFC 7638 thumbprint.
        kid: String,
    },
    /// An agent sent a credential of Google's that is its own, or looks like one. It was not sent on; that it has one at all is worth knowing: what it
    /// reaches by other ways is not scoped by any window.
    CredentialPresented {
        /// The agent.
        agent: AgentName,
        /// The process that connected; absent where more credentials came than are told apart.
        process: Option<Process>,
        /// What kind of credential, and where in the request it stood. Never the credential.
        what: String,
        /// The first 16 hex digits of the credential's SHA-256: whoever has it can tell that it is this one, and nobody can make it from this.
        fingerprint: Option<String>,
        /// How many requests had it, since the last such record.
        count: u64,
    },
    /// The daemon listens in a network namespace that processes of an agent's are in: what they ask is led to it there. Recorded before it is.
    NamespaceServed {
        /// The agent.
        agent: AgentName,
        /// One of its processes there.
        process: Process,
        /// The namespace, as `/proc/PID/ns/net` numbers it.
        netns: u64,
        /// The container that is the agent's workload, by its name or the beginning of its id, as its runtime says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
        /// What image that was made of, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
    /// It does so no more for this agent: none of its processes is there, or somebody who is has ended the daemon's listeners, which a
    /// [`Event::NamespaceRefused`] says then. Recorded after; where another agent's are, it is served for that one, which was recorded before.
    NamespaceLeft {
        /// The agent that it was served for.
        agent: AgentName,
        /// The namespace.
        netns: u64,
    },
    /// It cannot, or not for a while, since the daemon's listeners were ended there: what is asked from there is refused until it can.
    NamespaceRefused {
        /// The agent.
        agent: AgentName,
        /// One of its processes there.
        process: Process,
        /// The namespace.
        netns: u64,
        /// Why, and what is to be done.
        why: String,
    },
    /// An agent's workload is another container than before, or none any more, by what its runtime says. It is of the workload's cgroup, not of each process
    /// there: a container that lies below a workload has none of these, and what is put into the cgroup from the host is not in the container. Each query's record is of
    /// its process. Said anew after the daemon's start.
    ContainerChanged {
        /// The agent.
        agent: AgentName,
        /// The container; absent where none of the agent's runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<ContainerOrigin>,
        /// Its cgroup, as a path from the hierarchy's root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<String>,
    },
    /// Notices to a hook were given up: nobody was told of what they tell of, which is on record all the same.
    NotificationFailed {
        /// The hook.
        hook: String,
        /// How many, since the last such record of this hook.
        count: u64,
        /// Why the last of them was.
        why: String,
    },
}

impl Event {
    /// The session it happened in, where it happened in one.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            Self::QueryAsked { session, .. }
            | Self::EstimateAsked { session, .. }
            | Self::QueryAdmitted { session, .. }
            | Self::QueryRefused { session, .. } => Some(*session),
            Self::DaemonStarted { .. }
            | Self::DaemonStopped {}
            | Self::TailRepaired { .. }
            | Self::SegmentsRemoved { .. }
            | Self::SnapshotTaken { .. }
            | Self::SnapshotSetAside { .. }
            | Self::Requested { .. }
            | Self::RequestRefused { .. }
            | Self::Approved { .. }
            | Self::Opened { .. }
            | Self::Denied { .. }
            | Self::RequestExpired { .. }
            | Self::RequestWithdrawn { .. }
            | Self::DecisionRefused { .. }
            | Self::Closed { .. }
            | Self::JobSeen { .. }
            | Self::QueryFinished { .. }
            | Self::ConnectionRefused { .. }
            | Self::JobCancelled { .. }
            | Self::KernelRefused { .. }
            | Self::FurtherRefused { .. }
            | Self::HealthChanged { .. }
            | Self::TooLong { .. }
            | Self::RequestJoined { .. }
            | Self::EventsLost { .. }
            | Self::ProcessJoined { .. }
            | Self::Detached { .. }
            | Self::ApprovalGiven { .. }
            | Self::Reviewed { .. }
            | Self::AgentLocked { .. }
            | Self::AgentUnlocked { .. }
            | Self::PolicyLoaded { .. }
            | Self::PolicyRejected { .. }
            | Self::Forwarded { .. }
            | Self::CredentialPresented { .. }
            | Self::IssuerKeySigns { .. }
            | Self::NamespaceServed { .. }
            | Self::NamespaceLeft { .. }
            | Self::NamespaceRefused { .. }
            | Self::ContainerChanged { .. }
            | Self::WayExamined { .. }
            | Self::NotificationFailed { .. } => None,
        }
    }

    /// The request that does not wait any more after it.
    #[must_use]
    pub const fn ends_request(&self) -> Option<RequestId> {
        match self {
            Self::Approved { request, .. }
            | Self::Denied { request, .. }
            | Self::RequestExpired { request, .. }
            | Self::RequestWithdrawn { request, .. } => Some(*request),
            Self::NotificationFailed { .. }
            | Self::ApprovalGiven { .. }
            | Self::Reviewed { .. }
            | Self::AgentLocked { .. }
            | Self::AgentUnlocked { .. }
            | Self::PolicyLoaded { .. }
            | Self::PolicyRejected { .. }
            | Self::DaemonStarted { .. }
            | Self::DaemonStopped {}
            | Self::TailRepaired { .. }
            | Self::SegmentsRemoved { .. }
            | Self::SnapshotTaken { .. }
            | Self::SnapshotSetAside { .. }
            | Self::Requested { .. }
            | Self::RequestRefused { .. }
            | Self::Opened { .. }
            | Self::DecisionRefused { .. }
            | Self::Closed { .. }
            | Self::HealthChanged { .. }
            | Self::QueryAsked { .. }
            | Self::EstimateAsked { .. }
            | Self::QueryAdmitted { .. }
            | Self::JobSeen { .. }
            | Self::QueryFinished { .. }
            | Self::QueryRefused { .. }
            | Self::ConnectionRefused { .. }
            | Self::JobCancelled { .. }
            | Self::KernelRefused { .. }
            | Self::FurtherRefused { .. }
            | Self::TooLong { .. }
            | Self::RequestJoined { .. }
            | Self::EventsLost { .. }
            | Self::ProcessJoined { .. }
            | Self::Detached { .. }
            | Self::Forwarded { .. }
            | Self::IssuerKeySigns { .. }
            | Self::NamespaceServed { .. }
            | Self::NamespaceLeft { .. }
            | Self::NamespaceRefused { .. }
            | Self::ContainerChanged { .. }
            | Self::WayExamined { .. }
            | Self::CredentialPresented { .. } => None,
        }
    }
}
