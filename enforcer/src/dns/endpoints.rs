//! The set of protected addresses. [`EndpointSet`] is pure: names, answers and deadlines in, networks and the next
//! wake-up out. [`keep`] is the thin task around it. An address is kept long after it vanished from the answers,
//! since clients remember; a failed look-up never removes one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Answer, Family, Lookup};
use crate::clock::Clock;
use crate::config::AddressClass;

/// How long an address stays protected after it vanished from the answers.
pub const GRACE: Duration = Duration::from_secs(600);
/// The shortest time between two look-ups of a name, whatever its ttl says.
pub const TTL_MIN: Duration = Duration::from_secs(5);
/// The longest time between two look-ups of a name, whatever its ttl says.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// The first wait after a failed look-up; doubled up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait after failed look-ups.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The most addresses held for one name and family, as many as one answer can carry (64 KiB, 16 bytes each). Past it the one that vanished
/// longest ago gives way, and that is said: a client that remembers it is not stopped there.
pub const ADDRESSES_PER_NAME_MAX: usize = 4096;
/// Look-ups under way at once.
const LOOKUPS_AT_ONCE: usize = 64;
/// The longest sleep: timers stand still while the host is suspended, deadlines do not.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Protected networks and what answers there.
pub type Endpoints = BTreeMap<IpNet, AddressClass>;

/// What a round of look-ups led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// What is protected.
    pub endpoints: Endpoints,
    /// Names with more addresses than are held: some that a client may remember are not protected.
    pub overfull: Vec<String>,
}

/// Names × answers × deadlines, and the operator's static prefixes.
#[derive(Debug, Clone)]
pub struct EndpointSet {
    fixed: Endpoints,
    names: BTreeMap<(String, Family), Name>,
    inherited: Endpoints,
    /// Until when the inherited are kept at least (boot-time clock).
    inherited_until_boot_ns: u64,
}

#[derive(Debug, Clone)]
struct Name {
    class: AddressClass,
    held: BTreeMap<IpAddr, Held>,
    /// When to ask next, nanoseconds on the boot-time clock.
    due_boot_ns: u64,
    /// Until when the last answer may be believed.
    fresh_until_boot_ns: u64,
    failures: u32,
    answered: bool,
    /// Until when an address is remembered by clients that was given up for want of room.
    overfull_until_boot_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// In the newest answer.
    Current,
    /// Gone from the answers; kept until then (boot-time clock).
    Vanished { until_boot_ns: u64 },
}

impl EndpointSet {
    /// A set that has asked nothing yet: every name is due at once, the prefixes hold from the start.
    #[must_use]
    pub fn new(
        names: impl IntoIterator<Item = (String, AddressClass)>,
        prefixes: impl IntoIterator<Item = (IpNet, AddressClass)>,
    ) -> Self {
        let mut fixed = Endpoints::new();
        for (net, class) in prefixes {
            insert(&mut fixed, net.trunc(), class);
        }
        let names = names.into_iter().flat_map(|(name, class)| {
            [Family::V4, Family::V6].map(|family| ((name.clone(), family), Name::unasked(class)))
        });
        Self {
            fixed,
            names: names.collect(),
            inherited: Endpoints::new(),
            inherited_until_boot_ns: 0,
        }
    }

    /// Takes over what the daemon before this one protected: a restart while the servers are silent must not unprotect it, and clients
    /// remember across restarts too. Single addresses only: those came from names, while a prefix is the operator's to take back.
    pub fn inherit(
        &mut self,
        held: impl IntoIterator<Item = (IpNet, AddressClass)>,
        now_boot_ns: u64,
    ) {
        let is_single = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        self.inherited = held.into_iter().filter(|(net, _)| is_single(net)).collect();
        self.inherited_until_boot_ns = now_boot_ns.saturating_add(ns(GRACE));
    }

