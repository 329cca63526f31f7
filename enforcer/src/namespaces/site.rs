//! Where the daemon listens, in words: what comes there by hand is nobody's, and has come from somewhere all the same.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enforcer_proto::principal::AgentName;

use super::Netns;

/// A network namespace in which the daemon listens. This host's own has no words.
#[derive(Debug, Clone, Default)]
pub struct Site(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    netns: Netns,
    agent: Mutex<AgentName>,
}

impl Inner {
    fn agent(&self) -> MutexGuard<'_, AgentName> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site {
    /// One that is served for this agent.
    #[must_use]
    pub fn apart(netns: Netns, agent: AgentName) -> Self {
        let agent = Mutex::new(agent);
        Self(Some(Arc::new(Inner { netns, agent })))
    }

    /// From now on it is served for another, also in the words of those who have it already.
    pub fn hand_over(&self, agent: AgentName) {
        if let Some(inner) = &self.0 {
            *inner.agent() = agent;
        }
    }

    /// Whether it is another than this host's own: whoever is its root makes packets there, and changes others'.
    #[must_use]
    pub const fn is_apart(&self) -> bool {
        self.0.is_some()
    }

    /// Which one it is and for whom it is served, but for this host's own.
    #[must_use]
    pub fn whose(&self) -> Option<(Netns, AgentName)> {
        let inner = self.0.as_ref()?;
        Some((inner.netns, inner.agent().clone()))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((netns, agent)) = self.whose() else {
            return Ok(());
        };
        write!(
            f,
            " in the network namespace {netns} (served for agent {agent})"
        )
    }
}
