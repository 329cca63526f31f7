//! The maps, typed. Writes come from one owner; origins are read by every accepted connection through handles of their own.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use enforcer_ebpf::address::mapped;
use enforcer_ebpf::map::{
    CLASS_DEDICATED, CLASS_METADATA, CLASS_SHARED, ENFORCE_AGENTS, ENFORCE_HOST,
};
use enforcer_ebpf::{Agent, Config, Counters, Endpoint, Origin, PortKey, Window};
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;

use super::hooks::Hooks;
use super::load::{ASKERS, Link, ORIGINS, Root, behind};
use super::{KernelError, refused};
use crate::causes::Causes;
use crate::config::AddressClass;

/// The maps that the daemon writes, as the loader left them.
pub(super) struct Pinned {
    windows: HashMap<MapData, u64, Window>,
    agents: HashMap<MapData, u64, Agent>,
    endpoints: Option<EndpointMaps>,
    config: Array<MapData, Config>,
    heartbeat: Array<MapData, u64>,
    counters: PerCpuArray<MapData, Counters>,
    events: Option<RingBuf<MapData>>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

impl Pinned {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        fn typed<T: TryFrom<Map, Error = MapError>>(
            ebpf: &mut Ebpf,
            name: &str,
        ) -> Result<T, KernelError> {
            let map = ebpf.take_map(name).ok_or_else(|| {
                KernelError::Unsuited(format!("the kernel object has no map {name}"))
            })?;
            T::try_from(map).map_err(|error| refused(format!("open the map {name}"))(&error))
        }
        Ok(Self {
            windows: typed(ebpf, "WINDOWS")?,
            agents: typed(ebpf, "AGENTS")?,
            endpoints: Some(EndpointMaps {
                v4: typed(ebpf, "ENDPOINTS4")?,
                v6: typed(ebpf, "ENDPOINTS6")?,
            }),
            config: typed(ebpf, "CONFIG")?,
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
    pub(super) fn begin(&mut self, config: Config, wanted: Enforce) -> Result<(), KernelError> {
        let held = self
            .config
            .get(&0, 0)
            .map_or(ENFORCE_HOST, |held| held.enforce);
        let enforce = match wanted {
            Enforce::Agents if held == ENFORCE_AGENTS => ENFORCE_AGENTS,
            Enforce::Agents | Enforce::Host => ENFORCE_HOST,
        };
        self.set_config(Config { enforce, ..config })
    }

    pub(super) fn take_endpoints(&mut self) -> Result<EndpointMaps, KernelError> {
        self.endpoints
            .take()
            .ok_or_else(|| KernelError::Unsuited("the endpoints are written already".into()))
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
    config: Config,
}

/// The one writer of the maps.
#[derive(Debug)]
pub struct Kernel {
    pinned: Pinned,
    root: Root,
    links: Vec<Link>,
    hooks: Hooks,
    written: Written,
    /// Held while this daemon lives: a second one cannot share the pins.
    _lock: File,
}

impl Kernel {
    /// The owner of what was attached; what the maps hold now is taken for what was written.
    pub(super) fn new(
        pinned: Pinned,
        root: Root,
        links: Vec<Link>,
        hooks: Hooks,
        lock: File,
    ) -> Result<Self, KernelError> {
        let fail = |error: MapError| refused("read the kernel's maps")(&error);
        let written = Written {
            windows: pinned
                .windows
                .iter()
                .collect::<Result<_, _>>()
                .map_err(fail)?,
            agents: pinned
                .agents
                .iter()
                .collect::<Result<_, _>>()
                .map_err(fail)?,
            config: pinned.config.get(&0, 0).map_err(fail)?,
        };
        Ok(Self {
            pinned,
            root,
            links,
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
            .insert(cgroup, window, 0)
            .map_err(|error| refused("open a window in the kernel")(&error))?;
        self.written.windows.insert(cgroup, window);
        Ok(())
    }

    /// Closes the window of the agent whose cgroup this is.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn close(&mut self, cgroup: u64) -> Result<(), KernelError> {
        absent_is_done(self.pinned.windows.remove(&cgroup))
            .map_err(|error| refused("close a window in the kernel")(&error))?;
        self.written.windows.remove(&cgroup);
        Ok(())
    }

    /// The windows the kernel holds, past ones included.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn windows(&self) -> Result<BTreeMap<u64, Window>, KernelError> {
        let read: Result<_, _> = self.pinned.windows.iter().collect();
        read.map_err(|error: MapError| refused("read the windows in the kernel")(&error))
    }

    /// Makes these the agents, and no others.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_agents(&mut self, agents: &BTreeMap<u64, Agent>) -> Result<(), KernelError> {
        let fail = |error: MapError| refused("write the agents into the kernel")(&error);
        for (cgroup, agent) in agents {
            self.pinned.agents.insert(cgroup, agent, 0).map_err(fail)?;
        }
        let held: Vec<u64> = self
            .pinned
            .agents
            .keys()
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        for cgroup in held.iter().filter(|cgroup| !agents.contains_key(cgroup)) {
            absent_is_done(self.pinned.agents.remove(cgroup)).map_err(fail)?;
        }
        self.written.agents.clone_from(agents);
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

    /// What stands at the kernel's security hooks, or why nothing does.
    #[must_use]
    pub fn hooks(&self) -> String {
        self.hooks.to_string()
    }

    /// What is not as it was attached and written: one sentence each, empty when all is well.
    #[must_use]
    pub fn drift(&self) -> Vec<String> {
        let root = (!self.root.is_in_place()).then(|| {
            format!(
                "the cgroup {} that the programs are attached to was removed: restart the daemon",
                self.root.path.display()
            )
        });
        let links = self.links.iter();
        root.into_iter()
            .chain(links.clone().filter_map(attached))
            .chain(links.filter_map(|link| self.overtaken(link)))
            .chain(self.hooks.drift())
            .chain(self.edited())
            .collect()
    }

    /// Whether somebody else's program runs before ours: it could hide from ours where a socket goes.
    fn overtaken(&self, link: &Link) -> Option<String> {
        let ids = self.root.programs_at(link.attach_type).ok()?;
        let ours = ids.iter().position(|id| *id == link.behind.program)?;
        let before = ids[..ours].iter().map(ToString::to_string);
        let before: Vec<String> = before.collect();
        (!before.is_empty()).then(|| {
            format!(
                "before {} runs program {} of somebody else's, and could hide from it what is protected: detach it (bpftool cgroup), or restart it after the daemon",
                link.name,
                before.join(", ")
            )
        })
    }

    /// What stands in the maps otherwise than it was written.
    fn edited(&self) -> Option<String> {
        let agents: Result<BTreeMap<u64, Agent>, MapError> = self.pinned.agents.iter().collect();
        let mut edited = Vec::new();
        if self.windows().is_ok_and(|now| now != self.written.windows) {
            edited.push("WINDOWS");
        }
        if agents.is_ok_and(|now| now != self.written.agents) {
            edited.push("AGENTS");
        }
        if self
            .pinned
            .config
            .get(&0, 0)
            .is_ok_and(|now| now != self.written.config)
        {
            edited.push("CONFIG");
        }
        (!edited.is_empty()).then(|| {
            format!(
                "somebody else wrote the kernel's map {}: find out who, and restart the daemon",
                edited.join(" and ")
            )
        })
    }
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
            Some((network(address, length)?, class_of(endpoint)))
        });
        Ok(named.collect())
    }

