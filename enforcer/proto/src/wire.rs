//! The control socket: frames, the versioned hello, commands and replies. The only file that uses bincode.
//!
//! A frame is a `u32` length, little endian, then that many bytes of bincode. The client speaks first with [`Hello`]; the daemon answers
//! with its own, and refuses another version. After that each [`Ask`] gets exactly one [`Reply`], but for [`Ask::Log`] with `follow`,
//! which gets [`Reply::Records`] until the client goes, and [`Ask::Doctor`], which gets [`Reply::Checked`] for each check and then [`Reply::Done`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::audit::LINE_BYTES_MAX;
use crate::id::{GrantId, RequestId};
use crate::policy::Budget;
use crate::principal::{AgentName, ProcessOrigin};
use crate::refusal::Refusal;
use crate::scope::Scope;
use crate::time::{Now, Ttl};

/// The version of everything below. Both sides must have the same: the formats tolerate no added field.
pub const VERSION: u32 = 19;
/// What a hello starts with.
pub const MAGIC: [u8; 8] = *b"enforcer";
/// The longest frame, bytes; a longer one ends the connection. Any record of the log passes in one.
pub const FRAME_BYTES_MAX: usize = LINE_BYTES_MAX + 64 * 1024;
/// The longest frame that the daemon reads, bytes: more than the longest scope and reason take; a longer one ends the connection.
pub const ASK_BYTES_MAX: usize = 64 * 1024;
/// The most records that can be asked for as the newest of the log; who asks for more gets as many.
pub const LOG_LIMIT_MAX: u32 = 10_000;
/// The most log lines one reply carries.
pub const RECORDS_PER_REPLY_MAX: usize = 256;

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The length is over what the reader allows.
    #[error("a frame of {bytes} bytes is longer than the {bytes_max} that are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The bytes are no such message.
    #[error("the frame cannot be read: {0}")]
    Unreadable(String),
    /// The other side is not an enforcer, or another version of it.
    #[error(
        "the other side speaks version {theirs} of the control protocol, this one {VERSION}: install the same release on both"
    )]
    Version {
        /// Its version; 0 where it is no enforcer at all.
        theirs: u32,
    },
}

/// The first frame of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    magic: [u8; 8],
    version: u32,
}

impl Hello {
    /// This release's hello.
    #[must_use]
    pub const fn ours() -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
        }
    }

    /// Whether the other side is one we understand.
    ///
    /// # Errors
    /// [`WireError::Version`].
    pub fn check(&self) -> Result<(), WireError> {
        if self.magic != MAGIC {
            return Err(WireError::Version { theirs: 0 });
        }
        if self.version == VERSION {
            Ok(())
        } else {
            Err(WireError::Version {
                theirs: self.version,
            })
        }
    }
}

/// What a client asks. Who asks is known from the socket, never from the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Ask for a window; only from an agent's workload.
    Request(crate::policy::Ask),
    /// Approve a request.
    Approve {
        /// Which.
        request: RequestId,
        /// The digest of what was shown.
        seen: String,
        /// A shorter ttl.
        ttl: Option<Ttl>,
        /// Less than was asked for.
        scope: Option<Scope>,
        /// Fewer bytes that may be billed.
        bytes_max: Option<u64>,
        /// Fewer queries.
        queries_max: Option<u64>,
        /// An OpenSSH signature over these terms ([`crate::signed::statement`]), armored, where there is one.
        signature: Option<String>,
    },
    /// Open a window without the others whom the policy asks for, in an emergency.
    BreakGlass {
        /// Which request.
        request: RequestId,
        /// The digest of what was shown.
        seen: String,
        /// Why it cannot wait.
        reason: String,
        /// As for an approval.
        signature: Option<String>,
    },
    /// Say of a window that was opened in an emergency that one has looked at it.
    Review {
        /// Which.
        grant: GrantId,
        /// What there is to say.
        note: String,
    },
    /// Deny a request.
    Deny {
        /// Which.
        request: RequestId,
        /// Why.
        reason: String,
    },
    /// End a window as a person.
    Revoke {
        /// Which.
        grant: GrantId,
    },
    /// Give a window back as its agent.
    Close {
        /// Which.
        grant: GrantId,
    },
    /// Keep an agent from windows, as a person: what it has ends, what it asks for is refused.
    Lock {
        /// Which.
        agent: AgentName,
        /// Why.
        reason: String,
    },
    /// Let an agent have windows again.
    Unlock {
        /// Which.
        agent: AgentName,
    },
    /// End every window that the calling person may end.
    CloseAll,
    /// Give back whatever window the calling agent holds.
    Done,
    /// Wait for the decision on a request, and be told it: [`Reply::Opened`] or [`Reply::Refused`]. For its agent, or the process that asked.
    Wait {
        /// Which.
        request: RequestId,
    },
    /// Ask for a window for a command of this agent's, as somebody who may join its workload. It ends with the calling process.
    RequestForRun {
        /// Which agent.
        agent: AgentName,
        /// What for.
        ask: crate::policy::Ask,
    },
    /// What is open, pending and well. Agents see only their own.
    Status,
    /// One request, whatever else waits: a status that shows it alone, or a refusal. Agents see only their own.
    Show {
        /// Which.
        request: RequestId,
    },
    /// Log lines from sequence number `from` on. Not for agents.
    Log {
        /// The first sequence number wanted, from 1.
        from: u64,
        /// Whether to go on as records come.
        follow: bool,
        /// Of what is there already only the newest so many; all where absent. At most [`LOG_LIMIT_MAX`].
        limit: Option<u32>,
        /// Which records; all where nothing is asked.
        filter: Box<crate::search::Filter>,
    },
    /// Join an agent's workload: the calling process is moved into it.
    Join {
        /// Which agent.
        agent: AgentName,
        /// The request whose window ends with the calling process as well.
        run: Option<RequestId>,
    },
    /// Try whether notices arrive. Not for agents.
    NotifyTest {
        /// At which hook; absent: at each.
        hook: Option<String>,
    },
    /// Look at each link of the way to Google, live. For root alone, and not for agents.
    Doctor {
        /// Of which agent, or of the estimator by its name; absent: of all.
        agent: Option<AgentName>,
        /// The digest of the configuration that whoever asks has read: where the daemon runs with another, it says so.
        config: String,
    },
}

