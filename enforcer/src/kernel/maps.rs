//! The maps, typed. Writes come from one owner; origins are read by every accepted connection through handles of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::{Ebpf, Pod};
use enforcer_ebpf::address::mapped;
use enforcer_ebpf::map::{
    AGENTS_MAX, CLASS_DEDICATED, CLASS_METADATA, CLASS_SHARED, ENDPOINTS_MAX, ENFORCE_AGENTS,
    ENFORCE_HOST, SUBUIDS_MAX, UIDS_MAX, WINDOWS_MAX,
};
use enforcer_ebpf::opening::Said;
use enforcer_ebpf::{
    Agent, Config, Counters, Endpoint, Opening, OpeningKey, Origin, PortKey, Window,
};
use enforcer_proto::wire::{CheckView, Enforce};
use ipnet::IpNet;

use super::before::{Before, Ours};
use super::hooks::Hooks;
use super::load::{ACCEPTED, ASKERS, Link, OPENINGS, Root, behind};
use super::pins::Pin;
use super::{KernelError, io, refused, sys};
use crate::causes::Causes;
use crate::config::AddressClass;
use crate::random;
use crate::subordinate::Prefix;

/// The maps that the daemon writes, as the loader left them.
pub(super) struct Pinned {
    windows: Hash<u64, Window>,
    agents: Hash<u64, Agent>,
    uids: Hash<u32, u32>,
    subordinate: LpmTrie<MapData, [u8; 4], u32>,
    endpoints: Option<EndpointMaps>,
    namespaces: Option<Namespaces>,
    config: Array<MapData, Config>,
    opening_key: Array<MapData, [u64; 2]>,
    heartbeat: Array<MapData, u64>,
    counters: PerCpuArray<MapData, Counters>,
    events: Option<RingBuf<MapData>>,
}

/// A map as the loader left it.
fn taken(ebpf: &mut Ebpf, name: &str) -> Result<Map, KernelError> {
    let map = ebpf.take_map(name);
    map.ok_or_else(|| KernelError::Unsuited(format!("the kernel object has no map {name}")))
}

fn typed<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, KernelError> {
    let map = taken(ebpf, name)?;
    T::try_from(map).map_err(|error| refused(format!("open the map {name}"))(&error))
}

/// A hash that is written entry by entry, and read as a whole with few questions: there may be ten thousand entries, and who reads them is the
/// thread that decides.
struct Hash<K, V> {
    map: HashMap<MapData, K, V>,
    fd: OwnedFd,
}

