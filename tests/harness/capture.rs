//! A sniffer on the far side of the wire: the judge of whether anything left the host.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::patience;
use crate::stage::{Side, Stage};

const ETH_P_ALL: u16 = 0x0003;

/// Counts the packets that arrive for some addresses.
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
        let socket = stage
            .on(Side::Internet, packet_socket)
            .expect("opens a packet socket");
        let (seen, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || watch(&socket, &addresses, &seen, &stop))
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

fn watch(socket: &OwnedFd, addresses: &[IpAddr], seen: &AtomicU64, stop: &AtomicBool) {
    let mut frame = [0; 2048];
    while !stop.load(Ordering::SeqCst) {
        let Ok(bytes) = rustix::io::read(socket, &mut frame) else {
            continue;
        };
        if destination(&frame[..bytes]).is_some_and(|to| addresses.contains(&to)) {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The destination of an Ethernet frame that holds IP.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?)),
        _ => None,
    }
}
