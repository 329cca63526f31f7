//! The loops that are measured. They run in a process of their own, in the cgroup that is asked about, and print one line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use enforcer::clock::{Clock, SystemClock};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// What a worker does.
#[derive(Subcommand, Clone)]
pub(crate) enum Work {
    /// `connect()` of a UDP socket, so many times: nanoseconds each.
    Connect { to: SocketAddr, count: u32 },
    /// The same where it is refused.
    Refused { to: SocketAddr, count: u32 },
    /// A TCP connection made, taken and ended, so many times: nanoseconds each.
    Led { to: SocketAddr, count: u32 },
    /// A UDP socket made and closed, so many times: nanoseconds each.
    Make { count: u32 },
    /// A datagram of 64 bytes, so many times: nanoseconds each.
    Send { to: SocketAddr, count: u32 },
    /// TCP connections as fast as they go, until killed; each line is how many were tried and how many were not refused.
    Hammer { to: SocketAddr },
    /// So many TCP connections held at once, each saying this process's id: how many were made.
    Crowd { to: SocketAddr, count: u32 },
    /// A server on port 443 that reads a hello and does what is asked behind it, until killed.
    Serve { hello: PathBuf },
    /// New connections with a hello, a request and an answer: microseconds each.
    Exchange {
        to: SocketAddr,
        hello: PathBuf,
        count: u32,
    },
    /// So many bytes over one connection: megabytes a second.
    Fetch {
        to: SocketAddr,
        hello: PathBuf,
        bytes: u64,
    },
    /// What is measured of namespaces.
    Netns {
        #[command(subcommand)]
        work: crate::netns::Work,
    },
    /// What is measured of the proxy.
    Proxy {
        #[command(subcommand)]
        work: crate::proxy::Work,
    },
}

/// What is asked of the server: an answer of so many bytes, as eight bytes.
const ANSWER: u64 = 1024;
/// How much is written and read at once, bytes.
const PART: usize = 256 * 1024;

/// Works, and prints what came of it.
pub(crate) fn run(work: &Work) {
    match work {
        Work::Connect { to, count } => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            println!("{}", each(*count, || socket.connect(to).expect("connects")));
        }
        Work::Refused { to, count } => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            let refused = || socket.connect(to).expect_err("is refused");
            println!("{}", each(*count, || drop(refused())));
        }
        Work::Led { to, count } => {
            let led = || {
                let mut stream = TcpStream::connect(to).expect("connects");
                // Until it is taken: more than wait to be would be tried again a second later.
                let _ = stream.read(&mut [0]);
                set_socket_linger(&stream, Some(Duration::ZERO)).expect("sets it");
            };
            println!("{}", each(*count, led));
        }
        Work::Make { count } => {
            let make = || {
                let flags = SocketFlags::CLOEXEC;
                socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).expect("a socket");
            };
            println!("{}", each(*count, make));
        }
        Work::Send { to, count } => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            socket.connect(to).expect("connects");
            let send = || {
                // Nobody listens: what comes back of it is not the subject.
                let _ = socket.send(&[0; 64]);
            };
            println!("{}", each(*count, send));
        }
        Work::Hammer { to } => hammer(*to),
        Work::Crowd { to, count } => crowd(*to, *count),
        Work::Serve { hello } => serve(&read(hello)),
        Work::Exchange { to, hello, count } => {
            let hello = read(hello);
            let exchange = || assert_eq!(fetch(*to, &hello, ANSWER), ANSWER);
            println!("{}", each(*count, exchange) / 1000);
        }
        Work::Fetch { to, hello, bytes } => {
            let hello = read(hello);
            let began = SystemClock.now().boot_ns;
            assert_eq!(fetch(*to, &hello, *bytes), *bytes);
            println!("{}", bytes * 1000 / (SystemClock.now().boot_ns - began));
        }
        Work::Netns { work } => crate::netns::run(work),
        Work::Proxy { work } => crate::proxy::run(work),
    }
}

/// Nanoseconds for each of so many.
fn each(count: u32, mut work: impl FnMut()) -> u64 {
    let now = || SystemClock.now().boot_ns;
    (0..count / 10).for_each(|_| work());
    let began = now();
    (0..count).for_each(|_| work());
    (now() - began) / u64::from(count.max(1))
}

fn hammer(to: SocketAddr) {
    let (mut tried, mut through) = (0_u64, 0_u64);
    loop {
        for _ in 0..1000 {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let tcp = Some(ipproto::TCP);
            let made =
                socket_with(AddressFamily::INET, SocketType::STREAM, flags, tcp).expect("a socket");
            tried += 1;
            let refused = rustix::net::connect(made.as_fd(), &to);
            through += u64::from(refused != Err(rustix::io::Errno::PERM));
        }
        println!("{tried} {through}");
    }
}

/// Lets this process hold as many connections as it may.
pub(crate) fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(65_536).min(65_536);
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raises the limit of open files");
}

fn crowd(to: SocketAddr, count: u32) {
    raise_files();
    let held: Vec<TcpStream> = (0..count)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(to).ok()?;
            stream.write_all(&std::process::id().to_le_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    println!("{}", held.len());
    // They stay open until the one who counts has looked at all of them.
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

fn read(file: &Path) -> Vec<u8> {
    std::fs::read(file).expect("reads the hello")
}

/// Asks for so many bytes behind a hello, and counts what comes.
fn fetch(to: SocketAddr, hello: &[u8], bytes: u64) -> u64 {
    let mut stream = TcpStream::connect(to).expect("connects");
    let asked = [hello, &bytes.to_le_bytes()].concat();
    stream.write_all(&asked).expect("asks");
    let (mut got, mut part) = (0, vec![0; PART.min(bytes as usize)]);
    loop {
        match stream.read(&mut part).expect("reads") {
            0 => return got,
            more => got += more as u64,
        }
    }
}

fn serve(hello: &[u8]) {
    let listener = TcpListener::bind("0.0.0.0:443").expect("binds");
    println!("serves");
    for stream in listener.incoming() {
        let mut stream = stream.expect("accepts");
        let (mut came, mut asked) = (vec![0; hello.len()], [0; 8]);
        stream.read_exact(&mut came).expect("reads the hello");
        assert!(came == hello, "the hello comes unchanged");
        stream.read_exact(&mut asked).expect("reads what is asked");
        let (mut left, part) = (u64::from_le_bytes(asked), vec![7; PART]);
        while left > 0 {
            let now = left.min(PART as u64);
            let now = &part[..usize::try_from(now).expect("small")];
            stream.write_all(now).expect("answers");
            left -= now.len() as u64;
        }
    }
}