impl<K: Pod + Ord, V: Pod> Hash<K, V> {
    fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, KernelError> {
        let map = taken(ebpf, name)?;
        let fail = || refused(format!("open the map {name}"));
        let Map::HashMap(data) = &map else {
            return Err(KernelError::Unsuited(format!("the map {name} is no hash")));
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            fd: fd.map_err(|error| fail()(&error))?,
            map: HashMap::try_from(map).map_err(|error| fail()(&error))?,
        })
    }

    fn insert(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.map.insert(key, value, 0)
    }

    /// One that is not there is removed already.
    fn remove(&mut self, key: &K) -> Result<(), MapError> {
        absent_is_done(self.map.remove(key))
    }

    fn all(&self) -> std::io::Result<BTreeMap<K, V>> {
        Ok(sys::entries(self.fd.as_fd())?.into_iter().collect())
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

impl Pinned {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            windows: Hash::take(ebpf, "WINDOWS")?,
            agents: Hash::take(ebpf, "AGENTS")?,
            uids: Hash::take(ebpf, "UIDS")?,
            subordinate: typed(ebpf, "SUBUIDS")?,
            endpoints: Some(EndpointMaps {
                v4: typed(ebpf, "ENDPOINTS4")?,
                v6: typed(ebpf, "ENDPOINTS6")?,
            }),
            namespaces: Some(Namespaces(Hash::take(ebpf, "NAMESPACES")?)),
            config: typed(ebpf, "CONFIG")?,
            opening_key: typed(ebpf, "OPENING_KEY")?,
            heartbeat: typed(ebpf, "HEARTBEAT")?,
            counters: typed(ebpf, "COUNTERS")?,
            events: Some(typed(ebpf, "EVENTS")?),
        })
    }

    fn set_config(&mut self, config: Config) -> Result<(), KernelError> {
        self.config
            .set(0, config, 0)
            .map_err(|error| refused("write the map CONFIG")(&error))
    }

    /// Writes who the daemon is. On whom is enforced stays as the daemon before this one left it, unless that was less: the agents are not
    /// known yet, and until they are nobody can be told from one.
    ///
    /// Gives the key under which it is kept what connections say first.
    pub(super) fn begin(
        &mut self,
        config: Config,
        wanted: Enforce,
    ) -> Result<[u64; 2], KernelError> {
        let held = self
            .config
            .get(&0, 0)
            .map_or(ENFORCE_HOST, |held| held.enforce);
        let enforce = match wanted {
            Enforce::Agents if held == ENFORCE_AGENTS => ENFORCE_AGENTS,
            Enforce::Agents | Enforce::Host => ENFORCE_HOST,
        };
        let random = random::bytes::<16>().map_err(|error| refused("make a key")(&error))?;
        let secret = u128::from_ne_bytes(random);
        let secret = [secret as u64, (secret >> 64) as u64];
        self.opening_key
            .set(0, secret, 0)
            .map_err(|error| refused("write the map OPENING_KEY")(&error))?;
        self.set_config(Config { enforce, ..config })?;
        Ok(secret)
    }

    /// The uids that are subordinate to agents' as the kernel has them.
    fn subordinate(&self) -> Result<BTreeSet<Prefix>, MapError> {
        let held = self.subordinate.keys().map(|key| {
            key.map(|key| Prefix {
                first: u32::from_be_bytes(key.data()),
                bits: key.prefix_len(),
            })
        });
        held.collect()
    }

    pub(super) fn take_endpoints(&mut self) -> Result<EndpointMaps, KernelError> {
        self.endpoints
            .take()
            .ok_or_else(|| KernelError::Unsuited("the endpoints are written already".into()))
    }

    pub(super) fn take_namespaces(&mut self) -> Result<Namespaces, KernelError> {
        let mut namespaces = self.namespaces.take().ok_or_else(|| {
            KernelError::Unsuited("the network namespaces are written already".into())
        })?;
        // Nobody listens in those of the daemon before this one.
        namespaces.clear()?;
        Ok(namespaces)
    }

    pub(super) fn take_events(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        self.events
            .take()
            .ok_or_else(|| KernelError::Unsuited("the events are read already".into()))
    }
}

/// What the maps hold, as far as this owner wrote it.
#[derive(Debug)]
struct Written {
    windows: BTreeMap<u64, Window>,
    agents: BTreeMap<u64, Agent>,
    uids: BTreeSet<u32>,
    subordinate: BTreeSet<Prefix>,
    config: Config,
}

/// What is not as it was, one sentence each, by what it is of.
struct Drift {
    programs: Vec<String>,
    pins: Vec<String>,
    hooks: Vec<String>,
    maps: Vec<String>,
}

/// The one writer of the maps.
#[derive(Debug)]
pub struct Kernel {
    pinned: Pinned,
    root: Root,
    links: Vec<Link>,
    maps: Vec<Pin>,
    hooks: Hooks,
    written: Written,
    /// Held while this daemon lives: a second one cannot share the pins.
    _lock: File,
}

impl Kernel {
    /// The owner of what was attached; what the maps hold now is taken for what was written.
    pub(super) fn new(
        pinned: Pinned,
        (root, links, maps): (Root, Vec<Link>, Vec<Pin>),
        hooks: Hooks,
        lock: File,
    ) -> Result<Self, KernelError> {
        let fail = |error: std::io::Error| refused("read the kernel's maps")(&error);
        let config = pinned.config.get(&0, 0);
        let written = Written {
            windows: pinned.windows.all().map_err(fail)?,
            agents: pinned.agents.all().map_err(fail)?,
            uids: pinned.uids.all().map_err(fail)?.into_keys().collect(),
            subordinate: pinned
                .subordinate()
                .map_err(|error| refused("read the kernel's maps")(&error))?,
            config: config.map_err(|error| refused("read the kernel's maps")(&error))?,
        };
        Ok(Self {
            pinned,
            root,
            links,
            maps,
            hooks,
            written,
            _lock: lock,
        })
    }

