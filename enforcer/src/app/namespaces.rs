//! Listens in the network namespaces that agents are in, and in none any more that they have left. The one place that does: recorded, then served,
//! then the kernel leads there; the kernel leads there no more, then it ends, then that is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Process};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hints::{Hints, Refused};
use super::services::Services;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::kernel::{self, Ports};
use crate::listeners::Sockets;
use crate::namespaces::enter::{EnterError, enter};
use crate::namespaces::look::{self, Depth};
use crate::namespaces::{Bound, Extent, Netns, PER_AGENT_MAX, Place, Seen, Step, plan};
use crate::workload;
use crate::workloads::Workloads;

/// How long after one look the next begins, where nothing calls for one. What an agent asks from a namespace that was not seen yet is refused so that
/// it tries again.
const LOOK: Duration = Duration::from_millis(50);
/// How long at least after one that was called for the next one is, however much calls for it.
const LOOK_MIN: Duration = Duration::from_millis(2);
/// How long a namespace cannot be served before that is said, nanoseconds: its own are setting it up.
const LASTING_NS: u64 = 500_000_000;
/// A look takes at most one part of so many of the time, however many processes agents have.
const LOOK_SHARE: u32 = 10;
/// How long it is remembered what could not be served and was not seen since: a thread that is alone in a namespace is seen only when the kernel refuses
/// it. What is remembered is said and recorded once.
const REMEMBERED_NS: u64 = 10_000_000_000;
/// What cannot be served is tried again when as much time has gone by as it has been so, but after this much at the latest, nanoseconds.
const PATIENCE_NS: u64 = 250_000_000;

/// What `status` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// How many namespaces are served besides this host's own.
    pub(super) served: usize,
    /// What is wrong with others: one sentence each.
    pub(super) problems: Vec<String>,
}

/// Keeps the listeners where the agents are.
pub(super) struct Keep {
    pub(super) services: Services,
    pub(super) ports: Ports,
    pub(super) kernel: kernel::Namespaces,
    pub(super) workloads: Arc<Workloads>,
    pub(super) engine: Engine,
    pub(super) clock: Arc<dyn Clock>,
    /// Whom the kernel refused where nothing is served.
    pub(super) hints: Hints,
    pub(super) told: watch::Sender<Told>,
    pub(super) tasks: TaskTracker,
}

/// What there is now.
#[derive(Default)]
struct Now {
    served: BTreeMap<Netns, Served>,
    /// What cannot be served.
    failed: BTreeMap<Netns, Fails>,
    /// Who has come to which bound, and when last, on the boot clock.
    crowded: BTreeMap<(AgentName, Bound), u64>,
    /// Who has processes of which the kernel does not let the daemon see where they are.
    hidden: BTreeSet<AgentName>,
}

impl Now {
    /// What is served, each for whom.
    fn whose(&self) -> BTreeMap<Netns, AgentName> {
        let served = self.served.iter();
        served
            .map(|(netns, served)| (*netns, served.agent.clone()))
            .collect()
    }
}

/// Since when something cannot be served, and why; recorded once.
struct Fails {
    agent: AgentName,
    why: String,
    since_boot_ns: u64,
    tried_boot_ns: u64,
    is_said: bool,
}

impl Fails {
    /// Whether it is not yet time to try again.
    fn rests(&self, boot_ns: u64) -> bool {
        let patience = self.tried_boot_ns.saturating_sub(self.since_boot_ns);
        boot_ns.saturating_sub(self.tried_boot_ns) < patience.min(PATIENCE_NS)
    }
}

struct Served {
    agent: AgentName,
    cookie: u64,
    /// Ends its listeners.
    stop: CancellationToken,
    /// Ends what came by them: an open connection would keep the namespace alive.
    gone: CancellationToken,
}

