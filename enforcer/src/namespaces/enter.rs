//! Binds the daemon's ports in another network namespace: a thread of its own enters it, binds, and ends. Nothing of the daemon's stays there but the
//! sockets, which it has from then on as it has those of its own. A listening socket keeps its namespace alive.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use super::interfaces::has_only_a_loopback;
use super::{Door, Netns, owner};
use crate::kernel::Ports;
use crate::listeners::{Sockets, Unbound};
use crate::loopback;
use crate::sockopt::is_loopback_up;
use crate::workload;

/// Why the daemon does not listen there; the text names the cure.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// It has gone, with the process.
    #[error("the namespace has gone")]
    Gone,
    /// The kernel did not let the daemon in.
    #[error(
        "the daemon may not enter it: run the daemon as root of this host, with CAP_SYS_ADMIN and CAP_SYS_PTRACE"
    )]
    NotPermitted,
    /// Its loopback is down.
    #[error(
        "its loopback is down, so nothing can be led to the daemon there: have the sandbox set it up (ip link set lo up)"
    )]
    LoopbackDown,
    /// Its loopback is up, and has no address.
    #[error(
        "its loopback has no 127.0.0.1 any more, so nothing can be led to the daemon there: have the sandbox put it back (ip addr add 127.0.0.1/8 dev lo)"
    )]
    NoAddress,
    /// Its loopback is called otherwise.
    #[error(
        "its loopback is not called lo any more, so that it cannot be told whether it is up: have the sandbox call it so again (ip link set NAME name lo)"
    )]
    Renamed,
    /// Its own rules or routes refuse what is sent to 127.0.0.1.
    #[error(
        "its own routes or rules keep what is sent to 127.0.0.1 from there, so nothing can be led to the daemon: take those away (ip rule, ip route show table all)"
    )]
    NotLed,
    /// Somebody there has one of the daemon's ports.
    #[error(
        "somebody in it listens on {0}, which is the daemon's: end that, or name another port in the configuration"
    )]
    PortTaken(String),
    /// Anything else.
    #[error("the daemon cannot listen in it: {0}")]
    Other(String),
}

/// Binds the daemon's ports in the network namespace that a thread is in, where that is `netns`. Takes as long as a thread takes to start; waits
/// for nobody.
///
/// # Errors
/// [`EnterError`]; nothing is bound then.
pub fn enter(door: Door, netns: Netns, ports: Ports) -> Result<Sockets, EnterError> {
    let namespace = open(door, netns)?;
    // One of which it is not known is nobody's who may be given more.
    let is_anothers = !owner::is_this_hosts(namespace.as_fd()).unwrap_or(false);
    inside(&namespace, || {
        check_loopback()?;
        let bound = Sockets::bind(ports).map_err(|unbound| of_bind(&unbound))?;
        Ok(Sockets {
            is_strict: is_anothers || has_only_a_loopback(),
            ..bound
        })
    })
}

/// Looks into the network namespace that a thread is in, where that is `netns`: whether agents can still be led to the daemon there by 127.0.0.1, and, where
/// they can, by ::1. Waits for nobody, nor for who changes interfaces.
///
/// # Errors
/// [`EnterError`]: they cannot, or that could not be found out.
pub fn has_ipv6(door: Door, netns: Netns) -> Result<bool, EnterError> {
    inside(&open(door, netns)?, || {
        check_loopback()?;
        Ok(loopback::has_ipv6())
    })
}

/// Does something on a thread of its own, which is in that namespace and ends.
fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, EnterError> + Send,
) -> Result<T, EnterError> {
    let done = std::thread::scope(|scope| {
        let work = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| not_entered(&errno.into()))?;
            work()
        };
        let thread = std::thread::Builder::new().name("namespace".to_owned());
        let started = thread.spawn_scoped(scope, work);
        started.map(|thread| thread.join())
    });
    match done {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(EnterError::Other("its thread panicked".to_owned())),
        Err(error) => Err(EnterError::Other(format!("no thread: {error}"))),
    }
}