    /// Opens (or replaces) the window of the agent whose cgroup this is.
    ///
    /// # Errors
    /// When the map is full or cannot be written.
    pub fn open(&mut self, cgroup: u64, window: Window) -> Result<(), KernelError> {
        self.pinned
            .windows
            .insert(cgroup, window)
            .map_err(|error| refused("open a window in the kernel")(&error))?;
        self.written.windows.insert(cgroup, window);
        Ok(())
    }

    /// Closes the window of the agent whose cgroup this is.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn close(&mut self, cgroup: u64) -> Result<(), KernelError> {
        self.pinned
            .windows
            .remove(&cgroup)
            .map_err(|error| refused("close a window in the kernel")(&error))?;
        self.written.windows.remove(&cgroup);
        Ok(())
    }

    /// The windows the kernel holds, past ones included.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn windows(&self) -> Result<BTreeMap<u64, Window>, KernelError> {
        self.pinned
            .windows
            .all()
            .map_err(|error| refused("read the windows in the kernel")(&error))
    }

    /// The agents that the kernel holds.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn agents(&self) -> Result<BTreeMap<u64, Agent>, KernelError> {
        self.pinned
            .agents
            .all()
            .map_err(|error| refused("read the agents in the kernel")(&error))
    }

    /// Makes these the agents, and no others: new ones first, where there is room for both.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_agents(&mut self, agents: &BTreeMap<u64, Agent>) -> Result<(), KernelError> {
        let fail = |error: MapError| refused("write the agents into the kernel")(&error);
        let held = self.agents()?;
        let gone: Vec<u64> = held
            .keys()
            .filter(|cgroup| !agents.contains_key(cgroup))
            .copied()
            .collect();
        let is_crowded = agents.len() + gone.len() > AGENTS_MAX as usize;
        let (before, after) = gone.split_at(if is_crowded { gone.len() } else { 0 });
        for cgroup in before {
            self.pinned.agents.remove(cgroup).map_err(fail)?;
        }
        // Only what is not there: ten thousand agents are not written anew because one unit has restarted.
        for (cgroup, agent) in agents {
            if held.get(cgroup) != Some(agent) {
                self.pinned.agents.insert(*cgroup, *agent).map_err(fail)?;
            }
        }
        for cgroup in after {
            self.pinned.agents.remove(cgroup).map_err(fail)?;
        }
        self.written.agents.clone_from(agents);
        Ok(())
    }

    /// Makes these the uids that agents run as, and no others: who runs as one outside every workload is refused.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_uids(&mut self, uids: &BTreeSet<u32>) -> Result<(), KernelError> {
        let fail = |error: MapError| refused("write the agents' uids into the kernel")(&error);
        let held = self
            .pinned
            .uids
            .all()
            .map_err(|error| refused("read the agents' uids in the kernel")(&error))?;
        for uid in uids.iter().filter(|uid| !held.contains_key(uid)) {
            self.pinned.uids.insert(*uid, 1).map_err(fail)?;
        }
        for uid in held.keys().filter(|uid| !uids.contains(uid)) {
            self.pinned.uids.remove(uid).map_err(fail)?;
        }
        self.written.uids.clone_from(uids);
        Ok(())
    }

    /// The uids that are subordinate to agents', as they were written last.
    #[must_use]
    pub const fn subordinate(&self) -> &BTreeSet<Prefix> {
        &self.written.subordinate
    }

    /// Makes these the uids that are subordinate to agents', and no others: new ones first, where
    /// there is room for both.
    ///
    /// # Errors
    /// When the map is full or cannot be written.
    pub fn set_subordinate(&mut self, prefixes: &BTreeSet<Prefix>) -> Result<(), KernelError> {
        let fail = |error: MapError| {
            refused("write the uids subordinate to agents' into the kernel")(&error)
        };
        let key = |prefix: &Prefix| Key::new(prefix.bits, prefix.first.to_be_bytes());
        let held = self.pinned.subordinate().map_err(fail)?;
        let map = &mut self.pinned.subordinate;
        let is_crowded = held.union(prefixes).count() > SUBUIDS_MAX as usize;
        let gone: Vec<_> = held.difference(prefixes).map(key).collect();
        let (before, after) = gone.split_at(if is_crowded { gone.len() } else { 0 });
        for key in before {
            absent_is_done(map.remove(key)).map_err(fail)?;
        }
        for prefix in prefixes.difference(&held) {
            map.insert(&key(prefix), 1, 0).map_err(fail)?;
        }
        for key in after {
            absent_is_done(map.remove(key)).map_err(fail)?;
        }
        self.written.subordinate.clone_from(prefixes);
        Ok(())
    }

    /// Enforces on these processes from now on. The agents must have been written: whoever is none is then left alone where only they are
    /// enforced on.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn enforce(&mut self, on: Enforce) -> Result<(), KernelError> {
        let held = self
            .pinned
            .config
            .get(&0, 0)
            .map_err(|error| refused("read the map CONFIG")(&error))?;
        let enforce = match on {
            Enforce::Host => ENFORCE_HOST,
            Enforce::Agents => ENFORCE_AGENTS,
        };
        let config = Config { enforce, ..held };
        self.pinned.set_config(config)?;
        self.written.config = config;
        Ok(())
    }

    /// Says that the daemon was alive at `boot_ns`.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn heartbeat(&mut self, boot_ns: u64) -> Result<(), KernelError> {
        self.pinned
            .heartbeat
            .set(0, boot_ns, 0)
            .map_err(|error| refused("tell the kernel that the daemon is alive")(&error))
    }

    /// What was counted on all CPUs since the maps were made.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let all = self
            .pinned
            .counters
            .get(&0, 0)
            .map_err(|error| refused("read the kernel's counters")(&error))?;
        Ok(all.iter().fold(Counters::default(), |sum, cpu| Counters {
            redirected: sum.redirected.saturating_add(cpu.redirected),
            denied: sum.denied.saturating_add(cpu.denied),
            egress_dropped: sum.egress_dropped.saturating_add(cpu.egress_dropped),
            events_lost: sum.events_lost.saturating_add(cpu.events_lost),
        }))
    }

    /// The maps that agents and their windows are written to: what each has, how much, and the most that it has room for.
    fn used(&self) -> [(&'static str, &'static str, usize, u32); 4] {
        let Written {
            windows,
            agents,
            uids,
            subordinate,
            config: _,
        } = &self.written;
        [
            ("AGENTS", "agents' cgroups", agents.len(), AGENTS_MAX),
            ("WINDOWS", "windows", windows.len(), WINDOWS_MAX),
            ("UIDS", "uids", uids.len(), UIDS_MAX),
            (
                "SUBUIDS",
                "ranges subordinate to them",
                subordinate.len(),
                SUBUIDS_MAX,
            ),
        ]
    }

    /// How much room is left in them, as a sentence.
    fn room(&self) -> String {
        let [agents, windows, uids, subordinate] = self
            .used()
            .map(|(_, what, used, most)| format!("{used} of {most} {what}"));
        format!("the kernel's maps hold {agents}, {windows}, {uids} and {subordinate}")
    }

    /// What is not as it was attached and written: one sentence each, empty when all is well.
    #[must_use]
    pub fn drift(&self) -> Vec<String> {
        let Drift {
            programs,
            pins,
            hooks,
            maps,
        } = self.drifted();
        [programs, pins, hooks, maps].concat()
    }

    /// The same, each with what it is of.
    fn drifted(&self) -> Drift {
        let root = (!self.root.is_in_place()).then(|| {
            format!(
                "the cgroup {} that the programs are attached to was removed: restart the daemon",
                self.root.path.display()
            )
        });
        let links = self.links.iter().filter_map(attached);
        Drift {
            programs: root
                .into_iter()
                .chain(links)
                .chain(self.overtaken())
                .collect(),
            pins: self.maps.iter().filter_map(Pin::lost).collect(),
            hooks: self.hooks.drift(),
            maps: self.edited(),
        }
    }

    /// Whether what was attached, pinned and written is as it was, and how much room is left.
    #[must_use]
    pub fn checks(&self) -> Vec<CheckView> {
        let drift = self.drifted();
        let mut maps = drift.maps;
        maps.extend(self.full());
        vec![
            CheckView::of(
                "programs",
                format!(
                    "{} programs are attached at the cgroup root {}",
                    self.links.len(),
                    self.root.path.display()
                ),
                &drift.programs,
            ),
            CheckView::of(
                "pins",
                format!("{} of the kernel's maps are pinned", self.maps.len()),
                &drift.pins,
            ),
            CheckView::of("security hooks", self.hooks.to_string(), &drift.hooks),
            CheckView::of("map use", self.room(), &maps),
        ]
    }

    /// Maps into which nothing more can be written.
    fn full(&self) -> Option<String> {
        let full: Vec<&str> = self
            .used()
            .into_iter()
            .filter(|(_, _, used, most)| {
                u64::try_from(*used).is_ok_and(|used| used >= u64::from(*most))
            })
            .map(|(name, ..)| name)
            .collect();
        (!full.is_empty()).then(|| format!("the kernel's map {} is full", full.join(" and ")))
    }

    /// What of somebody else's runs before ours everywhere.
    #[must_use]
    pub fn overtaken(&self) -> Vec<String> {
        self.ours().overtaken_in(&self.root.path, &Before::new())
    }

    /// The same, as the programs' ids. Where they are not known, none is taken for known: that is said of each workload then.
    #[must_use]
    pub fn before_everywhere(&self) -> Before {
        self.ours().before_in(&self.root.path).unwrap_or_default()
    }

    /// What of ours must run first.
    #[must_use]
    pub fn ours(&self) -> Ours {
        Ours::of(&self.links)
    }

    /// What stands in the maps otherwise than it was written, and which of them cannot be read: those may be, too.
    fn edited(&self) -> Vec<String> {
        let Written {
            windows,
            agents,
            uids,
            subordinate,
            config,
        } = &self.written;
        let maps = &self.pinned;
        compared([
            (
                "WINDOWS",
                causes(maps.windows.all()).map(|now| now == *windows),
            ),
            (
                "AGENTS",
                causes(maps.agents.all()).map(|now| now == *agents),
            ),
            (
                "UIDS",
                causes(maps.uids.all()).map(|now| now.keys().eq(uids)),
            ),
            (
                "SUBUIDS",
                causes(maps.subordinate()).map(|now| now == *subordinate),
            ),
            (
                "CONFIG",
                causes(maps.config.get(&0, 0)).map(|now| now == *config),
            ),
        ])
    }
}