/// The daemon's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// No, and why.
    Refused(Refusal),
    /// The request waits for a decision, or was opened at once.
    Requested {
        /// Its number.
        request: RequestId,
        /// The grant, where a rule opened it without a person.
        grant: Option<GrantView>,
        /// Whose decision it waits for, in words.
        wanting: Option<String>,
        /// How long it waits for that, nanoseconds.
        expires_in_ns: u64,
    },
    /// Agreed; others must as well. The request as it waits now.
    Counted(Box<RequestView>),
    /// The window is open.
    Opened(GrantView),
    /// These windows were given back.
    GivenBack(Vec<GrantView>),
    /// Done, nothing more to say.
    Done,
    /// The state of things.
    Status(Box<Status>),
    /// Log lines as they are on disk, oldest first; empty where there are no more.
    Records(Vec<String>),
    /// The process is in the workload; this is how a client in it is set up.
    Joined(Joined),
    /// What came of the notices that were tried.
    Notified(Vec<NotifyTested>),
    /// One link of the way to Google was looked at.
    Checked(Box<crate::check::Check>),
}

impl Reply {
    /// What was answered.
    ///
    /// # Errors
    /// The refusal, where it is one.
    pub fn or_refused(self) -> Result<Self, Refusal> {
        if let Self::Refused(refusal) = self {
            return Err(refusal);
        }
        Ok(self)
    }
}

/// What came of trying one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyTested {
    /// The hook.
    pub hook: String,
    /// Why it did not arrive; absent when it did.
    pub trouble: Option<String>,
}

/// A hook as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookView {
    /// Its name.
    pub hook: String,
    /// Notices that arrived since the daemon started.
    pub delivered: u64,
    /// Notices that were given up since then.
    pub given_up: u64,
    /// Notices that wait.
    pub waiting: u64,
    /// Why the last attempt failed; absent when it did not.
    pub trouble: Option<String>,
}

/// What a process that joined needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The uid to go on as, where the agent has one.
    pub uid: Option<u32>,
    /// Environment variables that make clients trust the proxy and carry a placeholder credential.
    pub env: Vec<(String, String)>,
}

