//! What becomes of namespaces whose listeners somebody has ended.

use enforcer_proto::event::Event;

use super::deaths::WHY;
use super::{Keep, Now};
use crate::namespaces::Place;

impl Keep {
    /// Leaves where a listener has died, of which nothing else tells, and has it wait to be served again. Nothing is led there any more before its other
    /// listeners end.
    pub(super) async fn bury(&mut self, now: &mut Now) {
        let served = now.served.iter();
        let dead = served.filter(|(_, served)| served.post.is_dead());
        let dead: Vec<_> = dead.map(|(netns, _)| *netns).collect();
        for netns in dead {
            let Some(left) = self.leave(now, netns).await else {
                continue;
            };
            let place = Place {
                netns,
                agent: left.agent.clone(),
                door: left.door,
            };
            now.faults.die(&place, self.boot_ns());
            // Each time, since it was served since: it dies no oftener than its pauses let it.
            let event = Event::NamespaceRefused {
                agent: left.agent,
                process: left.process,
                netns,
                why: WHY.to_owned(),
            };
            self.engine.note(event).await;
        }
        self.tell(now);
    }
}