/// Opens the namespace by the thread. What is open is what was seen: the file is looked at, and not its path again.
fn open(door: Door, netns: Netns) -> Result<File, EnterError> {
    let file = File::open(door.path()).map_err(|error| not_entered(&error))?;
    let found = file.metadata().map_err(|error| not_entered(&error))?;
    if found.ino() == netns {
        Ok(file)
    } else {
        Err(EnterError::Gone)
    }
}

/// Before any address was ever given to it a namespace lets its loopback's be bound all the same, and leads nothing there. Nor does it where the loopback
/// was up and is down: its address stays, and what is sent there is lost.
fn check_loopback() -> Result<(), EnterError> {
    let socket =
        Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(|error| not_entered(&error))?;
    // What the kernel does not say is seen below.
    let is_up = is_loopback_up(socket.as_fd()).ok();
    match is_up {
        Some(Some(false)) => return Err(EnterError::LoopbackDown),
        Some(None) => return Err(EnterError::Renamed),
        Some(Some(true)) | None => {}
    }
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
    socket.bind(&at(0)).map_err(|error| {
        if error.kind() == ErrorKind::AddrNotAvailable {
            is_up.map_or(EnterError::LoopbackDown, |_| EnterError::NoAddress)
        } else {
            not_entered(&error)
        }
    })?;
    socket.connect(&at(9)).map_err(|error| {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        match errno {
            // Before any address was given to it, where it could not be seen whether it is up.
            Some(Errno::NETUNREACH) if is_up.is_none() => EnterError::LoopbackDown,
            // What the kinds of rules and routes that refuse are told by: `fib_props` and `fib4_rule_action` of the kernel.
            Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::INVAL | Errno::ACCESS) => {
                EnterError::NotLed
            }
            Some(_) | None => not_entered(&error),
        }
    })
}

fn not_entered(error: &io::Error) -> EnterError {
    if error.kind() == ErrorKind::PermissionDenied {
        EnterError::NotPermitted
    } else if workload::is_gone(error) {
        EnterError::Gone
    } else {
        EnterError::Other(error.to_string())
    }
}

