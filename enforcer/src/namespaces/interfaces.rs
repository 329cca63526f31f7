//! Which interfaces there are in the network namespace that the calling thread is in. Whoever is root there can make thousands, and the kernel takes its
//! time to list them: it is asked for some at a time, and for no more of them than it takes to know.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkFlags, LinkHeader, LinkMessage};

/// How many interfaces of a namespace are looked at. A container has a few, and about ten more that are down where the kernel puts tunnels into each new
/// namespace; of one in which none of so many is up nothing more is asked.
const LOOKED_AT_MAX: usize = 256;
/// What is read at once, bytes: the most that the kernel puts together, some twenty interfaces.
const PART_BYTES: usize = 32 * 1024;

/// Whether nothing is up but the loopback, among the first [`LOOKED_AT_MAX`]. A namespace that cannot be told has nothing else.
pub(super) fn has_only_a_loopback() -> bool {
    Interfaces::ask().is_ok_and(|all| is_any_up(all).is_ok_and(|is_up| !is_up))
}

/// Whether one that is no loopback is up, among those that are looked at.
fn is_any_up(all: impl Iterator<Item = io::Result<LinkFlags>>) -> io::Result<bool> {
    for flags in all.take(LOOKED_AT_MAX) {
        let flags = flags?;
        if flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kernel's list, as it comes. What is not read of it is not made.
struct Interfaces {
    socket: Socket,
    part: Vec<u8>,
    /// Where in it the next message begins.
    at: usize,
}

impl Interfaces {
    fn ask() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // From now on nobody but the kernel is heard.
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        // Without a filter: where there is one, the kernel looks at all of them before it lists the first.
        let link = LinkMessage::default();
        let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetLink(link).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        Ok(Self {
            socket,
            part: Vec::with_capacity(PART_BYTES),
            at: 0,
        })
    }

    /// The next message's kind, and its interface's flags where it is about one. Of the rest, which is long, nothing is read.
    fn message(&mut self) -> io::Result<(u16, Option<LinkFlags>)> {
        if self.at >= self.part.len() {
            self.part.clear();
            self.at = 0;
            self.socket.recv(&mut self.part, 0)?;
        }
        let rest = self.part.get(self.at..).unwrap_or_default();
        let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
        // Messages are aligned to four bytes.
        self.at += (message.length() as usize).next_multiple_of(4);
        let flags = if message.message_type() == libc::RTM_NEWLINK {
            let head = LinkHeader::parse(message.payload()).map_err(io::Error::other)?;
            Some(head.flags)
        } else {
            None
        };
        Ok((message.message_type(), flags))
    }
}

impl Iterator for Interfaces {
    type Item = io::Result<LinkFlags>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.message() {
                Ok((_, Some(flags))) => return Some(Ok(flags)),
                Ok((NLMSG_DONE, None)) => return None,
                Ok((NLMSG_ERROR, None)) => {
                    return Some(Err(io::Error::other("the kernel lists no interfaces")));
                }
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const DOWN: LinkFlags = LinkFlags::Broadcast;

    /// After so many that are down one that is up; and how many were looked at.
    fn looked(down: usize) -> (bool, usize) {
        let looked_at = Cell::new(0);
        let all = (0..).map(|number| {
            looked_at.set(number + 1);
            Ok(if number < down { DOWN } else { LinkFlags::Up })
        });
        (is_any_up(all).expect("none fails"), looked_at.get())
    }

    #[test]
    fn no_more_interfaces_are_looked_at_than_it_takes_to_know_nor_more_than_the_bound() {
        assert_eq!(looked(0), (true, 1));
        assert_eq!(looked(10), (true, 11));
        let last = LOOKED_AT_MAX - 1;
        assert_eq!(looked(last), (true, LOOKED_AT_MAX));
        // What is behind the bound is not asked for.
        assert_eq!(looked(LOOKED_AT_MAX), (false, LOOKED_AT_MAX));
        assert_eq!(looked(1_000_000), (false, LOOKED_AT_MAX));
    }

    #[test]
    fn a_loopback_that_is_up_is_nothing_else_and_what_cannot_be_read_is_an_error() {
        let loopback = LinkFlags::Up | LinkFlags::Loopback;
        let is_up = |all: Vec<io::Result<LinkFlags>>| is_any_up(all.into_iter());
        assert!(!is_up(vec![Ok(loopback), Ok(DOWN)]).expect("is read"));
        assert!(is_up(vec![Ok(loopback), Ok(LinkFlags::Up)]).expect("is read"));
        let broken = || Err(io::Error::other("breaks off"));
        assert!(is_up(vec![Ok(loopback), broken(), Ok(LinkFlags::Up)]).is_err());
    }

    #[test]
    fn each_interface_of_this_namespace_is_listed_once() {
        let listed = Interfaces::ask()
            .expect("asks")
            .map(|flags| flags.expect("reads"));
        let flags: Vec<LinkFlags> = listed.collect();
        let loopbacks = flags.iter().filter(|one| one.contains(LinkFlags::Loopback));
        assert_eq!(loopbacks.count(), 1);
        let known = std::fs::read_to_string("/proc/thread-self/net/dev").expect("reads");
        // Two lines are the table's head.
        assert_eq!(flags.len(), known.lines().count() - 2);
    }
}