/// A request as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestView {
    /// Its number.
    pub request: RequestId,
    /// The agent.
    pub agent: AgentName,
    /// The asking process's uid.
    pub uid: u32,
    /// Its pid.
    pub pid: u32,
    /// Its name, which it chose. Empty to whoever does not watch over the agent, and to the agent itself.
    pub comm: String,
    /// Where it comes from, as far as that could be read when it asked: for people, and no part of the digest. Absent to whoever does not watch
    /// over the agent, and to the agent itself: it is not to learn of processes outside its workload.
    pub origin: Option<ProcessOrigin>,
    /// Uids besides whose queries wait with it.
    pub joined: Vec<u32>,
    /// What is asked.
    pub ask: crate::policy::Ask,
    /// What may be granted: as asked, or what those who agreed have made of it.
    pub scope: Scope,
    /// For how long at most.
    pub ttl: Ttl,
    /// What a window of it may use: less than is asked where the rule, or who agreed, says so.
    pub budget: Budget,
    /// SHA-256 of what is shown, to be named on approval.
    pub digest: String,
    /// Who has agreed, by uid.
    pub agreed: Vec<u32>,
    /// Who must still agree, in words; absent where nobody can any more.
    pub wanting: Option<String>,
    /// How long of the last 24 hours its agent has held a window, seconds.
    pub held_in_day_s: u64,
    /// How long the policy lets it, seconds.
    pub held_in_day_s_max: u64,
    /// The policy rule that covers it.
    pub rule: u32,
    /// `pending`, `approved`, `denied`, `expired` or `withdrawn`.
    pub state: String,
    /// The grant, where approved.
    pub grant: Option<GrantId>,
    /// The approver's reason, where denied.
    pub reason: Option<String>,
    /// The query that it was made of, where no process asked for it by itself.
    pub from_query: Option<crate::asking::FromQuery>,
    /// How many queries have joined it since the daemon began, that one included.
    pub queries: u64,
    /// Whether it is for a command, and ends with it.
    pub ends_with_process: bool,
    /// How long it still waits, nanoseconds.
    pub expires_in_ns: u64,
}

/// A policy rule as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its number.
    pub rule: u32,
    /// What it says, in words, shortened where it is long.
    pub said: String,
}

/// A window as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// Its number.
    pub grant: GrantId,
    /// The request it answers.
    pub request: RequestId,
    /// The agent.
    pub agent: AgentName,
    /// Datasets and access.
    pub scope: Scope,
    /// Who decided.
    pub approver: String,
    /// Why it was opened without the others whom the policy asks for, where it was.
    pub break_glass: Option<String>,
    /// Whether it is open.
    pub open: bool,
    /// How long it stays open, nanoseconds; 0 when closed.
    pub closes_in_ns: u64,
    /// How long it was granted for, nanoseconds.
    pub lasts_ns: u64,
    /// When it closes or closed, unix time, nanoseconds.
    pub closes_unix_ns: u64,
    /// Why it closed.
    pub closed: Option<String>,
    /// Queries used.
    pub queries: u64,
    /// Queries allowed.
    pub queries_max: u64,
    /// Jobs that run, or may.
    pub jobs_at_once: u64,
    /// Jobs that may run at once.
    pub jobs_at_once_max: u64,
    /// Bytes used.
    pub bytes: u64,
    /// Bytes held for what runs, or whose cost is not known yet.
    #[serde(default)]
    pub held_bytes: u64,
    /// Bytes allowed.
    pub bytes_max: u64,
    /// Bytes that one query may process.
    pub query_bytes_max: u64,
    /// Bytes of rows passed on.
    pub returned_bytes: u64,
    /// Bytes of rows that may be passed on.
    pub returned_bytes_max: u64,
}

/// An agent as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its name.
    pub agent: AgentName,
    /// By what its processes are known, in words.
    pub workload: String,
    /// How many processes are in its workload now.
    pub processes: u64,
    /// Some of them.
    pub some: Vec<ProcessView>,
    /// How much of each quarter of an hour of the last day it has held a window, percent, the oldest first.
    pub day: Vec<u8>,
    /// How long of the last 24 hours it has held a window, seconds.
    pub held_in_day_s: u64,
    /// Of the requests that are remembered, how many were granted.
    pub approved: u64,
    /// How many were denied.
    pub denied: u64,
    /// How many nobody decided in time, or were taken back.
    pub undecided: u64,
    /// What was refused to it and is on record since the daemon started: requests, queries, connections, operations.
    pub refused: u64,
    /// Who keeps it from windows, and why; absent where nobody does.
    pub locked: Option<LockView>,
}

/// A process as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its pid.
    pub pid: u32,
    /// Its uid.
    pub uid: u32,
    /// Its name, which it chose.
    pub comm: String,
}

/// A lock as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// Who locked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, unix time, nanoseconds.
    pub since_unix_ns: u64,
}

/// What the kernel counted since it was first attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCounters {
    /// Connections sent to the proxy.
    pub redirected: u64,
    /// Socket operations refused.
    pub denied: u64,
    /// Packets dropped at egress.
    pub egress_dropped: u64,
    /// Events lost because nobody read them in time.
    pub events_lost: u64,
}