fn causes<T, E: std::error::Error + 'static>(read: Result<T, E>) -> Result<T, String> {
    read.map_err(|error| Causes(&error).to_string())
}

/// What is wrong with maps, of each of which is said whether it is as it was written, or why it cannot be read.
fn compared<const N: usize>(maps: [(&str, Result<bool, String>); N]) -> Vec<String> {
    let mut edited = Vec::new();
    let mut problems = Vec::new();
    for (name, is_same) in maps {
        match is_same {
            Ok(true) => {}
            Ok(false) => edited.push(name),
            Err(error) => problems.push(format!(
                "the kernel's map {name} cannot be read, so whether somebody else wrote it is not known: {error}"
            )),
        }
    }
    if !edited.is_empty() {
        problems.push(format!(
            "somebody else wrote the kernel's map {}: find out who, and restart the daemon",
            edited.join(" and ")
        ));
    }
    problems
}

/// Whether a program is attached as it was.
fn attached(link: &Link) -> Option<String> {
    match behind(&link.pin) {
        Ok(now) if now == link.behind => None,
        Ok(now) if now.cgroup != link.behind.cgroup => Some(format!(
            "{} is not attached to the cgroup root any more",
            link.name
        )),
        Ok(now) => Some(format!(
            "program {} stands behind {} instead of ours: somebody replaced it",
            now.program, link.name
        )),
        Err(error) => Some(format!(
            "the link of {} is gone: {}",
            link.name,
            Causes(&error)
        )),
    }
}