impl Keep {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let own = match look::own() {
            Ok(own) => own,
            Err(error) => {
                return tracing::error!(%error, "this host's own network namespace cannot be told: no other is served");
            }
        };
        stop.run_until_cancelled(self.keep(own, &stop)).await;
    }

    async fn keep(&mut self, own: Netns, stop: &CancellationToken) {
        let mut now = Now::default();
        let next = tokio::time::sleep(LOOK);
        tokio::pin!(next);
        loop {
            tokio::select! {
                refused = self.hints.next() => {
                    let took = self.arrived(&mut now, refused, own, stop).await;
                    tokio::time::sleep(LOOK_MIN.max(took * LOOK_SHARE)).await;
                }
                () = &mut next => {
                    let took = self.look_again(&mut now, own, stop).await;
                    let rest = LOOK.max(took * LOOK_SHARE);
                    next.as_mut().reset(tokio::time::Instant::now() + rest);
                }
            }
        }
    }

    /// Looks at those whom the kernel refused, and serves where they are. Gives how long the look took.
    async fn arrived(
        &mut self,
        now: &mut Now,
        refused: Refused,
        own: Netns,
        stop: &CancellationToken,
    ) -> Duration {
        let began_ns = self.clock.now().boot_ns;
        let whose: Vec<(AgentName, u32)> = refused
            .into_iter()
            .filter_map(|(cgroup, pids)| Some((self.workloads.agent(cgroup)?, pids)))
            .flat_map(|(agent, pids)| pids.into_iter().map(move |pid| (agent.clone(), pid)))
            .collect();
        let looked = tokio::task::spawn_blocking(move || look::at(&whose, own)).await;
        let steps = plan(&now.whose(), &looked.unwrap_or_default(), Extent::Part);
        self.take(now, steps, stop).await;
        Duration::from_nanos(self.clock.now().boot_ns.saturating_sub(began_ns))
    }

    /// Looks everywhere once, and does what is to be done. Gives how long the look took.
    async fn look_again(
        &mut self,
        now: &mut Now,
        own: Netns,
        stop: &CancellationToken,
    ) -> Duration {
        let began_ns = self.clock.now().boot_ns;
        let (mut seen, extent) = self.look(own, Depth::Processes).await;
        let mut steps = plan(&now.whose(), &seen, extent);
        let is_leave = |step: &Step| matches!(step, Step::Leave(_) | Step::HandOver(_));
        if steps.iter().any(is_leave) {
            // Nothing is left that a thread is in which has gone there by itself.
            let extent;
            (seen, extent) = self.look(own, Depth::Threads).await;
            steps = plan(&now.whose(), &seen, extent);
        }
        let boot_ns = self.clock.now().boot_ns;
        let took_ns = boot_ns.saturating_sub(began_ns);
        let is_fresh = |then: u64| boot_ns.saturating_sub(then) < REMEMBERED_NS;
        now.failed
            .retain(|netns, fails| seen.has(*netns) || is_fresh(fails.tried_boot_ns));
        now.crowded.retain(|_, then| is_fresh(*then));
        now.hidden.clone_from(seen.hidden());
        self.take(now, steps, stop).await;
        Duration::from_nanos(took_ns)
    }

    async fn take(&mut self, now: &mut Now, steps: Vec<Step>, stop: &CancellationToken) {
        for step in steps {
            match step {
                Step::Leave(netns) => self.leave(now, netns).await,
                Step::HandOver(place) => self.hand_over(now, place).await,
                Step::Serve(place) => self.serve(now, place, stop).await,
                Step::Refuse(place, bound) => self.refuse(now, place, bound).await,
            }
        }
        self.tell(now);
    }

    /// Looks on a thread that may wait for the file system.
    async fn look(&self, own: Netns, depth: Depth) -> (Seen, Extent) {
        let all = self.workloads.all();
        let looked = tokio::task::spawn_blocking(move || look::look(&all, own, depth)).await;
        // One that came to nothing has seen nothing go.
        looked.unwrap_or_else(|_| (Seen::default(), Extent::Part))
    }

    async fn serve(&mut self, now: &mut Now, place: Place, stop: &CancellationToken) {
        let boot_ns = self.clock.now().boot_ns;
        let before = now.failed.get(&place.netns);
        if before.is_some_and(|fails| fails.rests(boot_ns)) {
            return;
        }
        let is_new = before.is_none();
        match self.served(&place, stop).await {
            Ok(served) => {
                now.failed.remove(&place.netns);
                now.served.insert(place.netns, served);
            }
            // Whoever was there is gone: nobody is refused anything.
            Err(Failed::Gone) => drop(now.failed.remove(&place.netns)),
            Err(Failed::Why(why)) => {
                let of_agent = now
                    .failed
                    .values()
                    .filter(|fails| fails.agent == place.agent);
                if is_new && of_agent.count() >= PER_AGENT_MAX {
                    // As many are remembered, and said, as could be served.
                    return;
                }
                let known = now.failed.entry(place.netns).or_insert_with(|| Fails {
                    agent: place.agent.clone(),
                    why: why.clone(),
                    since_boot_ns: boot_ns,
                    tried_boot_ns: boot_ns,
                    is_said: false,
                });
                known.tried_boot_ns = boot_ns;
                if known.why != why {
                    known.why.clone_from(&why);
                    known.is_said = false;
                }
                let lasts = boot_ns.saturating_sub(known.since_boot_ns) >= LASTING_NS;
                if lasts && !std::mem::replace(&mut known.is_said, true) {
                    self.say_refused(place, why).await;
                }
            }
        }
    }

    async fn served(&mut self, place: &Place, stop: &CancellationToken) -> Result<Served, Failed> {
        let sockets = self.enter(place).await?;
        let cookie = sockets.netns;
        let recorded = self.engine.record(self.is_served(place)).await;
        recorded.map_err(|refusal| Failed::Why(refusal.to_string()))?;
        let (stop, gone) = (stop.child_token(), CancellationToken::new());
        let begun = self.services.serve(sockets, (&stop, &gone), &self.tasks);
        let led = begun.and_then(|()| {
            self.kernel
                .add(cookie)
                .context("having the kernel lead there")
        });
        if let Err(error) = led {
            stop.cancel();
            return Err(Failed::Why(format!("{error:#}")));
        }
        Ok(Served {
            agent: place.agent.clone(),
            cookie,
            stop,
            gone,
        })
    }

    async fn enter(&self, place: &Place) -> Result<Sockets, Failed> {
        let found = self.workloads.of(&place.agent).ok_or(Failed::Gone)?;
        let (mount, ports) = (self.workloads.mount().to_owned(), self.ports);
        let (pid, netns) = (place.pid, place.netns);
        let entered = tokio::task::spawn_blocking(move || {
            if look::is_there(pid, netns, &mount, &found.folder) {
                enter(pid, netns, ports)
            } else {
                Err(EnterError::Gone)
            }
        });
        match entered.await {
            Ok(Ok(sockets)) => Ok(sockets),
            Ok(Err(EnterError::Gone)) => Err(Failed::Gone),
            Ok(Err(error)) => Err(Failed::Why(error.to_string())),
            Err(error) => Err(Failed::Why(error.to_string())),
        }
    }

    fn is_served(&self, place: &Place) -> Event {
        let container = self.workloads.container(&place.agent);
        Event::NamespaceServed {
            agent: place.agent.clone(),
            process: process(place.pid),
            netns: place.netns,
            container: container.as_ref().map(|known| known.shown().to_owned()),
            image: container.and_then(|known| known.image),
        }
    }

    /// The same listeners serve whoever is there: only whose room they take is another's.
    async fn hand_over(&mut self, now: &mut Now, place: Place) {
        if self.engine.record(self.is_served(&place)).await.is_err() {
            // What cannot be recorded is not served.
            return self.leave(now, place.netns).await;
        }
        let Some(served) = now.served.get_mut(&place.netns) else {
            return;
        };
        let (agent, netns) = (place.agent, place.netns);
        let agent = std::mem::replace(&mut served.agent, agent);
        self.engine
            .note(Event::NamespaceLeft { agent, netns })
            .await;
    }

    async fn leave(&mut self, now: &mut Now, netns: Netns) {
        let Some(served) = now.served.remove(&netns) else {
            return;
        };
        if let Err(error) = self.kernel.remove(served.cookie) {
            // Nobody is there whom it could lead anywhere; it is tried again.
            tracing::warn!(error = %Causes(&error), netns, "the kernel was not told that a namespace is left");
            now.served.insert(netns, served);
            return;
        }
        served.stop.cancel();
        served.gone.cancel();
        let agent = served.agent;
        self.engine
            .note(Event::NamespaceLeft { agent, netns })
            .await;
    }

    async fn refuse(&self, now: &mut Now, place: Place, bound: Bound) {
        let boot_ns = self.clock.now().boot_ns;
        let before = now.crowded.insert((place.agent.clone(), bound), boot_ns);
        if before.is_none() {
            self.say_refused(place, bound.to_string()).await;
        }
    }

    async fn say_refused(&self, place: Place, why: String) {
        let event = Event::NamespaceRefused {
            process: process(place.pid),
            agent: place.agent,
            netns: place.netns,
            why,
        };
        self.engine.note(event).await;
    }

    fn tell(&self, now: &Now) {
        let said = now.failed.iter().filter(|(_, fails)| fails.is_said);
        let failed = said.map(|(netns, Fails { why, .. })| {
            format!("network namespace {netns} is not served, so what agents ask from it is refused: {why}")
        });
        let crowded = now.crowded.keys().map(|(agent, bound)| {
            format!("some network namespaces of agent {agent} are not served: {bound}")
        });
        let hidden = now.hidden.iter().map(|agent| {
            format!("the kernel does not let the daemon see in which network namespaces processes of agent {agent} are, so what they ask from another than this host's is refused: run the daemon as root of this host, with CAP_SYS_PTRACE")
        });
        let told = Told {
            served: now.served.len(),
            problems: failed.chain(crowded).chain(hidden).collect(),
        };
        self.told
            .send_if_modified(|before| std::mem::replace(before, told.clone()) != told);
    }
}

/// Why a namespace is not served.
enum Failed {
    /// Nobody is there any more.
    Gone,
    /// Anything else, in words.
    Why(String),
}

/// A process as this host sees it; one that has gone is known by its number.
fn process(pid: u32) -> Process {
    let stat = workload::stat(pid).ok();
    Process {
        pid,
        start_boot_ns: stat.as_ref().map_or(0, |stat| stat.start_boot_ns),
        uid: workload::uid_of(pid).unwrap_or_default(),
        comm: stat.map(|stat| stat.comm).unwrap_or_default(),
    }
}