/// The log as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Records in it: the number of the last.
    pub records: u64,
    /// The oldest that is still there; 1 unless old ones were removed, as the retention says.
    pub first_record: u64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Bytes that its file system has left for it; absent where that cannot be told.
    pub free_bytes: Option<u64>,
    /// The newest checkpoint; absent before the first.
    pub checkpoint: Option<CheckpointView>,
}

/// A checkpoint as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// How many records the log had when it was signed.
    pub records: u64,
    /// When that was, unix time, nanoseconds.
    pub unix_ns: u64,
    /// The signed note itself (see [`crate::checkpoint`]), by which whoever has the key can tell that the daemon has not made it up.
    pub note: String,
}

/// On whose processes the kernel enforces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// On every process of the host but the daemon's own.
    #[default]
    Host,
    /// On those in agents' workloads only; all others reach BigQuery as if we were not there.
    Agents,
}

impl Enforce {
    /// What an operator must know of it, where there is something.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Host => None,
            Self::Agents => Some(
                "enforced on agents only: a process in no agent's workload reaches BigQuery as if nothing were enforced",
            ),
        }
    }
}

/// Whether something that is looked at is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It is.
    Well,
    /// It still does what it is for, and something is on its way to being wrong.
    Warning,
    /// It is not.
    Bad,
    /// That cannot be told.
    Unknown,
}

impl CheckState {
    /// What stands before it.
    #[must_use]
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Well => "✓",
            Self::Warning => "!",
            Self::Bad => "✗",
            Self::Unknown => "?",
        }
    }

    /// The same in a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// What it is, in a word or two.
    pub what: String,
    /// Whether it is as it should be.
    pub state: CheckState,
    /// What there is to say of it, a sentence.
    pub said: String,
}

impl CheckView {
    /// One of which these faults are known; none where all is well. The first of them is said, all are in [`Status::unhealthy`].
    #[must_use]
    pub fn of(what: &str, said: impl Into<String>, faults: &[String]) -> Self {
        let said = said.into();
        let (state, said) = match faults {
            [] => (CheckState::Well, said),
            [fault] => (CheckState::Bad, format!("{fault} ({said})")),
            [fault, more @ ..] => (
                CheckState::Bad,
                format!("{fault}, and {} more ({said})", more.len()),
            ),
        };
        Self {
            what: what.to_owned(),
            state,
            said,
        }
    }
}

/// The state of things at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this was true.
    pub now: Now,
    /// The host's name.
    pub host: String,
    /// The daemon's version.
    pub version: String,
    /// When it started, unix time, nanoseconds: what is counted since the start is counted since then. Zero to agents.
    pub started_unix_ns: u64,
    /// What is wrong; empty when all is well.
    pub unhealthy: Vec<String>,
    /// Protected addresses and prefixes in the kernel.
    pub endpoints: u64,
    /// What is looked at, each with what there is to say of it. Not for agents.
    pub checks: Vec<CheckView>,
    /// On whom is enforced.
    pub enforce: Enforce,
    /// What the kernel counted.
    pub kernel: KernelCounters,
    /// The log.
    pub log: LogView,
    /// Requests, newest last. Where not all find room, those that wait come first: those that the caller may decide on before others, and of
    /// those the oldest of each agent before the next of any.
    pub requests: Vec<RequestView>,
    /// What the rules say by which those that wait could be approved: as many as find room, to whoever watches over an agent that they name. Not
    /// for agents.
    pub rules: Vec<RuleView>,
    /// How many more requests wait than there was room for; each can be asked for by its number.
    pub requests_waiting_left_out: u64,
    /// How many more requests that have ended are remembered than there was room for.
    pub requests_left_out: u64,
    /// Windows, newest last; open ones come before others where not all find room.
    pub grants: Vec<GrantView>,
    /// How many more windows are remembered than there was room for.
    pub grants_left_out: u64,
    /// The hooks that are told of what happens. Not for agents.
    pub hooks: Vec<HookView>,
    /// The agents that are configured, by name; to an agent, itself alone. Where not all find room, those come first that hold a window or wait
    /// for one.
    pub agents: Vec<AgentView>,
    /// How many more agents there are than there was room for.
    pub agents_left_out: u64,
}

/// The most requests that wait, and the most open windows, of which one status tells. Where it tells of fewer windows and of one that has ended too,
/// it tells of all that are open.
pub const CURRENT_TOLD_MAX: usize = 1024;

impl Status {
    /// The most open windows that there may be besides those that it tells of.
    #[must_use]
    pub fn open_left_out_max(&self) -> u64 {
        let open = self.grants.iter().filter(|grant| grant.open).count();
        // Open ones find room first: where one has found it that has ended, no open one was left without.
        let tells_all = open < CURRENT_TOLD_MAX && open < self.grants.len();
        if tells_all { 0 } else { self.grants_left_out }
    }
}

