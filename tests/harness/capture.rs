//! A sniffer on the far side of the wire: the judge of whether anything left the host, by where it goes or by what it says.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::patience;
use crate::stage::{Side, Stage};

const ETH_P_ALL: u16 = 0x0003;
/// What the kernel says of a frame that this side sent.
const PACKET_OUTGOING: u8 = 4;

/// Counts the packets that arrive for some addresses, or with some text in them.
#[derive(Debug)]
pub struct Capture {
    seen: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to watch the internet's side of the wire for packets to `addresses`.
    #[must_use]
    pub fn start(stage: &Stage, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        Self::of(stage, move |frame| {
            destination(frame).is_some_and(|to| addresses.contains(&to))
        })
    }

    /// Starts to watch there for TCP that says something to `addresses`: not what only acknowledges, asks for the other's window or ends.
    #[must_use]
    pub fn of_data(stage: &Stage, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        Self::of(stage, move |frame| {
            destination(frame).is_some_and(|to| addresses.contains(&to))
                && payload(frame).is_none_or(|bytes| bytes > 0)
        })
    }

    /// Starts to watch there for packets to anywhere that carry one of `texts` as it is.
    #[must_use]
    pub fn of_text(stage: &Stage, texts: impl IntoIterator<Item = String>) -> Self {
        let texts: Vec<String> = texts.into_iter().collect();
        Self::of(stage, move |frame| {
            let is_in = |text: &String| {
                let mut parts = frame.windows(text.len());
                parts.any(|part| part == text.as_bytes())
            };
            texts.iter().any(is_in)
        })
    }

    fn of(stage: &Stage, is_sought: impl Fn(&[u8]) -> bool + Send + 'static) -> Self {
        let socket = stage
            .on(Side::Internet, packet_socket)
            .expect("opens a packet socket");
        let (seen, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || watch(&socket, is_sought, &seen, &stop))
        };
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// How many packets arrived so far. Gives what is on the wire a moment to arrive: a veth delivers at once, the reader not quite.
    #[must_use]
    pub fn packets(&self) -> u64 {
        std::thread::sleep(patience(std::time::Duration::from_millis(150)));
        self.seen.load(Ordering::SeqCst)
    }

    /// The same, once no more arrive: what was under way, such as a late acknowledgement, is not what is asked about.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let mut seen = self.packets();
        loop {
            let now = self.packets();
            if now == seen {
                return now;
            }
            seen = now;
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    let protocol = libc::c_int::from(ETH_P_ALL.to_be());
    // SAFETY: a plain system call; the descriptor is ours.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let timeout = libc::timeval {
        tv_sec: 0,
        tv_usec: 20_000,
    };
    // SAFETY: the option's value is a timeval of that size.
    let set = unsafe {
        let size = libc::socklen_t::try_from(size_of_val(&timeout)).unwrap_or(0);
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            std::ptr::from_ref(&timeout).cast(),
            size,
        )
    };
    if set == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn watch(socket: &OwnedFd, is_sought: impl Fn(&[u8]) -> bool, seen: &AtomicU64, stop: &AtomicBool) {
    // As large as any that offloading puts together.
    let mut frame = vec![0; 1 << 17];
    while !stop.load(Ordering::SeqCst) {
        let Some(bytes) = arrived(socket, &mut frame) else {
            continue;
        };
        if is_sought(&frame[..bytes]) {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The next frame that came by the wire, if there was one in time: not what the far side says to itself, or back.
fn arrived(socket: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    // SAFETY: all of it may be zero.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&from)).ok()?;
    // SAFETY: both places are ours, and as large as is said.
    let bytes = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            frame.as_mut_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_mut(&mut from).cast(),
            &raw mut length,
        )
    };
    let is_own = from.sll_hatype == libc::ARPHRD_LOOPBACK || from.sll_pkttype == PACKET_OUTGOING;
    usize::try_from(bytes).ok().filter(|_| !is_own)
}

/// How much an Ethernet frame's TCP says, bytes, where it holds that; IPv6 without extension headers alone.
fn payload(frame: &[u8]) -> Option<usize> {
    let number = |at: usize| {
        Some(usize::from(u16::from_be_bytes(
            frame.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let (tcp_at, end) = match (frame.get(12..14)?, frame.get(23)?, frame.get(20)?) {
        ([0x08, 0x00], 6, _) => {
            let header = usize::from(frame.get(14)? & 0x0f) * 4;
            (14 + header, 14 + number(16)?)
        }
        ([0x86, 0xdd], _, 6) => (54, 54 + number(18)?),
        _ => return None,
    };
    end.checked_sub(tcp_at + usize::from(frame.get(tcp_at + 12)? >> 4) * 4)
}

/// The destination of an Ethernet frame that holds IP.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?)),
        _ => None,
    }
}
