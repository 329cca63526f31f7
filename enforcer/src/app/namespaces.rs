//! Listens in the network namespaces that agents are in, and in none any more that they have left. The one place that does: recorded, then served,
//! then the kernel leads there; the kernel leads there no more, then it ends, then that is recorded. What there is to do is done in turns, a small piece
//! for one agent at a time (`lanes`); a look at all that agents have goes on beside that, and only says what there is to do.

mod bury;
mod deaths;
mod faults;
pub(super) mod hints;
mod lanes;
mod loopbacks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Process};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::faults::{Becomes, Faults};
use self::hints::Hints;
use self::lanes::{Lanes, SHARE, Turn};
use self::loopbacks::Insides;
use super::post::Post;
use super::services::Services;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::kernel::{self, Ports};
use crate::listeners::Sockets;
use crate::namespaces::enter::{EnterError, enter};
use crate::namespaces::look::{self, Depth};
use crate::namespaces::{Door, Netns, PACE, Place, Room, Seen, Site, Step, changes, unserved};
use crate::pace::Bucket;
use crate::workload;
use crate::workloads::Workloads;

/// How long after one look at all the next begins, or as long as that the looks take at most one part of [`SHARE`] of the time. What an agent asks from
/// a namespace that was not seen yet is refused so that it tries again.
const LOOK: Duration = Duration::from_millis(50);
/// How long after one the next begins at the latest: what is looked at of each agent is bounded, so that it takes long only where the host is busy. What an
/// agent has left takes its room until then, whoever keeps the host busy.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How many are handed over after one look: each waits for its record. Others go on being served as they are until the next.
const HANDED_OVER_PER_LOOK: usize = 16;

/// What `status` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// How many namespaces are served besides this host's own.
    pub(super) served: usize,
    /// What is wrong with others: one sentence each.
    pub(super) problems: Vec<String>,
    /// Where there is no IPv6 of those that are served, and what to do about it: that is how they were made, and nothing is wrong.
    pub(super) without_ipv6: Option<String>,
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
    /// What is served on this host's own.
    pub(super) here: Post,
    /// A listener has died, wherever.
    pub(super) deaths: Arc<Notify>,
    pub(super) told: watch::Sender<Told>,
    pub(super) tasks: TaskTracker,
}

/// What there is now.
#[derive(Default)]
struct Now {
    served: BTreeMap<Netns, Served>,
    faults: Faults,
    /// How many more of each agent's may be served now; those of which nothing is spent are not remembered.
    paces: BTreeMap<AgentName, Bucket>,
    /// Into which of those that are served was looked last.
    looked_into: Netns,
}

impl Now {
    /// Whether one more of an agent's may be served now: it is on record, and so is its end.
    fn takes_one_more(&mut self, agent: &AgentName, boot_ns: u64) -> bool {
        let pace = self.paces.entry(agent.clone());
        pace.or_insert_with(|| Bucket::new(PACE)).take(1, boot_ns)
    }

    /// What is served, each for whom.
    fn whose(&self) -> BTreeMap<Netns, AgentName> {
        let served = self.served.iter();
        served
            .map(|(netns, served)| (*netns, served.agent.clone()))
            .collect()
    }
}

struct Served {
    agent: AgentName,
    /// One of its processes there, when it began.
    process: Process,
    /// By which of its threads it was entered.
    door: Door,
    cookie: u64,
    /// Whether it has ::1, as far as was looked.
    has_ipv6: bool,
    /// What came by its listeners ends with it: an open connection would keep the namespace alive.
    post: Post,
}

/// What a look at all has seen.
struct Looked {
    /// What was served when it began.
    before: BTreeMap<Netns, AgentName>,
    /// Nothing where it came to nothing.
    seen: Option<Found>,
    took: Duration,
}