/// `message` as one frame, length first.
///
/// # Errors
/// [`WireError::TooLong`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let body = bincode::serde::encode_to_vec(message, bincode::config::standard())
        .map_err(|error| WireError::Unreadable(error.to_string()))?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(WireError::TooLong {
        bytes: body.len(),
        bytes_max: FRAME_BYTES_MAX,
    })?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// How many bytes `message` takes in a frame.
#[must_use]
pub fn encoded_bytes(message: &impl Serialize) -> usize {
    bincode::serde::encode_to_vec(message, bincode::config::standard())
        .map_or(usize::MAX, |body| body.len())
}

/// The body length that a frame's first four bytes announce, up to `bytes_max`.
///
/// # Errors
/// [`WireError::TooLong`], before anything is allocated.
pub fn body_length(head: [u8; 4], bytes_max: usize) -> Result<usize, WireError> {
    let bytes = u32::from_le_bytes(head) as usize;
    if bytes <= bytes_max {
        Ok(bytes)
    } else {
        Err(WireError::TooLong { bytes, bytes_max })
    }
}

/// The message in a frame's body; every byte of it must belong to the message.
///
/// # Errors
/// [`WireError::Unreadable`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    let config = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();
    let (message, used) = bincode::serde::decode_from_slice(body, config)
        .map_err(|error| WireError::Unreadable(error.to_string()))?;
    if used == body.len() {
        Ok(message)
    } else {
        Err(WireError::Unreadable(format!(
            "{} bytes too many",
            body.len() - used
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::principal::ContainerOrigin;

    fn request() -> Ask {
        Ask::Request(crate::policy::Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            reason: "month end".into(),
            bytes_max: Some(1),
            queries_max: None,
        })
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let frame = encode(&request()).expect("short");
        let head = frame[..4].try_into().expect("four bytes");
        assert_eq!(
            body_length(head, ASK_BYTES_MAX).expect("short"),
            frame.len() - 4
        );
        assert_eq!(encoded_bytes(&request()), frame.len() - 4);
        assert_eq!(decode::<Ask>(&frame[4..]).expect("a message"), request());
        assert!(
            decode::<Ask>(&[&frame[4..], &[0]].concat()).is_err(),
            "a byte too many"
        );
    }

    #[test]
    fn where_a_process_comes_from_is_the_same_on_the_other_side_in_a_container_or_in_none() {
        let (inside, image) = ("agentbox".to_owned(), Some("localhost/a:1".to_owned()));
        let named = |image| ContainerOrigin {
            name: inside.clone(),
            image,
        };
        for container in [None, Some(named(None)), Some(named(image))] {
            let origin = ProcessOrigin {
                ancestors: Vec::new(),
                cgroup: "/agents/bot".to_owned(),
                container: container.map(Box::new),
            };
            // With something behind it, that what is left out would be taken from.
            let sent = (origin, "behind".to_owned());
            let frame = encode(&sent).expect("short");
            let read: (ProcessOrigin, String) = decode(&frame[4..]).expect("a message");
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_read() {
        assert!(body_length(u32::MAX.to_le_bytes(), FRAME_BYTES_MAX).is_err());
        assert!(encode(&"x".repeat(FRAME_BYTES_MAX)).is_err());
    }

    #[test]
    fn the_longest_record_and_the_longest_ask_pass() {
        let line = Reply::Records(vec!["x".repeat(LINE_BYTES_MAX)]);
        assert!(encode(&line).is_ok());
        let dataset = |n| format!("{}.{n:a>1024}", "p".repeat(100));
        let datasets: Vec<String> = (10..26).map(dataset).collect();
        let longest = Ask::Request(crate::policy::Ask {
            scope: format!("{}:read", datasets.join(","))
                .parse()
                .expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            reason: "\u{1f600}".repeat(crate::ledger::REASON_CHARS_MAX),
            bytes_max: Some(u64::MAX),
            queries_max: Some(u64::MAX),
        });
        assert!(encoded_bytes(&longest) <= ASK_BYTES_MAX);
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let other = Hello {
            magic: MAGIC,
            version: VERSION + 1,
        };
        assert!(
            matches!(other.check(), Err(WireError::Version { theirs }) if theirs == VERSION + 1)
        );
        assert!(Hello::ours().check().is_ok());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic_the_decoders(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = (decode::<Ask>(&bytes), decode::<Reply>(&bytes), decode::<Hello>(&bytes));
        }
    }
}
