//! Attempts by io_uring: the kernel acts for the caller, from a queue.
#![expect(
    unsafe_code,
    reason = "what is queued must live until it is done, which only the caller knows"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue::Entry, types};
use socket2::SockAddr;

use super::PAYLOAD;
use super::flow::{Kind, socket};

/// How often is looked for the end of a queued operation, and how long is waited between: 200 ms are enough to send or refuse a packet.
const LOOKS: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(5);

pub(super) fn connect(to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Tcp, to)?;
    let address: SockAddr = to.into();
    let entry = opcode::Connect::new(
        types::Fd(socket.as_raw_fd()),
        address.as_ptr().cast(),
        address.len(),
    );
    run(&entry.build())
}

pub(super) fn send(to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Udp, to)?;
    let address: SockAddr = to.into();
    let length = u32::try_from(PAYLOAD.len()).map_err(io::Error::other)?;
    let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), PAYLOAD.as_ptr(), length)
        .dest_addr(address.as_ptr().cast())
        .dest_addr_len(address.len());
    run(&entry.build())
}

/// Queues one operation and sees what becomes of it.
fn run(entry: &Entry) -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    // SAFETY: the socket, address and payload of the entry outlive this call, and this process ends soon after it.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)?;
    ring.submit()?;
    for _ in 0..LOOKS {
        if let Some(done) = ring.completion().next() {
            let result = done.result();
            return if result >= 0 || -result == libc::EINPROGRESS {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(-result))
            };
        }
        std::thread::sleep(BETWEEN);
    }
    // Still under way: its packet has left, or nothing ever will.
    Ok(())
}
