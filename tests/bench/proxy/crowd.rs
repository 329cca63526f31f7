//! Many agents: one process goes from workload to workload, and does in each what its agent would, as the kernel and the daemon see it. What
//! it has made stays open while it lives.

use std::io::{BufRead, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use enforcer::control::client::Client;
use enforcer_proto::policy;
use enforcer_proto::wire::{Ask, Reply};

use super::client::{Link, TABLE, To};
use super::lab::workload;
use crate::worker::raise_files;

/// What is done for the agents from one number to before another.
#[derive(Args, Clone, Debug)]
pub(crate) struct Crowd {
    /// The folder of their workloads.
    places: PathBuf,
    from: u32,
    to: u32,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand, Clone, Debug)]
enum Act {
    /// Each asks for a window, by the daemon's control socket.
    Open { socket: PathBuf },
    /// Each makes so many connections and a request on each, and keeps them.
    Keep {
        #[command(flatten)]
        to: To,
        each: u32,
    },
}

/// Does it, says so, and waits for the end of its input.
pub(super) fn run(crowd: &Crowd) {
    raise_files();
    let agents = crowd.from..crowd.to;
    let enter = |agent| enter(&crowd.places.join(workload(agent)));
    let mut kept = Vec::new();
    match &crowd.act {
        Act::Open { socket } => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            for agent in agents {
                enter(agent);
                runtime.block_on(open(socket));
            }
        }
        Act::Keep { to, each } => {
            for agent in agents {
                enter(agent);
                kept.extend((0..*each).map(|_| connection(to)));
            }
        }
    }
    println!("done");
    std::io::stdout().flush().expect("writes");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    // Each that the daemon has ended meanwhile would have been counted as one that is open.
    for stream in &kept {
        stream.set_nonblocking(true).expect("sets it");
        let ended = stream.peek(&mut [0]);
        let is_open = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(is_open, "a connection was not kept");
    }
}

/// The whole process, as every socket is made by it.
fn enter(workload: &Path) {
    std::fs::write(workload.join("cgroup.procs"), "0").expect("enters a workload");
}

async fn open(socket: &Path) {
    let ask = Ask::Request(policy::Ask {
        scope: "demo-project.finance:read".parse().expect("a scope"),
        ttl: "15m".parse().expect("a ttl"),
        reason: "bench".to_owned(),
        bytes_max: None,
        queries_max: None,
    });
    let mut client = Client::connect(socket).await.expect("connects");
    let reply = client.ask(&ask).await.expect("an answer");
    let is_open = matches!(reply, Reply::Requested { grant: Some(_), .. });
    assert!(is_open, "{reply:?}");
}

/// What comes after an answer belongs to it: tickets of the TLS session were read with it.
fn connection(to: &To) -> TcpStream {
    let mut link = Link::to(to);
    link.must("GET", TABLE, "");
    link.into_socket()
}