struct Found {
    seen: Seen,
    insides: Insides,
    /// Of what is told of as not served, where nobody is any more.
    gone: Vec<Place>,
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
        let mut lanes = Lanes::default();
        let mut looks = Box::pin(self.look(&now, own, Duration::ZERO));
        loop {
            lanes.call(&self.hints.agents());
            let rested = pause(lanes.wait_ns(self.boot_ns()));
            tokio::select! {
                biased;
                looked = &mut looks => {
                    let took = looked.took;
                    self.looked(&mut now, &mut lanes, looked).await;
                    looks = Box::pin(self.look(&now, own, took));
                }
                () = rested => self.work(&mut now, &mut lanes, own, stop).await,
                () = self.deaths.notified() => self.bury(&mut now).await,
                () = self.hints.come() => {}
            }
        }
    }

    fn boot_ns(&self) -> u64 {
        self.clock.now().boot_ns
    }

    /// Looks everywhere once, after a rest from a look that took so long. On a thread that may wait for the file system; what is served or not is done meanwhile.
    fn look(
        &self,
        now: &Now,
        own: Netns,
        took: Duration,
    ) -> impl Future<Output = Looked> + Send + use<> {
        let (before, after) = (now.whose(), now.looked_into);
        let told = now.faults.told();
        let clock = Arc::clone(&self.clock);
        let workloads = Arc::clone(&self.workloads);
        let share = u32::try_from(SHARE).unwrap_or(u32::MAX);
        let rest = took.saturating_mul(share).clamp(LOOK, LOOK_MAX);
        async move {
            tokio::time::sleep(rest).await;
            let began_ns = clock.now().boot_ns;
            let all = workloads.all();
            let served = before.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let mut seen = look::look(&all, own, Depth::Processes);
                if !changes(&served, &served, &seen).is_empty() {
                    // Nothing is left that a thread is in which has gone there by itself.
                    seen = look::look(&all, own, Depth::Threads);
                }
                let insides = Insides::look(&served, &seen, after);
                let gone = look::gone(told, &seen, workloads.mount(), &all);
                Found {
                    seen,
                    insides,
                    gone,
                }
            });
            let seen = looked.await.ok();
            let took_ns = clock.now().boot_ns.saturating_sub(began_ns);
            Looked {
                before,
                seen,
                took: Duration::from_nanos(took_ns),
            }
        }
    }

    /// Does at once what is to be done about what is served, and has what else was seen wait for its agents' turns.
    async fn looked(&mut self, now: &mut Now, lanes: &mut Lanes, looked: Looked) {
        let Some(Found {
            seen,
            insides,
            gone,
        }) = looked.seen
        else {
            return;
        };
        // One that the kernel still leads to is tried again.
        self.bury(now).await;
        now.faults.look(&seen, &gone, self.boot_ns());
        let boot_ns = self.boot_ns();
        now.paces.retain(|_, pace| !pace.is_full(boot_ns));
        lanes.retain(&self.workloads.all().into_keys().collect());
        let mut handed_over = 0;
        for step in changes(&now.whose(), &looked.before, &seen) {
            match step {
                Step::Leave(netns) => drop(self.leave(now, netns).await),
                Step::HandOver(place) if handed_over < HANDED_OVER_PER_LOOK => {
                    handed_over += 1;
                    self.hand_over(now, place).await;
                }
                Step::HandOver(_) => {}
            }
        }
        self.looked_into(now, insides).await;
        self.line_up(now, lanes, &seen);
        self.tell(now);
    }

    /// What was seen and is not served waits for its turn, but for what rests.
    fn line_up(&self, now: &Now, lanes: &mut Lanes, seen: &Seen) {
        let boot_ns = self.boot_ns();
        let found = unserved(&now.whose(), seen);
        let due = found.into_iter();
        for place in due.filter(|place| !now.faults.rests(place, boot_ns)) {
            lanes.add(place);
        }
    }

    /// One agent's turn: where one of its processes was refused is looked, and some of what waits is served.
    async fn work(
        &mut self,
        now: &mut Now,
        lanes: &mut Lanes,
        own: Netns,
        stop: &CancellationToken,
    ) {
        let began_ns = self.boot_ns();
        let Some(agent) = lanes.next(began_ns) else {
            return;
        };
        if let Some(pid) = self.hints.take(&agent) {
            let whose = agent.clone();
            let looked = tokio::task::spawn_blocking(move || look::at(&whose, pid, own)).await;
            self.line_up(now, lanes, &looked.unwrap_or_default());
        }
        let places = self.roomy(now, lanes.take(&agent)).await;
        let entered = self.enter(places).await;
        let took_ns = self.boot_ns().saturating_sub(began_ns);
        let mut is_lost = false;
        for (place, entered) in entered {
            is_lost |= self.entered(now, place, entered, stop).await == Becomes::Lost;
        }
        self.tell(now);
        let turn = Turn {
            ended_ns: self.boot_ns(),
            took_ns,
            is_lost,
        };
        lanes.rest(&agent, turn);
    }

    /// Those of these that are still to be served, and for which there is room.
    async fn roomy(&self, now: &mut Now, places: Vec<Place>) -> Vec<Place> {
        let boot_ns = self.boot_ns();
        let mut room = Room::of(now.served.values().map(|served| &served.agent));
        let mut roomy = Vec::new();
        for place in places {
            if now.served.contains_key(&place.netns) || now.faults.rests(&place, boot_ns) {
                continue;
            }
            match room.for_one_of(&place.agent) {
                Ok(()) => {
                    room.take(&place.agent);
                    roomy.push(place);
                }
                Err(bound) => {
                    if now.faults.crowd(&place.agent, bound, boot_ns) {
                        self.say_refused(place, bound.to_string()).await;
                    }
                }
            }
        }
        roomy
    }

    /// Serves one that was entered, and remembers one that cannot be.
    async fn entered(
        &mut self,
        now: &mut Now,
        place: Place,
        entered: Result<Sockets, Failed>,
        stop: &CancellationToken,
    ) -> Becomes {
        let served = match entered {
            Ok(_) if !now.takes_one_more(&place.agent, self.boot_ns()) => Err(Failed::TooFast),
            Ok(sockets) => self.serve(&place, sockets, stop).await,
            Err(failed) => Err(failed),
        };
        match served {
            Ok(served) => {
                now.faults.serves(place.netns);
                now.served.insert(place.netns, served);
                Becomes::Remembered
            }
            // Whoever was there is gone: nobody is refused anything.
            Err(Failed::Gone) => {
                now.faults.has_gone(&place);
                Becomes::Remembered
            }
            Err(failed @ (Failed::TooFast | Failed::Why(_))) => {
                let why = failed.to_string();
                let becomes = now.faults.fail(&place, why.clone(), self.boot_ns());
                if becomes == Becomes::Said {
                    self.say_refused(place, why).await;
                }
                becomes
            }
        }
    }

    /// Binds in each.
    async fn enter(&self, places: Vec<Place>) -> Vec<(Place, Result<Sockets, Failed>)> {
        if places.is_empty() {
            return Vec::new();
        }
        let (workloads, ports) = (Arc::clone(&self.workloads), self.ports);
        let entered = tokio::task::spawn_blocking(move || {
            let each = places.into_iter().map(|place| {
                let entered = enter_one(&workloads, &place, ports);
                (place, entered)
            });
            each.collect()
        });
        entered.await.unwrap_or_else(|error| {
            tracing::error!(%error, "network namespaces were not entered");
            Vec::new()
        })
    }

    async fn serve(
        &mut self,
        place: &Place,
        sockets: Sockets,
        stop: &CancellationToken,
    ) -> Result<Served, Failed> {
        let (cookie, has_ipv6) = (sockets.netns, sockets.has_ipv6);
        let process = process(place.door.pid);
        let event = self.is_served(place, process.clone());
        let recorded = self.engine.record(event).await;
        recorded.map_err(|refusal| Failed::Why(refusal.to_string()))?;
        let site = Site::apart(place.netns, place.agent.clone());
        let post = Post::new(stop.child_token(), site, &self.deaths);
        let begun = self.services.serve(sockets, &post, &self.tasks);
        let led = begun.and_then(|()| {
            self.kernel
                .add(cookie)
                .context("having the kernel lead there")
        });
        if let Err(error) = led {
            post.end();
            let (agent, netns) = (place.agent.clone(), place.netns);
            self.engine
                .note(Event::NamespaceLeft { agent, netns })
                .await;
            return Err(Failed::Why(format!("{error:#}")));
        }
        Ok(Served {
            agent: place.agent.clone(),
            process,
            door: place.door,
            cookie,
            has_ipv6,
            post,
        })
    }

    fn is_served(&self, place: &Place, process: Process) -> Event {
        let container = self.workloads.container(&place.agent);
        Event::NamespaceServed {
            agent: place.agent.clone(),
            process,
            netns: place.netns,
            container: container.as_ref().map(|known| known.shown().to_owned()),
            image: container.and_then(|known| known.image),
        }
    }

    /// The same listeners serve whoever is there: only whose room they take is another's.
    async fn hand_over(&mut self, now: &mut Now, place: Place) {
        if !now.takes_one_more(&place.agent, self.boot_ns()) {
            // It is served on as it is until a later look: that takes two records, too.
            return;
        }
        let process = process(place.door.pid);
        let event = self.is_served(&place, process.clone());
        if self.engine.record(event).await.is_err() {
            // What cannot be recorded is not served.
            return drop(self.leave(now, place.netns).await);
        }
        let Some(served) = now.served.get_mut(&place.netns) else {
            return;
        };
        let (agent, netns) = (place.agent, place.netns);
        (served.process, served.door) = (process, place.door);
        served.post.site.hand_over(agent.clone());
        let agent = std::mem::replace(&mut served.agent, agent);
        self.engine
            .note(Event::NamespaceLeft { agent, netns })
            .await;
    }

    /// Gives what was left.
    async fn leave(&mut self, now: &mut Now, netns: Netns) -> Option<Served> {
        let served = now.served.remove(&netns)?;
        if let Err(error) = self.kernel.remove(served.cookie) {
            // Nobody is there whom it could lead anywhere; it is tried again.
            tracing::warn!(error = %Causes(&error), netns, "the kernel was not told that a namespace is left");
            now.served.insert(netns, served);
            return None;
        }
        served.post.end();
        let agent = served.agent.clone();
        self.engine
            .note(Event::NamespaceLeft { agent, netns })
            .await;
        Some(served)
    }

    async fn say_refused(&self, place: Place, why: String) {
        let event = Event::NamespaceRefused {
            process: process(place.door.pid),
            agent: place.agent,
            netns: place.netns,
            why,
        };
        self.engine.note(event).await;
    }

    fn tell(&self, now: &Now) {
        let here = self.here.is_dead().then(|| deaths::HERE.to_owned());
        let told = Told {
            served: now.served.len(),
            problems: here.into_iter().chain(now.faults.sentences()).collect(),
            without_ipv6: loopbacks::without_ipv6(now),
        };
        self.told
            .send_if_modified(|before| std::mem::replace(before, told.clone()) != told);
    }
}

