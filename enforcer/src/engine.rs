//! The engine: one owner of the ledger, the log and the windows in the kernel. It performs decisions, in the order of the two laws:
//! *record, then open; close, then record*. It decides nothing itself.
//!
//! It runs on a thread of its own, and another makes records durable for it: while the disk is waited for, windows are still ended, the kernel is
//! told that the daemon lives, and it is said how things are. Nothing else is decided meanwhile. Messages are taken in batches, and one `fdatasync` serves all
//! queries of a batch; no answer leaves before it. What nobody waits for, such as how a query ended, waits some milliseconds for a sync that
//! is needed anyway.

mod asking;
mod disk;
mod handle;
mod owner;
mod snapshots;
#[cfg(test)]
mod tests;
mod unrecorded;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use enforcer_proto::audit::LINE_BYTES_MAX;
use enforcer_proto::event::Event;
use enforcer_proto::id::{GrantId, RequestId};
use enforcer_proto::ledger::Grant;
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;
use enforcer_proto::wire::{CheckView, Enforce, KernelCounters};
use tokio::sync::{broadcast, mpsc, watch};

use disk::Disk;
#[cfg(test)]
pub(crate) use handle::open_windows;
pub use handle::{
    BadPolicy, ClosedWindow, Decided, Engine, NewQuery, OpenWindow, OpenWindows, Outcome, Permit,
    Plan, QUEUE_MAX, Requester, Waits,
};
use owner::{News, Owner, Shared};
pub use views::ON_HOST_BYTES_MAX;

use crate::audit::rebuild::{Rebuilt, rebuild};
use crate::audit::retention::Keep;
use crate::audit::{AuditError, End, Opened, Watched};
use crate::clock::Clock;
use crate::config::AGENTS_MAX;

/// How often the engine tells the kernel that it is alive. The kernel refuses to redirect when it has not heard for two seconds.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// How many endings and looks may wait at once; more wait at the control socket.
const PRESSING_MAX: usize = 256;
/// How many closings a slow reader may be behind before it misses one: all windows of a host may close in one moment.
const CLOSINGS_KEPT: usize = AGENTS_MAX;

/// What is too long for a record: it is refused, since nothing is forwarded that is not on record.
#[must_use]
pub fn too_long_to_record() -> Refusal {
    Refusal::new(
        Code::BodyTooLarge,
        format!(
            "The query and the tables it reads are too long to be recorded whole in {} bytes, and nothing is forwarded that is not",
            LINE_BYTES_MAX
        ),
    )
}

/// A kernel operation that failed; the text says which and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KernelFault(pub String);

/// What the engine needs of the kernel. Implemented over the pinned maps, and by a fake in tests.
pub trait Windows: Send {
    /// Opens the agent's window until `closes_boot_ns`.
    ///
    /// # Errors
    /// When the kernel did not take it.
    fn open(
        &mut self,
        agent: &AgentName,
        grant: GrantId,
        opens_boot_ns: u64,
        closes_boot_ns: u64,
    ) -> Result<(), KernelFault>;
    /// Removes the agent's window; one that is not there is removed already.
    ///
    /// # Errors
    /// When the kernel still holds it.
    fn close(&mut self, agent: &AgentName) -> Result<(), KernelFault>;
    /// The grants whose windows the kernel holds.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn held(&self) -> Result<BTreeMap<AgentName, GrantId>, KernelFault>;
    /// Tells the kernel that the daemon is alive at `boot_ns`.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn heartbeat(&mut self, boot_ns: u64) -> Result<(), KernelFault>;
    /// What the kernel counted.
    fn counters(&self) -> KernelCounters;
    /// What is wrong with the attachment, one sentence each.
    fn drift(&self) -> Vec<String>;
    /// What is looked at: programs, pins, guards, probes, names, tokens, and for how many there is room.
    fn checks(&self) -> Vec<CheckView>;
    /// How many addresses are protected.
    fn endpoints(&self) -> u64;
    /// On whom is enforced.
    fn enforced(&self) -> Enforce;
}

