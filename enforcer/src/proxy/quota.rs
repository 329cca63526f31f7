//! What agents and others may have of the proxy at once. No agent's share can be used up by another, nor by who is no agent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use tokio::sync::OwnedSemaphorePermit;

use super::splice::FILES_PER_SPLICE;
use crate::callers::{Bounds, Places};
use crate::pace::Pace;

/// The most agents' connections at once, on all listeners together. Past it they wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 2048;
/// The most connections of one agent at once; one more is reset.
pub const CONNECTIONS_PER_AGENT_MAX: usize = 128;
/// The most requests of one agent that are read or answered at once, on all its connections together; one more waits. Each may hold a
/// body of [`crate::bigquery::json::BODY_BYTES_MAX`], so this bounds an agent's memory as well.
pub const REQUESTS_PER_AGENT_MAX: usize = 128;
/// How fast an agent may ask: a request takes a token, and one more for every [`BODY_BYTES_PER_TOKEN`] of its body. One more is refused. What
/// an agent is answered takes records, and a text that is judged is recorded whole: this bounds what it adds to the log.
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
/// The most of them of one uid.
pub const CONNECTIONS_PER_UID_MAX: usize = 512;
/// The file descriptors of a connection: its own, and the one that resets it.
const FILES_PER_CONNECTION: usize = 2;
/// The file descriptors for everything else: upstream, control, maps, log, `/proc`.
const FILES_BESIDE: usize = 2048;
/// The file descriptors that the daemon must be allowed to have open at once.
pub const FILES_MIN: usize = CONNECTIONS_MAX * FILES_PER_CONNECTION
    + NOBODYS_CONNECTIONS_MAX * FILES_PER_SPLICE
    + FILES_BESIDE;

const BOUNDS: Bounds = Bounds {
    connections: CONNECTIONS_MAX,
    connections_per_agent: CONNECTIONS_PER_AGENT_MAX,
    questions_per_agent: REQUESTS_PER_AGENT_MAX,
    pace: PACE,
};

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
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            places: Places::new(BOUNDS),
            nobodys: Arc::default(),
        }
    }
}

impl Quota {
    /// Waits for a place for anybody's connection.
    pub async fn connection(&self) -> OwnedSemaphorePermit {
        self.places.connection().await
    }

    /// A place for a connection of `agent`'s.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when it has as many as it may.
    pub fn connection_of(&self, agent: &AgentName) -> Result<OwnedSemaphorePermit, Refusal> {
        self.places.connection_of(agent).ok_or_else(|| {
            let what = format!("Agent {agent} has {CONNECTIONS_PER_AGENT_MAX} connections already");
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
        } else if all >= NOBODYS_CONNECTIONS_MAX {
            format!(
                "{NOBODYS_CONNECTIONS_MAX} connections to shared addresses are passed on already"
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

    /// Takes what a request with a body of so many bytes costs of `agent`'s pace.
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
            "Agent {agent} asks faster than {} requests a second",
            PACE.per_second
        );
        Err(Refusal::new(Code::Overloaded, what))
    }
}

/// Allows this process as many files as its quotas can ask for.
///
/// # Errors
/// When the host allows fewer: an agent could then use up what the control socket and the log need.
pub fn allow_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = FILES_MIN as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    anyhow::ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "the daemon may open {} files, and its quotas need {needed}: raise the limit (systemd: LimitNOFILE={needed}; shell: ulimit -n {needed})",
        maximum.unwrap_or_default()
    );
    let raised = Rlimit {
        current: Some(needed),
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        name.parse().expect("a name")
    }

    #[tokio::test]
    async fn an_agent_that_holds_all_its_connections_takes_none_of_anothers() {
        let quota = Quota::default();
        let (greedy, modest) = (agent("greedy"), agent("modest"));
        let mut held: Vec<_> = (0..CONNECTIONS_PER_AGENT_MAX)
            .map(|_| quota.connection_of(&greedy).expect("a place"))
            .collect();
        let refusal = quota.connection_of(&greedy).expect_err("is refused");
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(quota.connection_of(&modest).is_ok());
        drop(held.pop());
        assert!(quota.connection_of(&greedy).is_ok(), "a place came back");
    }

    #[test]
    fn an_agent_that_asks_too_fast_or_too_much_is_refused_and_no_other_is() {
        let quota = Quota::default();
        let (greedy, modest) = (agent("greedy"), agent("modest"));
        let asked = (0..3000).filter(|_| quota.pace_of(&greedy, 100, 1).is_ok());
        assert_eq!(asked.count(), PACE.burst as usize);
        assert!(quota.pace_of(&modest, 1_000_000, 1).is_ok());
        let large = (0..10).filter(|_| quota.pace_of(&modest, 1_000_000, 1).is_ok());
        assert_eq!(large.count(), 3);
    }

    #[test]
    fn a_uid_that_holds_all_its_connections_takes_none_of_anothers_and_all_together_are_bounded() {
        let quota = Quota::default();
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
            quota.connection_of(&agent("bot")).is_ok(),
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
        let quota = Quota::default();
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