/// Ends after so long; never where there is nothing to wait for.
async fn pause(wait_ns: Option<u64>) {
    match wait_ns {
        None => std::future::pending().await,
        Some(0) => {}
        Some(wait_ns) => tokio::time::sleep(Duration::from_nanos(wait_ns)).await,
    }
}

fn enter_one(workloads: &Workloads, place: &Place, ports: Ports) -> Result<Sockets, Failed> {
    let found = workloads.of(&place.agent).ok_or(Failed::Gone)?;
    if !look::is_there(place.door, place.netns, workloads.mount(), &found.folder) {
        return Err(Failed::Gone);
    }
    enter(place.door, place.netns, ports).map_err(|error| match error {
        EnterError::Gone => Failed::Gone,
        EnterError::NotPermitted
        | EnterError::LoopbackDown
        | EnterError::NoAddress
        | EnterError::Renamed
        | EnterError::NotLed
        | EnterError::PortTaken(_)
        | EnterError::Other(_) => Failed::Why(error.to_string()),
    })
}

/// Why a namespace is not served.
enum Failed {
    /// Nobody is there any more.
    Gone,
    /// The agent has had too many served in too little time.
    TooFast,
    /// Anything else, in words.
    Why(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("nobody is there any more"),
            Self::TooFast => write!(
                f,
                "the agent is in more new ones than are served of one: {} at once and {} a second from then on, since each is on record: make fewer, or wait",
                PACE.burst, PACE.per_second
            ),
            Self::Why(why) => f.write_str(why),
        }
    }
}

/// A process as this host sees it; one that has gone is known by its number.
fn process(pid: u32) -> Process {
    let (Ok(stat), Ok(uid)) = (workload::stat(pid), workload::uid_of(pid)) else {
        return Process::unknown(pid);
    };
    Process {
        pid,
        start_boot_ns: stat.start_boot_ns,
        uid,
        comm: stat.comm,
    }
}