/// In which network namespaces the daemon listens besides its own. One writer: whoever listens there.
pub struct Namespaces(Hash<u64, u32>);

impl std::fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespaces").finish_non_exhaustive()
    }
}

impl Namespaces {
    /// From now on agents are led to the daemon in the namespace with this cookie. It must listen there.
    ///
    /// # Errors
    /// When the map is full, or cannot be written.
    pub fn add(&mut self, cookie: u64) -> Result<(), KernelError> {
        let fail = |error: MapError| refused("write the map NAMESPACES")(&error);
        self.0.insert(cookie, 1).map_err(fail)
    }

    /// From now on nobody is.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn remove(&mut self, cookie: u64) -> Result<(), KernelError> {
        let fail = |error: MapError| refused("write the map NAMESPACES")(&error);
        self.0.remove(&cookie).map_err(fail)
    }

    fn clear(&mut self) -> Result<(), KernelError> {
        let held = self.0.all();
        for cookie in held.map_err(io("read the map NAMESPACES"))?.into_keys() {
            self.remove(cookie)?;
        }
        Ok(())
    }
}

/// The protected addresses in the kernel. One writer: whoever keeps them true to their names.
pub struct EndpointMaps {
    v4: LpmTrie<MapData, [u8; 4], Endpoint>,
    v6: LpmTrie<MapData, [u8; 16], Endpoint>,
}

