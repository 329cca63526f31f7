//! Follows the policy file: what it says is taken as a whole once it has changed, or not at all. The file is looked at, and not watched: editors
//! replace it. It is read, and its users and groups are looked up, where it is another file than the one in force was read from, where the host's
//! list of users or groups is another, and now and then, since a directory may say who they are: whom a name means is part of the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::audit::sha256_hex;
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::AgentName;
use tokio_util::sync::CancellationToken;

use crate::causes::Causes;
use crate::config::load_policy;
use crate::control::peer::Identify;
use crate::engine::{BadPolicy, Engine};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// After how many looks users and groups are looked up again in any case: every minute.
const LOOKS_PER_LOOKUP: u32 = 30;
/// The host's own lists of users and groups.
const LISTS: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// What follows it.
pub(super) struct Keep {
    pub(super) engine: Engine,
    pub(super) identify: Arc<Identify>,
    pub(super) path: PathBuf,
    /// The only agents that it may name, and their uids.
    pub(super) agents: BTreeMap<AgentName, BTreeSet<u32>>,
    /// What is in force.
    pub(super) in_force: Policy,
}

/// What tells one state of a file from another, without reading it: a change of its owner or mode is one as well.
type Stamp = (u64, u64, u64, i64, i64);

/// The policy file and the lists that say who the people in it are.
type Stamps = (Stamp, [Option<Stamp>; 2]);

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    let (dev, ino, size) = (about.dev(), about.ino(), about.size());
    Some((dev, ino, size, about.ctime(), about.ctime_nsec()))
}

fn stamps(policy: &Path) -> Option<Stamps> {
    Some((stamp(policy)?, LISTS.map(|list| stamp(Path::new(list)))))
}

/// Whether what was found is to be taken in: another policy, or the same text of which the names mean others now.
fn is_news(found: &Result<Policy, BadPolicy>, in_force: &Policy, said: Option<&BadPolicy>) -> bool {
    match found {
        // Put back as it was: what was wrong is wrong no more.
        Ok(policy) => policy != in_force || said.is_some(),
        Err(bad) => said != Some(bad),
    }
}

impl Keep {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut said, mut good, mut looked) = (None, None, 0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            looked = (looked + 1) % LOOKS_PER_LOOKUP;
            if looked == 0 {
                good = None;
            }
            let (stamp, found) = self.look(good).await;
            let Some(found) = found else {
                continue;
            };
            good = stamp.filter(|_| found.is_ok());
            let is_news = is_news(&found, &self.in_force, said.as_ref());
            if is_news && !self.take(found, &mut said).await {
                // It is tried again with the next look.
                good = None;
            }
        }
    }

    /// Reads the file, unless it and the lists are those that were `good`; away from the runtime: it may hang, and so may the look-up of a user. What could not
    /// be used is read again each time, since a look-up may have failed.
    async fn look(
        &self,
        good: Option<Stamps>,
    ) -> (Option<Stamps>, Option<Result<Policy, BadPolicy>>) {
        let (path, agents) = (self.path.clone(), self.agents.clone());
        let look = move || {
            // Before it is read: what is written meanwhile is another state.
            let stamp = stamps(&path);
            if stamp.is_some() && stamp == good {
                return (stamp, None);
            }
            let found = load_policy(&path, Some(&agents)).map_err(|error| BadPolicy {
                digest: std::fs::read(&path).ok().map(|bytes| sha256_hex(&bytes)),
                why: Causes(&error).to_string(),
            });
            (stamp, Some(found))
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.unwrap_or_else(|_| {
            let bad = BadPolicy {
                digest: None,
                why: "reading it failed".to_owned(),
            };
            (None, Some(Err(bad)))
        })
    }

    /// True once it is on record.
    async fn take(
        &mut self,
        found: Result<Policy, BadPolicy>,
        said: &mut Option<BadPolicy>,
    ) -> bool {
        let (policy, bad) = match &found {
            Ok(policy) => (Some(policy.clone()), None),
            Err(bad) => (None, Some(bad.clone())),
        };
        if self.engine.policy(found).await.is_err() {
            return false;
        }
        *said = bad;
        if let Some(policy) = policy {
            self.identify.take_policy(&policy);
            self.in_force = policy;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_another_user_is_news_though_the_text_is_the_same() {
        let of = |uid: u32| Policy {
            rules: Vec::new(),
            signers: Vec::new(),
            own_uids: [("bot".parse().expect("a name"), [uid].into())].into(),
            digest: "d".into(),
        };
        let bad = |why: &str| BadPolicy {
            digest: None,
            why: why.into(),
        };
        assert!(!is_news(&Ok(of(1)), &of(1), None));
        assert!(is_news(&Ok(of(2)), &of(1), None));
        assert!(is_news(&Ok(of(1)), &of(1), Some(&bad("gone"))));
        assert!(is_news(&Err(bad("gone")), &of(1), None));
        assert!(!is_news(&Err(bad("gone")), &of(1), Some(&bad("gone"))));
    }
}
