//! What agents and others may have of the proxy at once. No agent's share can be used up by another, nor by who is no agent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_ebpf::map::NAMESPACES_MAX;
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{CheckState, CheckView};
use tokio::sync::OwnedSemaphorePermit;

use super::splice::FILES_PER_SPLICE;
use crate::callers::{Bounds, OfAgent, Places};
use crate::config::AGENTS_MAX;
use crate::dns::responder;
use crate::metadata;
use crate::pace::Pace;
use crate::upstream::KEPT_MAX;

/// The most agents' connections at once, on all listeners together: one for each agent that a host may have. Past it they wait in the
/// kernel's backlog. Fewer where the daemon may not open as many files: see [`Room`].
pub const CONNECTIONS_MAX: usize = AGENTS_MAX;
/// What of [`CONNECTIONS_MAX`] there must be room for; with less the daemon does not start.
pub const CONNECTIONS_LEAST: usize = 2048;
/// The most connections of one agent at once; one more is reset.
pub const CONNECTIONS_PER_AGENT_MAX: usize = 128;
/// How many of these may be from one network namespace of its own: who shares that can keep them there from ending.
pub const CONNECTIONS_APART_MAX: usize = 96;
/// The most requests of one agent that are read or answered at once, on all its connections together; one more waits. Each may hold a
/// body of [`crate::bigquery::json::BODY_BYTES_MAX`], so this bounds an agent's memory as well.
pub const REQUESTS_PER_AGENT_MAX: usize = 128;
/// How fast an agent may ask: a request takes a token, and one more for every [`BODY_BYTES_PER_TOKEN`] of its body. One more is refused. What
/// an agent is answered takes records, and a text that is judged is recorded whole: this bounds what it adds to the log. Rows and loads are not
/// recorded; the window's budget bounds them.
pub const PACE: Pace = Pace {
    burst: 2000,
    per_second: 50,
};
/// See [`PACE`].
pub const BODY_BYTES_PER_TOKEN: usize = 2048;
/// How long a request waits for its turn; then it is refused.
pub const TURN: Duration = Duration::from_secs(10);
/// The most connections of processes that are no agent's at once; one more is reset. They are not among [`CONNECTIONS_MAX`].
pub const NOBODYS_CONNECTIONS_MAX: usize = 2048;
/// What of [`NOBODYS_CONNECTIONS_MAX`] there is room for before agents have all of theirs.
pub const NOBODYS_CONNECTIONS_LEAST: usize = 1024;
/// The most of them of one uid.
pub const CONNECTIONS_PER_UID_MAX: usize = 512;
/// The file descriptors for connections beside those with the proxy.
const FILES_SERVED: usize = responder::BOUNDS.connections + metadata::BOUNDS.connections;
/// The file descriptors for everything else: requests on their way upstream, control, maps, log, `/proc`, and some network namespaces.
const FILES_BESIDE: usize = 1280 + FILES_SERVED;
/// The sockets in one network namespace: of both families the proxy's, those for names, which are two, and the metadata server's.
const FILES_PER_NAMESPACE: usize = 8;
/// The file descriptors that the daemon must be allowed to have open at once.
pub const FILES_LEAST: usize =
    CONNECTIONS_LEAST + NOBODYS_CONNECTIONS_LEAST * FILES_PER_SPLICE + KEPT_MAX + FILES_BESIDE;
/// With how many it has room for all connections that the bounds allow.
const FILES_OF_ALL: usize =
    CONNECTIONS_MAX + NOBODYS_CONNECTIONS_MAX * FILES_PER_SPLICE + KEPT_MAX + FILES_BESIDE;
/// With how many there is room for all network namespaces beside them.
pub const FILES_WANTED: usize = FILES_OF_ALL + NAMESPACES_MAX as usize * FILES_PER_NAMESPACE;

/// From how much of a bound on it is said to be nearly used up, percent.
const BUSY_PERCENT: usize = 80;

/// Whether so many are as they should be where there may be `most`.
const fn state_of(count: usize, most: usize) -> CheckState {
    if count >= most {
        CheckState::Bad
    } else if count.saturating_mul(100) >= most.saturating_mul(BUSY_PERCENT) {
        CheckState::Warning
    } else {
        CheckState::Well
    }
}

/// How many connections there is room for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of agents: at most [`CONNECTIONS_MAX`].
    pub agents: usize,
    /// Of others: at most [`NOBODYS_CONNECTIONS_MAX`].
    pub nobodys: usize,
}