impl std::fmt::Debug for EndpointMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointMaps").finish_non_exhaustive()
    }
}

impl EndpointMaps {
    /// The prefixes that are protected now: after a restart, by the daemon before this one.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn held(&self) -> Result<BTreeMap<IpNet, AddressClass>, KernelError> {
        let read = self.read()?.into_iter();
        Ok(read.map(|(net, class)| (net, class_of(class))).collect())
    }

    /// The same, with their classes' numbers.
    fn read(&self) -> Result<BTreeMap<IpNet, u32>, KernelError> {
        let read4 = self.v4.iter().map(|entry| {
            entry.map(|(key, endpoint)| (IpAddr::from(key.data()), key.prefix_len(), endpoint))
        });
        let read6 = self.v6.iter().map(|entry| {
            entry.map(|(key, endpoint)| (IpAddr::from(key.data()), key.prefix_len(), endpoint))
        });
        let read: Vec<_> = read4
            .chain(read6)
            .collect::<Result<_, MapError>>()
            .map_err(|error| refused("read the protected addresses in the kernel")(&error))?;
        let named = read.into_iter().filter_map(|(address, length, endpoint)| {
            Some((network(address, length)?, endpoint.class))
        });
        Ok(named.collect())
    }

    /// Makes these the protected prefixes, and no others: new ones first, so that nothing is ever unprotected in between. Where there is no room for
    /// both, what is not to be protected goes first.
    ///
    /// # Errors
    /// When a map is full or cannot be written; what was protected before, and is to be, still is.
    pub fn set(&mut self, endpoints: &BTreeMap<IpNet, AddressClass>) -> Result<(), KernelError> {
        let fail =
            |error: MapError| refused("write the protected addresses into the kernel")(&error);
        let held = self.read()?;
        let is_gone = |net: &&IpNet| !endpoints.contains_key(*net);
        let gone: Vec<IpNet> = held.keys().filter(is_gone).copied().collect();
        let (before, after) = gone.split_at(if is_crowded(&held, endpoints) {
            gone.len()
        } else {
            0
        });
        for net in before {
            self.remove(*net).map_err(fail)?;
        }
        for (net, class) in endpoints {
            let class = number_of(*class);
            // Only what is not there: before 6.13 a full map does not even take what it has.
            if held.get(net) != Some(&class) {
                self.insert(*net, Endpoint { class }).map_err(fail)?;
            }
        }
        for net in after {
            self.remove(*net).map_err(fail)?;
        }
        Ok(())
    }

    fn insert(&mut self, net: IpNet, endpoint: Endpoint) -> Result<(), MapError> {
        match net {
            IpNet::V4(net) => self.v4.insert(&key4(net), endpoint, 0),
            IpNet::V6(net) => self.v6.insert(&key6(net), endpoint, 0),
        }
    }

    fn remove(&mut self, net: IpNet) -> Result<(), MapError> {
        absent_is_done(match net {
            IpNet::V4(net) => self.v4.remove(&key4(net)),
            IpNet::V6(net) => self.v6.remove(&key6(net)),
        })
    }
}

/// Whether one of the maps has no room for what it holds and what is to come.
fn is_crowded(held: &BTreeMap<IpNet, u32>, coming: &BTreeMap<IpNet, AddressClass>) -> bool {
    let new = coming.keys().filter(|net| !held.contains_key(*net));
    let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) = held
        .keys()
        .chain(new)
        .partition(|net| matches!(net, IpNet::V4(_)));
    v4.len().max(v6.len()) > ENDPOINTS_MAX as usize
}

const fn number_of(class: AddressClass) -> u32 {
    match class {
        AddressClass::Dedicated => CLASS_DEDICATED,
        AddressClass::Shared => CLASS_SHARED,
        AddressClass::Metadata => CLASS_METADATA,
    }
}