    /// The look-ups to make now.
    #[must_use]
    pub fn due(&self, now_boot_ns: u64) -> Vec<(String, Family)> {
        let due = self
            .names
            .iter()
            .filter(|(_, name)| name.due_boot_ns <= now_boot_ns);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Takes an answer; one for a name that is not in the set changes nothing.
    pub fn answered(&mut self, name: &str, family: Family, answer: &Answer, now_boot_ns: u64) {
        if let Some(state) = self.names.get_mut(&(name.to_owned(), family)) {
            state.take(answer, now_boot_ns);
        }
    }

    /// Notes a failed look-up: everything known is kept, the next try waits longer each time.
    pub fn failed(&mut self, name: &str, family: Family, now_boot_ns: u64) {
        if let Some(state) = self.names.get_mut(&(name.to_owned(), family)) {
            let wait = BACKOFF_MIN
                .saturating_mul(1 << state.failures.min(10))
                .min(BACKOFF_MAX);
            state.failures = state.failures.saturating_add(1);
            state.due_boot_ns = now_boot_ns.saturating_add(ns(wait));
        }
    }

    /// Drops the addresses whose grace is over; the inherited only when every name has been answered, too.
    pub fn expire(&mut self, now_boot_ns: u64) {
        if self.inherited_until_boot_ns <= now_boot_ns && self.unanswered().is_empty() {
            self.inherited.clear();
        }
        for state in self.names.values_mut() {
            state.held.retain(|_, held| match held {
                Held::Current => true,
                Held::Vanished { until_boot_ns } => *until_boot_ns > now_boot_ns,
            });
        }
    }

    /// The networks protected now. What the operator says of a prefix holds for the addresses in it, whatever names answer there; where two
    /// names differ, shared holds, since other names do answer.
    #[must_use]
    pub fn current(&self) -> Endpoints {
        let mut all = self.fixed.clone();
        for state in self.names.values() {
            for address in state.held.keys() {
                let class = self.said_of(*address).unwrap_or(state.class);
                insert(&mut all, IpNet::from(*address), class);
            }
        }
        // What is known today about an address is better than what was known before.
        for (net, class) in &self.inherited {
            all.entry(*net).or_insert(*class);
        }
        all
    }

    /// What the operator says of the narrowest prefix that holds the address.
    fn said_of(&self, address: IpAddr) -> Option<AddressClass> {
        let holding = self.fixed.iter().filter(|(net, _)| net.contains(&address));
        let narrowest = holding.max_by_key(|(net, _)| net.prefix_len());
        narrowest.map(|(_, class)| *class)
    }

    /// When something is to do next, on the boot-time clock; `None` when there are no names.
    #[must_use]
    pub fn next_boot_ns(&self) -> Option<u64> {
        let wake = |state: &Name| {
            let vanishing = state.held.values().filter_map(|held| match held {
                Held::Current => None,
                Held::Vanished { until_boot_ns } => Some(*until_boot_ns),
            });
            vanishing.chain([state.due_boot_ns]).min()
        };
        self.names.values().filter_map(wake).min()
    }

    /// Names of which addresses were given up before their grace was over.
    #[must_use]
    pub fn overfull(&self, now_boot_ns: u64) -> Vec<String> {
        let mut names: Vec<String> = self
            .names
            .iter()
            .filter(|(_, state)| state.overfull_until_boot_ns > now_boot_ns)
            .map(|((name, _), _)| name.clone())
            .collect();
        names.dedup();
        names
    }

    /// Names no server has answered for yet, in either family: their addresses are not known to be protected.
    #[must_use]
    pub fn unanswered(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .names
            .iter()
            .filter(|(_, state)| !state.answered)
            .map(|((name, _), _)| name.as_str())
            .collect();
        names.dedup();
        names
    }
}

impl Name {
    const fn unasked(class: AddressClass) -> Self {
        Self {
            class,
            held: BTreeMap::new(),
            due_boot_ns: 0,
            fresh_until_boot_ns: 0,
            failures: 0,
            answered: false,
            overfull_until_boot_ns: 0,
        }
    }