/// What the engine is made of.
pub struct Parts {
    /// The host's name.
    pub host: String,
    /// The log's folder.
    pub audit_dir: std::path::PathBuf,
    /// When a segment of the log is full, bytes.
    pub segment_bytes: u64,
    /// What of the log is kept.
    pub keep: Keep,
    /// What goes on beside the log.
    pub watched: Arc<Watched>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The rules.
    pub policy: Policy,
    /// The kernel.
    pub kernel: Box<dyn Windows>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("host", &self.host)
            .field("audit_dir", &self.audit_dir)
            .finish_non_exhaustive()
    }
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened, continued or written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The kernel cannot be read.
    #[error("cannot read the windows that the kernel holds")]
    Kernel(#[from] KernelFault),
    /// The thread could not be made.
    #[error("cannot start the engine's thread")]
    Thread(#[source] std::io::Error),
}

/// A request or a window that ends with a process, as a start finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLeft {
    /// The agent.
    pub agent: AgentName,
    /// The request.
    pub request: RequestId,
    /// The process.
    pub process: Process,
}

/// A running engine; joining it waits until every handle is gone and the last record is durable.
#[derive(Debug)]
pub struct Running {
    /// The way to speak to it.
    pub engine: Engine,
    /// Its thread.
    pub thread: std::thread::JoinHandle<()>,
    /// What waits or is open for a command, and ends with the process that runs it: nobody watches over those yet.
    pub runs: Vec<RunLeft>,
    /// The windows that close, from those on that the start itself has closed. Whoever reads it cancels jobs and drops tokens.
    pub closings: broadcast::Receiver<Arc<ClosedWindow>>,
    /// Where the log ends; until the engine does.
    pub ends: watch::Receiver<End>,
    /// The segment of it that is written.
    pub segments: watch::Receiver<u32>,
    /// The record whose snapshot the ledger was made from. What is before it in the log is not checked by the start.
    pub resumed: Option<End>,
}

/// Rebuilds the ledger from the log, reconciles it with the kernel, records the start, and runs.
///
/// # Errors
/// [`StartError`]; enforcement in the kernel is as it was.
pub fn start(parts: Parts) -> Result<Running, StartError> {
    let now = parts.clock.now();
    let Rebuilt {
        ledger,
        opened,
        resumed,
        aside,
    } = rebuild(&parts.audit_dir, &parts.boot_id)?;
    let Opened {
        mut log,
        torn_bytes,
        last_boot_id,
    } = opened;
    log.set_segment_bytes(parts.segment_bytes);
    let is_same_boot = last_boot_id.as_deref() == Some(parts.boot_id.as_str());

    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    let (pressing, pressing_seen) = mpsc::channel(PRESSING_MAX);
    let (windows, windows_seen) = watch::channel(OpenWindows::default());
    let (closed, closings) = broadcast::channel(CLOSINGS_KEPT);
    let (records, records_seen) = watch::channel(log.count());
    let (ends, ends_seen) = watch::channel(log.end());
    let (segments, segments_seen) = watch::channel(log.segment());
    let refusals = Arc::default();
    let own_queue = queue.downgrade();
    let engine = Engine {
        queue,
        pressing,
        windows: windows_seen,
        records: records_seen,
        sessions: Arc::new(AtomicU64::new(ledger.last_session().0)),
        refusals: Arc::clone(&refusals),
    };

    let held = parts.kernel.held()?;
    let shared = Shared {
        refusals,
        queue: own_queue,
    };
    let news = News {
        windows,
        closed,
        records,
        ends,
        segments,
    };
    let disk = Disk::start().map_err(StartError::Thread)?;
    let mut owner = Owner::new(parts, ledger, (log, disk), pressing_seen, news, shared);
    owner.first_records(now, torn_bytes, aside)?;
    owner.resume(now, is_same_boot, |grant: &Grant| {
        held.get(&grant.agent) == Some(&grant.id)
    })?;
    owner.close_strays(&held);
    let runs = owner.runs_left();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(StartError::Thread)?;
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || runtime.block_on(owner.run(messages)))
        .map_err(StartError::Thread)?;
    Ok(Running {
        engine,
        thread,
        runs,
        closings,
        ends: ends_seen,
        segments: segments_seen,
        resumed,
    })
}

/// Whether an event only takes something away, so that it holds in memory even while it cannot be recorded.
const fn only_restricts(event: &Event) -> bool {
    matches!(
        event,
        Event::Closed { .. }
            | Event::RequestExpired { .. }
            | Event::RequestWithdrawn { .. }
            | Event::Denied { .. }
            | Event::AgentLocked { .. }
            | Event::JobSeen { .. }
            | Event::QueryFinished { .. }
    )
}

/// The events as they are recorded: stamped, and every text in them within its bound.
fn at(now: Now, events: &[Event]) -> Vec<(Now, Event)> {
    let stamped = events.iter().map(|event| (now, event.clone().bounded()));
    stamped.collect()
}