impl Room {
    /// As much as there ever is.
    pub const ALL: Self = Self {
        agents: CONNECTIONS_MAX,
        nobodys: NOBODYS_CONNECTIONS_MAX,
    };

    /// The room that so many open files give; agents' connections come before what others have past their least. `None`: too few.
    #[must_use]
    pub fn within(files: usize) -> Option<Self> {
        let past_least = files.checked_sub(FILES_LEAST)?;
        let agents = past_least.min(CONNECTIONS_MAX - CONNECTIONS_LEAST);
        let nobodys = (past_least - agents) / FILES_PER_SPLICE;
        Some(Self {
            agents: CONNECTIONS_LEAST + agents,
            nobodys: (NOBODYS_CONNECTIONS_LEAST + nobodys).min(NOBODYS_CONNECTIONS_MAX),
        })
    }
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { agents, nobodys } = self;
        write!(
            f,
            "room for {agents} connections of agents and {nobodys} of others"
        )?;
        if *self == Self::ALL {
            return Ok(());
        }
        write!(
            f,
            " instead of {CONNECTIONS_MAX} and {NOBODYS_CONNECTIONS_MAX}, since the daemon may open fewer than {FILES_WANTED} files (systemd: LimitNOFILE={FILES_WANTED})"
        )
    }
}

/// The connections of processes that are no agent's, by uid. A uid without any is not held: there are as many as a process likes.
#[derive(Debug, Default)]
struct Nobodys(Mutex<BTreeMap<u32, usize>>);

impl Nobodys {
    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for a connection of somebody who is no agent.
#[derive(Debug)]
pub struct NobodysPlace {
    nobodys: Arc<Nobodys>,
    uid: u32,
}

impl Drop for NobodysPlace {
    fn drop(&mut self) {
        let mut held = self.nobodys.held();
        match held.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&self.uid)),
        }
    }
}

/// Places, given back when what holds them is dropped.
#[derive(Debug)]
pub struct Quota {
    places: Places,
    nobodys: Arc<Nobodys>,
    room: Room,
}

impl Quota {
    /// All of this room free.
    #[must_use]
    pub fn new(room: Room) -> Self {
        let bounds = Bounds {
            connections: room.agents,
            connections_per_agent: CONNECTIONS_PER_AGENT_MAX,
            connections_apart: CONNECTIONS_APART_MAX,
            questions_per_agent: REQUESTS_PER_AGENT_MAX,
            pace: PACE,
        };
        Self {
            places: Places::new(bounds),
            nobodys: Arc::default(),
            room,
        }
    }

    /// How many connections there are, against how many there may be. It is to be looked at from `BUSY_PERCENT` of either on; where there is no
    /// place left, the next one waits or is refused, and that is wrong.
    #[must_use]
    pub fn check(&self) -> CheckView {
        let agents = self.places.connections();
        let nobodys: usize = self.nobodys.held().values().sum();
        let states = [
            state_of(agents, self.room.agents),
            state_of(nobodys, self.room.nobodys),
        ];
        let worst = [CheckState::Bad, CheckState::Warning]
            .into_iter()
            .find(|state| states.contains(state));
        CheckView {
            what: "connections".to_owned(),
            state: worst.unwrap_or(CheckState::Well),
            said: self.said(agents, nobodys),
        }
    }

    fn said(&self, agents: usize, nobodys: usize) -> String {
        let room = &self.room;
        let said = format!(
            "{agents} of {} are open, and {nobodys} of {} to shared addresses are passed on for others",
            room.agents, room.nobodys
        );
        if *room == Room::ALL {
            return said;
        }
        format!("{said}; {room}")
    }

    /// Waits for a place for anybody's connection.
    pub async fn connection(&self) -> OwnedSemaphorePermit {
        self.places.connection().await
    }

    /// A place for a connection of `agent`'s, from the network namespace with that cookie, where that is one of its own.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when it has as many as it may.
    pub fn connection_of(&self, agent: &AgentName, apart: Option<u64>) -> Result<OfAgent, Refusal> {
        self.places.connection_of(agent, apart).ok_or_else(|| {
            let what = if apart.is_some() {
                format!(
                    "Agent {agent} has {CONNECTIONS_APART_MAX} connections from its network namespace already, or {CONNECTIONS_PER_AGENT_MAX} in all"
                )
            } else {
                format!("Agent {agent} has {CONNECTIONS_PER_AGENT_MAX} connections already")
            };
            Refusal::new(Code::Overloaded, what)
        })
    }

