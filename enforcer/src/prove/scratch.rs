//! The far end of the proof: a wire into a network namespace that leads nowhere, a sniffer on it, and a cgroup to try from. Nothing answers
//! there, and all of it is gone with the process.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::Wire;
use super::canary;
use super::path::Spelling;
use crate::kernel::{Framing, Interface};
use crate::loopback;
use crate::workload;

/// The name of the near end; the process id follows.
const NEAR: &str = "enfprove";
/// The same of the wire of the namespace apart.
const APART: &str = "enfapart";
/// The name of the cgroup, below the root that is enforced; the process id follows.
const CGROUP: &str = "enforcer-prove-";
/// Every protocol, in network order.
const ETH_P_ALL: i32 = 0x0003_u16.to_be() as i32;

/// The scratch wire, its sniffer and the scratch cgroup.
pub(super) struct Scratch {
    cgroup: PathBuf,
    near: String,
    index: u32,
    sniffer: Socket,
    has_ipv6: bool,
    /// A network namespace with a wire of its own to the far end; absent, and why, where none could be made.
    apart: Result<OwnedFd, String>,
    /// The namespace lives as long as this; the wire goes with it.
    _far: OwnedFd,
}

impl Scratch {
    pub(super) async fn new(cgroup_root: &Path) -> Result<Self> {
        remove_leftovers(cgroup_root);
        let cgroup = cgroup_root.join(format!("{CGROUP}{}", std::process::id()));
        workload::make(&cgroup)
            .with_context(|| format!("making the cgroup {}", cgroup.display()))?;
        let near = format!("{NEAR}{}", std::process::id() % 1_000_000);
        let far = new_netns().context("making a network namespace")?;
        let made = wire(&near, &far).await;
        let Laid { index, has_ipv6 } = made.inspect_err(|_| drop(std::fs::remove_dir(&cgroup)))?;
        let sniffer = sniffer(&far).context("opening the sniffer")?;
        let apart = apart(&far).await;
        Ok(Self {
            cgroup,
            near,
            index,
            sniffer,
            has_ipv6,
            apart: apart.map_err(|error| format!("{error:#}")),
            _far: far,
        })
    }

    /// Takes the wire away, and its routes with it, before the proof ends. The namespace would take them along, but only when the kernel
    /// comes to it: a proof that begins meanwhile would find its routes taken.
    pub(super) async fn cut(self) {
        if let Err(error) = cut(self.index).await {
            tracing::warn!(%error, "the scratch wire is left to go with its namespace");
        }
    }

    /// Whether the wire has IPv6: where the host has it switched off, it has not.
    pub(super) const fn has_ipv6(&self) -> bool {
        self.has_ipv6
    }

    /// The wire, for the ways that name it.
    pub(super) fn wire(&self) -> Wire {
        Wire {
            name: self.near.clone(),
            index: self.index,
            near: [canary::NEAR4.into(), canary::NEAR6.into()],
            framing: Framing::Ethernet,
        }
    }

    /// The host's own interfaces that lead out.
    pub(super) async fn others(&self) -> Result<Vec<Interface>> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        connection.abort();
        let others = links.iter().filter_map(Interface::that_leads_out);
        Ok(others.filter(|other| other.index != self.index).collect())
    }

    /// Where a process is written to enter the cgroup.
    pub(super) fn procs(&self) -> Result<File> {
        procs(&self.cgroup)
    }

    /// The network namespace that has a wire of its own.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn apart(&self) -> Result<OwnedFd> {
        match &self.apart {
            Ok(namespace) => Ok(namespace.try_clone()?),
            Err(why) => Err(anyhow!("{why}")),
        }
    }

    /// Where a process is written to enter the cgroup above.
    pub(super) fn procs_above(&self) -> Result<File> {
        procs(self.cgroup.parent().unwrap_or(&self.cgroup))
    }

    /// Forgets what arrived before: it does not count for what is tried next.
    pub(super) fn forget(&self) {
        let mut frame = [0; 2048];
        while rustix::io::read(&self.sniffer, &mut frame).is_ok() {}
    }

    /// How many packets for the address arrived since.
    pub(super) fn arrived(&self, address: IpAddr) -> u64 {
        let mut frame = [0; 2048];
        let mut seen = 0;
        while let Ok(length) = rustix::io::read(&self.sniffer, &mut frame) {
            seen += u64::from(concerns(&frame[..length], address));
        }
        seen
    }
}

