//! Connections that were refused, counted and recorded once a second.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::{Code, Refusal};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::namespaces::{Netns, Site};
use crate::tally::{Tally, keep_recording};

/// Pid and code: what is counted together of one agent.
type Kind = (u32, &'static str);

#[derive(Debug)]
struct Refused {
    process: Option<Process>,
    refusal: Refusal,
}

/// What came that is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Came {
    /// A connection.
    Connection,
    /// A question for a name.
    Question,
}

/// Counts connection refusals by agent, process and code.
#[derive(Debug, Default)]
pub struct Coalesce(Mutex<Tallies>);

#[derive(Debug, Default)]
struct Tallies {
    known: Tally<Kind, Refused>,
    /// Nobody's, of the network namespaces that are served: each agent's have a share of their own, so that what is made up there hides nothing else.
    nobodys: Tally<(Netns, Came), Refusal>,
}

impl Coalesce {
    /// Counts one.
    pub fn add(&self, agent: Option<AgentName>, process: Option<Process>, refusal: Refusal) {
        let pid = process.as_ref().map_or(0, |process| process.pid);
        let kind = (pid, refusal.code.as_str());
        let refused = Refused { process, refusal };
        self.tallies().known.add(agent, kind, refused);
    }

    /// Counts one that is nobody's and came there, by where that is. It is not on record as that of the agent it is served for, who need not have made it.
    pub fn add_nobodys(&self, came: Came, site: &Site, refusal: Refusal) {
        let Some((netns, agent)) = site.whose() else {
            return self.add(None, None, refusal);
        };
        self.tallies()
            .nobodys
            .add(Some(agent), (netns, came), refusal);
    }

    /// Counts a connection that is no agent's, or no agent's any more: whose it is then, if the kernel led it here.
    pub fn add_unknown(&self, from: SocketAddr, site: &Site, process: Option<Process>) {
        let unknown = |what| Refusal::new(Code::CallerUnknown, what);
        let Some(process) = process else {
            let what = format!("A connection from {from}{site} was not led here by the kernel");
            return self.add_nobodys(Came::Connection, site, unknown(what));
        };
        let what = if site.is_apart() {
            format!("A process that is no agent's is served nothing{site}")
        } else {
            "A process is served nothing any more, since its workload is no agent's by now"
                .to_owned()
        };
        self.add(None, Some(process), unknown(what));
    }

    /// Records what was counted, until `stop` and once more then.
    pub async fn run(&self, engine: &Engine, stop: CancellationToken) {
        keep_recording(engine, stop, |_| self.take()).await;
    }

    fn take(&self) -> Vec<Event> {
        let mut tallies = self.tallies();
        let Tallies { known, nobodys } = &mut *tallies;
        let mut events = known.take(Refuser::Proxy, |agent, refused, count| {
            Event::ConnectionRefused {
                agent,
                process: refused.process,
                refusal: refused.refusal,
                count,
            }
        });
        let of_nobody = |_, refusal, count| Event::ConnectionRefused {
            agent: None,
            process: None,
            refusal,
            count,
        };
        let nobodys = nobodys.take(Refuser::Proxy, of_nobody);
        events.extend(nobodys.into_iter().map(without_agent));
        events
    }

    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those past the kinds that are told apart are nobody's either.
fn without_agent(event: Event) -> Event {
    if let Event::FurtherRefused {
        by,
        uid,
        code,
        count,
        agent: _,
    } = event
    {
        let agent = None;
        return Event::FurtherRefused {
            by,
            agent,
            uid,
            code,
            count,
        };
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::KINDS_PER_AGENT_MAX;

    fn refusal(site: &Site) -> Refusal {
        Refusal::new(Code::CallerUnknown, format!("Something{site}"))
    }

    #[test]
    fn what_nobody_has_sent_is_counted_by_where_it_came_and_hides_nobodys_from_elsewhere() {
        let coalesce = Coalesce::default();
        let agent: AgentName = "bot".parse().expect("a name");
        let many = KINDS_PER_AGENT_MAX as Netns + 3;
        for netns in (0..many).chain(0..many) {
            let site = Site::apart(netns, agent.clone());
            coalesce.add_nobodys(Came::Question, &site, refusal(&site));
        }
        let here = Site::default();
        coalesce.add_nobodys(Came::Connection, &here, refusal(&here));
        let mut events = coalesce.take();
        assert_eq!(events.len(), 1 + KINDS_PER_AGENT_MAX + 1);
        let one = |site: &Site, count| Event::ConnectionRefused {
            agent: None,
            process: None,
            refusal: refusal(site),
            count,
        };
        let further = Event::FurtherRefused {
            by: Refuser::Proxy,
            agent: None,
            uid: None,
            code: None,
            count: 6,
        };
        assert_eq!(events.pop(), Some(further));
        assert_eq!(events[0], one(&here, 1));
        let first = &events[1];
        assert_eq!(*first, one(&Site::apart(0, agent), 2));
        let Event::ConnectionRefused { refusal, .. } = first else {
            panic!("{first:?}");
        };
        assert_eq!(
            refusal.what,
            "Something in the network namespace 0 (served for agent bot)"
        );
    }
}