    /// Makes these the protected prefixes, and no others: new ones first, so that nothing is ever unprotected in between.
    ///
    /// # Errors
    /// When a map is full or cannot be written; what was protected before still is.
    pub fn set(&mut self, endpoints: &BTreeMap<IpNet, AddressClass>) -> Result<(), KernelError> {
        let fail =
            |error: MapError| refused("write the protected addresses into the kernel")(&error);
        for (net, class) in endpoints {
            let class = match class {
                AddressClass::Dedicated => CLASS_DEDICATED,
                AddressClass::Shared => CLASS_SHARED,
                AddressClass::Metadata => CLASS_METADATA,
            };
            match net {
                IpNet::V4(net) => self
                    .v4
                    .insert(&key4(*net), Endpoint { class }, 0)
                    .map_err(fail)?,
                IpNet::V6(net) => self
                    .v6
                    .insert(&key6(*net), Endpoint { class }, 0)
                    .map_err(fail)?,
            }
        }
        let held4: Vec<_> = self.v4.keys().collect::<Result<_, _>>().map_err(fail)?;
        let held6: Vec<_> = self.v6.keys().collect::<Result<_, _>>().map_err(fail)?;
        let is_gone = |address: IpAddr, length: u32| {
            network(address, length).is_none_or(|net| !endpoints.contains_key(&net))
        };
        for key in held4
            .iter()
            .filter(|key| is_gone(IpAddr::from(key.data()), key.prefix_len()))
        {
            absent_is_done(self.v4.remove(key)).map_err(fail)?;
        }
        for key in held6
            .iter()
            .filter(|key| is_gone(IpAddr::from(key.data()), key.prefix_len()))
        {
            absent_is_done(self.v6.remove(key)).map_err(fail)?;
        }
        Ok(())
    }
}

fn network(address: IpAddr, length: u32) -> Option<IpNet> {
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}

/// A class that is not known is looked at more closely.
const fn class_of(endpoint: Endpoint) -> AddressClass {
    match endpoint.class {
        CLASS_DEDICATED => AddressClass::Dedicated,
        CLASS_METADATA => AddressClass::Metadata,
        _ => AddressClass::Shared,
    }
}

fn absent_is_done(removed: Result<(), MapError>) -> Result<(), MapError> {
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

/// How something came to a port of the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// As a connection.
    Tcp,
    /// As a datagram.
    Udp,
}

/// Asks where a connection or a datagram wanted to go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origins {
    connections: Arc<HashMap<MapData, PortKey, Origin>>,
    datagrams: Arc<HashMap<MapData, PortKey, Origin>>,
}

impl Origins {
    pub(super) fn open(maps: &Path) -> Result<Self, KernelError> {
        let open = |file: &str| {
            let fail = |error: MapError| refused(format!("open the map {file}"))(&error);
            let data = MapData::from_pin(maps.join(file)).map_err(fail)?;
            let map = Map::from_map_data(data).map_err(fail)?;
            Ok(Arc::new(HashMap::try_from(map).map_err(fail)?))
        };
        Ok(Self {
            connections: open(ORIGINS)?,
            datagrams: open(ASKERS)?,
        })
    }

    /// The origin of what came from `peer` in the network namespace `netns` to a port of the daemon's; `None` where it was not led here by
    /// the kernel.
    #[must_use]
    pub fn origin(
        &self,
        transport: Transport,
        peer: SocketAddr,
        netns: u64,
        server_port: u16,
    ) -> Option<Origin> {
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
        let origins = match transport {
            Transport::Tcp => &self.connections,
            Transport::Udp => &self.datagrams,
        };
        origins.get(&key, 0).ok()
    }
}