fn of_bind(unbound: &Unbound) -> EnterError {
    let kind = unbound.source.kind();
    if kind == ErrorKind::AddrNotAvailable {
        EnterError::LoopbackDown
    } else if kind == ErrorKind::AddrInUse {
        EnterError::PortTaken(unbound.address.to_string())
    } else {
        EnterError::Other(format!("{unbound}: {}", unbound.source))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    const PORTS: Ports = Ports {
        proxy: 39_443,
        names: 39_053,
        metadata: None,
    };

    /// A process in a network namespace of its own, until this is dropped.
    struct Occupant(Child);

    impl Occupant {
        fn start() -> Self {
            Self::with(&["--net"], "true")
        }

        /// With these namespaces, after this command.
        fn with(namespaces: &[&str], first: &str) -> Self {
            let script = format!("ip link set lo up && {first} && echo there && read -r _");
            let mut child = Command::new("unshare")
                .args(namespaces)
                .args(["--", "sh", "-c", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("starts: run the tests as root");
            let mut said = String::new();
            let printed = child.stdout.take().expect("piped");
            BufReader::new(printed).read_line(&mut said).expect("reads");
            assert_eq!(said, "there\n");
            Self(child)
        }

        fn door(&self) -> Door {
            Door::first(self.0.id())
        }

        fn netns(&self) -> Netns {
            let path = format!("/proc/{}/ns/net", self.0.id());
            std::fs::metadata(path).expect("lives").ino()
        }
    }

    impl Drop for Occupant {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Enters from a thread that has only these capabilities.
    fn enter_with(capabilities: CapabilitySet, occupant: &Occupant) -> Result<Sockets, EnterError> {
        let (door, netns) = (occupant.door(), occupant.netns());
        let work = move || {
            let sets = CapabilitySets {
                effective: capabilities,
                permitted: capabilities,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).expect("gives up the others");
            enter(door, netns, PORTS)
        };
        std::thread::spawn(work).join().expect("ends")
    }

    #[test]
    fn a_namespace_that_the_kernel_keeps_the_daemon_from_is_told_from_one_that_has_gone() {
        let occupant = Occupant::start();
        let all = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
        // What each is needed for: to look at another's namespace, and to enter it.
        for few in [CapabilitySet::SYS_ADMIN, CapabilitySet::SYS_PTRACE] {
            let refused = enter_with(few, &occupant).map(|_| ());
            assert_eq!(refused, Err(EnterError::NotPermitted), "{few:?}");
        }
        let bound = enter_with(all | CapabilitySet::NET_BIND_SERVICE, &occupant);
        assert!(bound.expect("enters").is_strict);
    }

    #[test]
    fn only_in_a_namespace_of_this_hosts_with_another_interface_that_is_up_may_other_names_be_asked_for()
     {
        let down = "ip link add v0 type veth peer name v1";
        let up = "ip link add v0 type veth peer name v1 && ip link set v0 up";
        // As many as keep whoever lists them all busy for a while: what is up is among the first, the last, or nowhere.
        let many = "seq 1000 | sed 's/.*/link add type veth/' | ip -batch -";
        let [first, last] = [format!("{up} && {many}"), format!("{many} && {up}")];
        let (own, roots) = (
            ["--net"].as_slice(),
            ["--net", "--map-root-user"].as_slice(),
        );
        let cases = [
            (own, "true", true),
            (own, down, true),
            (own, up, false),
            (own, many, true),
            (own, &first, false),
            // Behind so many it is not looked for.
            (own, &last, true),
            // Whoever is in it is its root, and could have made whatever there is.
            (roots, up, true),
        ];
        for (namespaces, first, is_strict) in cases {
            let occupant = Occupant::with(namespaces, first);
            let bound = enter(occupant.door(), occupant.netns(), PORTS).expect("enters");
            assert_eq!(bound.is_strict, is_strict, "{namespaces:?} {first}");
        }
    }

    #[test]
    fn where_127_0_0_1_leads_nowhere_any_more_and_whether_there_is_ipv6_is_seen_inside() {
        let without = "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6";
        let gone = "ip addr del 127.0.0.1/8 dev lo";
        let renamed = "ip link set lo down && ip link set lo name x";
        let mut cases = vec![
            ("true".to_owned(), Ok(true)),
            (without.to_owned(), Ok(false)),
            (
                "ip link set lo down".to_owned(),
                Err(EnterError::LoopbackDown),
            ),
            (gone.to_owned(), Err(EnterError::NoAddress)),
            (renamed.to_owned(), Err(EnterError::Renamed)),
        ];
        for how in ["prohibit", "unreachable", "blackhole"] {
            let first = "ip rule add pref 9 lookup local && ip rule del pref 0";
            let rule = format!("{first} && ip rule add pref 0 to 127.0.0.0/8 {how}");
            let route = format!(
                "{first} && ip rule add pref 0 lookup 99 && ip route add {how} 127.0.0.0/8 table 99"
            );
            cases.extend([rule, route].map(|ruled| (ruled, Err(EnterError::NotLed))));
        }
        // No rule at all.
        let none = "ip rule del pref 0".to_owned();
        cases.push((none, Err(EnterError::NotLed)));
        for (first, expected) in cases {
            let occupant = Occupant::with(&["--net"], &first);
            let (door, netns) = (occupant.door(), occupant.netns());
            assert_eq!(has_ipv6(door, netns), expected, "{first}");
            let bound = enter(door, netns, PORTS);
            // At ::1 as well, whether it is there or is to come.
            let shape = bound.map(|bound| (bound.proxy.len(), bound.has_ipv6));
            assert_eq!(shape, expected.map(|has_ipv6| (2, has_ipv6)), "{first}");
        }
    }

    #[test]
    fn a_namespace_that_its_process_has_left_or_ended_in_has_gone() {
        let (mut occupant, other) = (Occupant::start(), Occupant::start());
        let (door, netns) = (occupant.door(), occupant.netns());
        // The pid is in another now than the one that was seen.
        let left = enter(door, other.netns(), PORTS).map(|_| ());
        assert_eq!(left, Err(EnterError::Gone));
        occupant.0.kill().expect("kills");
        let ended = || enter(door, netns, PORTS).map(|_| ());
        occupant.0.wait().expect("ends");
        assert_eq!(ended(), Err(EnterError::Gone));
    }
}