/// Where a process is written to enter a cgroup.
pub(super) fn procs(cgroup: &Path) -> Result<File> {
    let path = cgroup.join("cgroup.procs");
    File::options()
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Its processes have ended; the kernel may take a moment to believe it.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        tracing::warn!(cgroup = %self.cgroup.display(), "the scratch cgroup could not be removed");
    }
}

/// What a proof that was killed left behind: cgroups that nobody is in.
fn remove_leftovers(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(CGROUP) {
            // One that is in use is not removed by the kernel.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Whether a frame is for the address, or names it as where it goes on to: what a source route and a routing header do.
fn concerns(frame: &[u8], address: IpAddr) -> bool {
    let mut at = 12;
    // VLAN tags stand before the type of what is in the frame.
    while frame
        .get(at..at + 2)
        .is_some_and(|kind| kind == [0x81, 0x00] || kind == [0x88, 0xa8])
    {
        at += 4;
    }
    let Some((kind, packet)) = frame.get(at..).and_then(|rest| rest.split_at_checked(2)) else {
        return false;
    };
    match address {
        IpAddr::V4(ip) => {
            let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
            let destinations = packet.get(16..header.max(20)).unwrap_or_default();
            kind == [0x08, 0x00] && destinations.windows(4).any(|octets| octets == ip.octets())
        }
        IpAddr::V6(ip) => {
            let is_routed = packet.get(6) == Some(&43);
            let end = if is_routed { 64 } else { 40 };
            let destinations = packet.get(24..end).unwrap_or_default();
            kind == [0x86, 0xdd] && destinations.windows(16).any(|octets| octets == ip.octets())
        }
    }
}

/// A new network namespace, held by its descriptor alone.
fn new_netns() -> io::Result<OwnedFd> {
    on_a_thread(|| {
        #[expect(
            unsafe_code,
            reason = "unsharing is unsafe where threads share what is unshared; a network namespace is a thread's own"
        )]
        // SAFETY: only this thread moves, and it ends at once.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

fn sniffer(far: &OwnedFd) -> io::Result<Socket> {
    on_a_thread(|| {
        move_into_link_name_space(far.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ALL)))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let done = scope.spawn(work).join();
        done.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// Lays the wire: a veth whose far end is in the namespace, and routes to the canaries and the open addresses, in every spelling. Without
/// ARP, so that nobody has to answer.
async fn wire(near: &str, far: &OwnedFd) -> Result<Laid> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening netlink")?;
    let task = tokio::spawn(connection);
    let laid = lay(&handle, near, far).await;
    task.abort();
    laid
}

async fn cut(index: u32) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening netlink")?;
    let task = tokio::spawn(connection);
    let done = handle.link().del(index).execute().await;
    task.abort();
    done.context("removing the scratch wire")
}

/// Another namespace, with a wire of the same kind to the same far end.
async fn apart(far: &OwnedFd) -> Result<OwnedFd> {
    let (apart, far) = (
        new_netns().context("making a network namespace")?,
        far.try_clone()?,
    );
    let inside = apart.try_clone()?;
    let name = format!("{APART}{}", std::process::id() % 1_000_000);
    let lay = move || -> Result<()> {
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(wire(&name, &far)).map(drop)
    };
    let done = tokio::task::spawn_blocking(move || std::thread::spawn(lay).join()).await?;
    done.map_err(|_| anyhow!("a thread panicked"))??;
    Ok(apart)
}

/// The near end's index, and whether it could be given an address of IPv6's.
struct Laid {
    index: u32,
    has_ipv6: bool,
}

async fn lay(handle: &Handle, near: &str, far: &OwnedFd) -> Result<Laid> {
    let far_name = format!("{near}f");
    let pair = LinkVeth::new(near, &far_name).build();
    let made = handle.link().add(pair).execute().await;
    made.with_context(|| format!("making the interface {near}"))?;
    let (near_index, far_index) = (index_of(near)?, index_of(&far_name)?);
    let moved = LinkUnspec::new_with_index(far_index)
        .setns_by_fd(far.as_raw_fd())
        .build();
    handle
        .link()
        .set(moved)
        .execute()
        .await
        .context("moving the wire's far end")?;
    up_far(far, far_name).await?;
    let up = LinkUnspec::new_with_index(near_index)
        .arp(false)
        .up()
        .build();
    handle
        .link()
        .set(up)
        .execute()
        .await
        .context("setting the wire up")?;
    let mut has_ipv6 = true;
    for near in [IpAddr::from(canary::NEAR4), canary::NEAR6.into()] {
        let length = if near.is_ipv4() { 32 } else { 128 };
        let added = handle
            .address()
            .add(near_index, near, length)
            .execute()
            .await;
        if added.is_err() && near.is_ipv6() && !loopback::has_ipv6() {
            has_ipv6 = false;
            continue;
        }
        added.with_context(|| format!("giving the wire the address {near}"))?;
    }
    let is_had = |to: &IpAddr| has_ipv6 || to.is_ipv4();
    for to in destinations().into_iter().filter(is_had) {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, if to.is_ipv4() { 32 } else { 128 })?
            .output_interface(near_index)
            .scope(RouteScope::Link)
            .build();
        let added = handle.route().add(route).execute().await;
        added.with_context(|| {
            format!("leading {to} to the scratch wire (does another `enforcer prove` run here?)")
        })?;
    }
    Ok(Laid {
        index: near_index,
        has_ipv6,
    })
}

/// Everything that a way could be tried toward.
fn destinations() -> Vec<IpAddr> {
    let v4 = [canary::CANARY4, canary::OPEN4, canary::ELSEWHERE4];
    let v6 = [canary::CANARY6, canary::OPEN6, canary::ELSEWHERE6];
    let spelled = v4
        .into_iter()
        .flat_map(Spelling::on_the_wire)
        .map(IpAddr::from);
    v4.map(IpAddr::from)
        .into_iter()
        .chain(v6.map(IpAddr::from))
        .chain(spelled)
        .collect()
}

/// Sets the far end up, from inside its namespace.
async fn up_far(far: &OwnedFd, name: String) -> Result<()> {
    let far = far.try_clone()?;
    let up = move || -> Result<()> {
        move_into_link_name_space(far.as_fd(), Some(LinkNameSpaceType::Network))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            let up = LinkUnspec::new_with_name(&name).up().build();
            handle
                .link()
                .set(up)
                .execute()
                .await
                .context("setting the wire's far end up")
        })
    };
    let done = tokio::task::spawn_blocking(move || std::thread::spawn(up).join()).await?;
    done.map_err(|_| anyhow!("a thread panicked"))?
}

fn index_of(name: &str) -> Result<u32> {
    rustix::net::netdevice::name_to_index(
        rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?,
        name,
    )
    .with_context(|| format!("finding the interface {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &kind, packet].concat()
    }

    #[test]
    fn a_frame_concerns_where_it_goes_and_where_it_goes_on_to_but_not_where_it_is_from() {
        let (from, hop, to) = ([192, 0, 2, 65], [192, 0, 2, 68], [192, 0, 2, 66]);
        let head =
            |words: u8| [&[0x40 | words, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &from].concat();
        let plain = [head(5), to.to_vec()].concat();
        let routed = [head(7), hop.to_vec(), vec![1, 131, 7, 4], to.to_vec()].concat();
        let to = IpAddr::from(to);
        assert!(concerns(&frame([8, 0], &plain), to));
        assert!(concerns(&frame([8, 0], &routed), to));
        assert!(!concerns(&frame([8, 0], &plain), from.into()));
        let tagged = [&[0; 12][..], &[0x81, 0, 0, 7, 8, 0], &plain].concat();
        assert!(concerns(&tagged, to));
        assert!(!concerns(&frame([8, 6], &plain), to));
        assert!(!concerns(&[], to));
    }
}