    /// A place for a connection of a process of `uid` that is no agent's.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when that uid, or all of them together, have as many as they may.
    pub fn connection_of_nobody(&self, uid: u32) -> Result<NobodysPlace, Refusal> {
        let mut held = self.nobodys.held();
        let own = held.get(&uid).copied().unwrap_or(0);
        let all: usize = held.values().sum();
        let what = if own >= CONNECTIONS_PER_UID_MAX {
            format!(
                "Uid {uid} has {CONNECTIONS_PER_UID_MAX} connections to shared addresses already"
            )
        } else if all >= self.room.nobodys {
            format!(
                "{} connections to shared addresses are passed on already",
                self.room.nobodys
            )
        } else {
            held.insert(uid, own + 1);
            let nobodys = Arc::clone(&self.nobodys);
            return Ok(NobodysPlace { nobodys, uid });
        };
        Err(Refusal::new(Code::Overloaded, what))
    }

    /// Waits for the turn of a request of `agent`'s, for at most [`TURN`].
    ///
    /// # Errors
    /// [`Code::Overloaded`] when its turn did not come.
    pub async fn request_of(&self, agent: &AgentName) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(TURN, self.places.turn_of(agent)).await;
        turn.map_err(|_| {
            let what = format!(
                "Agent {agent} has had {REQUESTS_PER_AGENT_MAX} requests under way for {} s",
                TURN.as_secs()
            );
            Refusal::new(Code::Overloaded, what)
        })
    }

    /// Takes what a request with a body of so many bytes that may be recorded costs of `agent`'s pace.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when it asks too fast.
    pub fn pace_of(
        &self,
        agent: &AgentName,
        body_bytes: usize,
        now_boot_ns: u64,
    ) -> Result<(), Refusal> {
        let tokens = 1 + u32::try_from(body_bytes / BODY_BYTES_PER_TOKEN).unwrap_or(u32::MAX - 1);
        if self.places.take_of(agent, tokens, now_boot_ns) {
            return Ok(());
        }
        let what = format!(
            "Agent {agent} asks faster than {} requests a second, of which every {BODY_BYTES_PER_TOKEN} bytes of text that is recorded count as one more",
            PACE.per_second
        );
        Err(Refusal::new(Code::Overloaded, what))
    }
}