    fn take(&mut self, answer: &Answer, now_boot_ns: u64) {
        let gone = self
            .fresh_until_boot_ns
            .max(now_boot_ns.saturating_add(ns(GRACE)));
        for held in self.held.values_mut() {
            if *held == Held::Current {
                *held = Held::Vanished {
                    until_boot_ns: gone,
                };
            }
        }
        for address in &answer.addresses {
            self.held.insert(*address, Held::Current);
        }
        self.bound();
        self.answered = true;
        self.failures = 0;
        self.fresh_until_boot_ns = now_boot_ns.saturating_add(ns(answer.ttl));
        self.due_boot_ns = now_boot_ns.saturating_add(ns(answer.ttl.clamp(TTL_MIN, TTL_MAX)));
    }

    fn bound(&mut self) {
        while self.held.len() > ADDRESSES_PER_NAME_MAX {
            let oldest = self
                .held
                .iter()
                .filter_map(|(address, held)| match held {
                    Held::Current => None,
                    Held::Vanished { until_boot_ns } => Some((*until_boot_ns, *address)),
                })
                .min();
            let Some((until_boot_ns, address)) = oldest else {
                return;
            };
            self.overfull_until_boot_ns = self.overfull_until_boot_ns.max(until_boot_ns);
            self.held.remove(&address);
        }
    }
}

fn insert(all: &mut Endpoints, net: IpNet, class: AddressClass) {
    all.entry(net)
        .and_modify(|held| *held = (*held).max(class))
        .or_insert(class);
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Keeps the set true until `stop`: asks what is due, and sends the networks whenever they change.
/// The first value is sent after the first round of look-ups, whatever came of them.
pub async fn keep(
    mut set: EndpointSet,
    names: Arc<dyn Lookup>,
    clock: Arc<dyn Clock>,
    current: watch::Sender<Kept>,
    stop: CancellationToken,
) {
    let mut first = true;
    loop {
        let now_boot_ns = clock.now().boot_ns;
        let due = set.due(now_boot_ns);
        let round = ask(&due, names.as_ref());
        let Some(answers) = stop.run_until_cancelled(round).await else {
            return;
        };
        let now_boot_ns = clock.now().boot_ns;
        for ((name, family), answer) in answers {
            match answer {
                Ok(answer) => set.answered(&name, family, &answer, now_boot_ns),
                Err(error) => {
                    tracing::warn!(%name, ?family, %error, "look-up failed; the addresses known are kept");
                    set.failed(&name, family, now_boot_ns);
                }
            }
        }
        set.expire(now_boot_ns);
        let kept = Kept {
            endpoints: set.current(),
            overfull: set.overfull(now_boot_ns),
        };
        current.send_if_modified(|held| {
            let changed = std::mem::take(&mut first) || *held != kept;
            if changed {
                *held = kept;
            }
            changed
        });
        let wait = set.next_boot_ns().map_or(SLEEP_MAX, |at| {
            Duration::from_nanos(at.saturating_sub(now_boot_ns))
        });
        let nap = tokio::time::sleep(wait.min(SLEEP_MAX));
        if stop.run_until_cancelled(nap).await.is_none() {
            return;
        }
    }
}

/// One look-up's outcome.
type Asked = ((String, Family), Result<Answer, super::NamesError>);

/// Makes one round of look-ups and returns every outcome.
pub async fn ask(due: &[(String, Family)], names: &dyn Lookup) -> Vec<Asked> {
    let lookups = due.iter().map(|(name, family)| async move {
        ((name.clone(), *family), names.lookup(name, *family).await)
    });
    // Collected first: the borrow checker cannot see through a lazy stream of borrowing futures.
    let lookups: Vec<_> = lookups.collect();
    futures_util::stream::iter(lookups)
        .buffer_unordered(LOOKUPS_AT_ONCE)
        .collect()
        .await
}