fn network(address: IpAddr, length: u32) -> Option<IpNet> {
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}

/// A class that is not known is looked at more closely.
const fn class_of(class: u32) -> AddressClass {
    match class {
        CLASS_DEDICATED => AddressClass::Dedicated,
        CLASS_METADATA => AddressClass::Metadata,
        _ => AddressClass::Shared,
    }
}

pub(super) fn absent_is_done(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn key4(net: ipnet::Ipv4Net) -> Key<[u8; 4]> {
    Key::new(u32::from(net.prefix_len()), net.network().octets())
}

fn key6(net: ipnet::Ipv6Net) -> Key<[u8; 16]> {
    Key::new(u32::from(net.prefix_len()), net.network().octets())
}

/// Asks where a connection or a datagram wanted to go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origins {
    connections: Arc<OwnedFd>,
    datagrams: Arc<HashMap<MapData, PortKey, Origin>>,
    openings: Arc<Mutex<HashMap<MapData, OpeningKey, Opening>>>,
    /// Under which what was said first is kept.
    secret: [u64; 2],
}

impl Origins {
    pub(super) fn open(maps: &Path, secret: [u64; 2]) -> Result<Self, KernelError> {
        let connections = sys::open_pin(&maps.join(ACCEPTED))
            .map_err(|error| refused(format!("open the map {ACCEPTED}"))(&error))?;
        Ok(Self {
            connections: Arc::new(connections),
            datagrams: Arc::new(opened(maps, ASKERS)?),
            openings: Arc::new(Mutex::new(opened(maps, OPENINGS)?)),
            secret,
        })
    }

    /// What the socket at the other end of a connection, whose origin this is, has said first as it left it, beside what came; `None` where that is not known
    /// any more.
    #[must_use]
    pub fn has_said(&self, origin: &Origin, client_port: u16, came: &[u8]) -> Option<Said> {
        let key = OpeningKey::of(origin, client_port);
        let openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let opening = openings.get(&key, 0).ok()?;
        drop(openings);
        Some(opening.beside(self.secret, came))
    }

    /// Lets go of what a socket has said first: it is not asked about any more.
    pub fn forget_said(&self, origin: &Origin, client_port: u16) {
        let key = OpeningKey::of(origin, client_port);
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = openings.remove(&key);
    }

    /// The origin of a connection that the daemon has accepted; `None` where it was not led here by the kernel. The kernel has left it with
    /// this very socket before the daemon was told of the connection.
    #[must_use]
    pub fn of_connection(&self, accepted: BorrowedFd<'_>) -> Option<Origin> {
        sys::look_up_socket(self.connections.as_fd(), accepted).ok()
    }

    /// The origin of the last datagram from `peer` in the network namespace `netns` to a port of the daemon's; `None` where none was led here by
    /// the kernel, or too many others were since. An earlier one need not be the same process's, or agent's.
    #[must_use]
    pub fn of_datagram(&self, peer: SocketAddr, netns: u64, server_port: u16) -> Option<Origin> {
        let client = match peer.ip() {
            IpAddr::V4(ip) => mapped(ip.octets()),
            IpAddr::V6(ip) => ip.octets(),
        };
        let key = PortKey {
            netns,
            client,
            client_port: u32::from(peer.port()),
            server_port: u32::from(server_port),
        };
        self.datagrams.get(&key, 0).ok()
    }
}

fn opened<K: Pod, V: Pod>(maps: &Path, file: &str) -> Result<HashMap<MapData, K, V>, KernelError> {
    let fail = |error: MapError| refused(format!("open the map {file}"))(&error);
    let data = MapData::from_pin(maps.join(file)).map_err(fail)?;
    let map = Map::from_map_data(data).map_err(fail)?;
    HashMap::try_from(map).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::compared;

    #[test]
    fn a_map_that_cannot_be_read_is_not_taken_for_what_was_written() {
        let unreadable = || Err("EMFILE".to_owned());
        assert!(compared([("A", Ok(true)), ("B", Ok(true))]).is_empty());
        let said = compared([("A", Ok(false)), ("B", unreadable()), ("C", Ok(false))]);
        assert!(
            said.len() == 2
                && said[0].contains("map B cannot be read")
                && said[1].contains("wrote the kernel's map A and C"),
            "{said:?}"
        );
    }
}