/// Allows this process as many files as its bounds can ask for, or as many as the host lets it have: what there is room for then.
///
/// # Errors
/// When that is too few: an agent could then use up what the control socket and the log need.
pub fn allow_files() -> anyhow::Result<Room> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = FILES_WANTED as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let room = Room::within(usize::try_from(most)?).ok_or_else(|| {
        anyhow::anyhow!(
            "the daemon may open {most} files, and needs {FILES_LEAST}, or {wanted} for all connections that it takes: raise the limit (systemd: LimitNOFILE={wanted}; shell: ulimit -n {wanted})"
        )
    })?;
    if current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: Some(most),
            maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        name.parse().expect("a name")
    }

    #[test]
    fn connections_are_counted_against_their_bound_and_marked_before_it_is_reached() {
        let quota = Quota::new(Room {
            agents: 10,
            nobodys: 10,
        });
        let mut held = Vec::new();
        for (count, state) in [
            (7, CheckState::Well),
            (8, CheckState::Warning),
            (9, CheckState::Warning),
            (10, CheckState::Bad),
        ] {
            while held.len() < count {
                held.push(quota.connection_of_nobody(1).expect("there is room"));
            }
            let check = quota.check();
            assert_eq!(check.state, state, "{count}: {}", check.said);
            let said = format!("0 of 10 are open, and {count} of 10 to shared addresses");
            assert!(check.said.starts_with(&said), "{}", check.said);
        }
        drop(held);
        assert_eq!(quota.check().state, CheckState::Well);
        let all: Vec<_> = std::iter::from_fn(|| {
            use futures_util::FutureExt;
            quota.connection().now_or_never()
        })
        .collect();
        let check = quota.check();
        assert_eq!((all.len(), check.state), (10, CheckState::Bad));
        assert!(check.said.starts_with("10 of 10 are open, and 0 of 10"));
    }

    #[test]
    fn fewer_files_give_less_room_to_agents_last_and_too_few_give_none() {
        let room = |files| Room::within(files).map(|room| (room.agents, room.nobodys));
        assert_eq!(room(FILES_LEAST - 1), None);
        assert_eq!(room(FILES_LEAST), Some((2048, 1024)));
        assert_eq!(room(FILES_LEAST + 5), Some((2053, 1024)));
        let agents = CONNECTIONS_MAX - CONNECTIONS_LEAST;
        assert_eq!(room(FILES_LEAST + agents), Some((CONNECTIONS_MAX, 1024)));
        let past = FILES_LEAST + agents + FILES_PER_SPLICE;
        assert_eq!(room(past), Some((CONNECTIONS_MAX, 1025)));
        assert_eq!(
            Room::within(FILES_OF_ALL - 6).map(|room| room.nobodys),
            Some(2047)
        );
        assert_eq!(Room::within(FILES_OF_ALL), Some(Room::ALL));
        assert_eq!(Room::within(usize::MAX), Some(Room::ALL));
        for files in FILES_LEAST..=FILES_OF_ALL {
            let room = Room::within(files).expect("room");
            let used = room.agents + room.nobodys * FILES_PER_SPLICE + KEPT_MAX + FILES_BESIDE;
            assert!(used <= files, "{room} with {files}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_holds_all_its_connections_takes_none_of_anothers() {
        let quota = Quota::new(Room::ALL);
        let (greedy, modest) = (agent("greedy"), agent("modest"));
        let mut held: Vec<_> = (0..CONNECTIONS_PER_AGENT_MAX)
            .map(|_| quota.connection_of(&greedy, None).expect("a place"))
            .collect();
        let refusal = quota.connection_of(&greedy, None).expect_err("is refused");
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(quota.connection_of(&modest, None).is_ok());
        drop(held.pop());
        assert!(
            quota.connection_of(&greedy, None).is_ok(),
            "a place came back"
        );
    }

    #[test]
    fn an_agent_that_asks_too_fast_or_too_much_is_refused_and_no_other_is() {
        let quota = Quota::new(Room::ALL);
        let (greedy, modest) = (agent("greedy"), agent("modest"));
        let asked = (0..3000).filter(|_| quota.pace_of(&greedy, 100, 1).is_ok());
        assert_eq!(asked.count(), PACE.burst as usize);
        assert!(quota.pace_of(&modest, 1_000_000, 1).is_ok());
        let large = (0..10).filter(|_| quota.pace_of(&modest, 1_000_000, 1).is_ok());
        assert_eq!(large.count(), 3);
        let refused = quota.pace_of(&modest, 1_000_000, 1).expect_err("too fast");
        assert!(refused.what.contains("every 2048 bytes of text"));
    }

    #[test]
    fn a_uid_that_holds_all_its_connections_takes_none_of_anothers_and_all_together_are_bounded() {
        let quota = Quota::new(Room::ALL);
        let mut held = Vec::new();
        for uid in 0..NOBODYS_CONNECTIONS_MAX / CONNECTIONS_PER_UID_MAX {
            let uid = u32::try_from(uid).expect("fits");
            for _ in 0..CONNECTIONS_PER_UID_MAX {
                held.push(quota.connection_of_nobody(uid).expect("a place"));
            }
            assert!(quota.connection_of_nobody(uid).is_err(), "its own bound");
        }
        assert!(quota.connection_of_nobody(77).is_err(), "the bound of all");
        assert!(
            quota.connection_of(&agent("bot"), None).is_ok(),
            "agents have places of their own"
        );
        drop(held.pop());
        assert!(quota.connection_of_nobody(77).is_ok(), "a place came back");
        drop(held);
        assert!(
            quota.nobodys.held().is_empty(),
            "nothing is kept of who has none"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_its_turn_and_is_refused_when_it_does_not_come() {
        let quota = Quota::new(Room::ALL);
        let bot = agent("bot");
        let mut held = Vec::new();
        for _ in 0..REQUESTS_PER_AGENT_MAX {
            held.push(quota.request_of(&bot).await.expect("a turn"));
        }
        let refusal = quota.request_of(&bot).await.expect_err("no turn");
        assert_eq!(refusal.code, Code::Overloaded);
        let (turn, ()) = tokio::join!(quota.request_of(&bot), async {
            tokio::time::sleep(TURN / 2).await;
            drop(held.pop());
        });
        assert!(turn.is_ok());
    }
}
