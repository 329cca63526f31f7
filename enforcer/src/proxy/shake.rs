//! From the first byte to agreed TLS: reads the hello, asks where it may go, and answers only an agent's. One bound on the time of it all.

use std::os::fd::OwnedFd;

use enforcer_proto::refusal::{Code, Refusal};
use tokio::net::TcpStream;

use super::peek::{Replayed, peek};
use super::session::Serves;
use super::tls::{Accepted, TlsRefusal};
use super::way::{Way, Who, way};
use super::{HANDSHAKE, Peer, Proxy, reset};
use crate::causes::Causes;

/// What a hello has led to.
pub(super) enum Shaken {
    /// An agent's connection, TLS agreed on.
    Agent(Box<Accepted<Replayed<TcpStream>>>, Serves),
    /// Somebody else's, to be passed on: its hello, and what follows.
    Splice(Replayed<TcpStream>),
}

/// A refused handshake, and whether the client has been told.
enum No {
    /// By the alert of the TLS library.
    Alerted(Refusal),
    /// By nothing yet.
    Reset(Refusal),
}

impl Proxy {
    /// Reads the hello and goes as far as TLS, all within [`HANDSHAKE`]. What is refused is recorded and, where no alert was sent, reset by
    /// the second handle on the socket.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
        peer: &Peer,
        barred: Option<&Refusal>,
        socket: Option<&OwnedFd>,
    ) -> Option<Shaken> {
        let shaken = tokio::time::timeout(HANDSHAKE, self.shaken(stream, peer, barred)).await;
        let no = match shaken {
            Ok(Ok(shaken)) => return Some(shaken),
            Ok(Err(no)) => no,
            Err(_) => {
                let what = format!(
                    "The TLS handshake took longer than {} s",
                    HANDSHAKE.as_secs()
                );
                No::Reset(Refusal::new(Code::HelloUnreadable, what))
            }
        };
        let refusal = match no {
            No::Alerted(refusal) => refusal,
            No::Reset(refusal) => {
                if let Some(socket) = socket {
                    reset(socket);
                }
                refusal
            }
        };
        self.refuse(Some(peer), refusal);
        None
    }

    async fn shaken(
        &self,
        stream: TcpStream,
        peer: &Peer,
        barred: Option<&Refusal>,
    ) -> Result<Shaken, No> {
        let (hello, stream) = peek(stream).await.map_err(No::Reset)?;
        let serves = match way(&hello.name, &self.protected, self.who(peer, barred)) {
            Way::Splice => return Ok(Shaken::Splice(stream)),
            Way::Refused(refusal) => return Err(No::Reset(refusal)),
            Way::BigQuery => Serves::BigQuery,
            Way::Allowed => Serves::Allowed,
        };
        let accepted = self.tls.accept(stream).await;
        let accepted = accepted.map_err(|refusal| No::Alerted(tls_refusal(&refusal)))?;
        if accepted.name == hello.name {
            return Ok(Shaken::Agent(Box::new(accepted), serves));
        }
        let what = "The TLS library read another name than was judged";
        Err(No::Reset(Refusal::new(Code::HostMismatch, what)))
    }

    fn who<'a>(&'a self, peer: &'a Peer, barred: Option<&'a Refusal>) -> Who<'a> {
        let Some(agent) = &peer.agent else {
            return Who::Nobody;
        };
        let window = self.engine.windows().borrow().get(agent).cloned();
        let now_boot_ns = self.clock.now().boot_ns;
        Who::Agent {
            agent,
            rules: self.rules.get(agent),
            has_window: window.is_some_and(|window| now_boot_ns < window.closes_boot_ns),
            barred,
        }
    }
}

fn tls_refusal(refusal: &TlsRefusal) -> Refusal {
    Refusal::new(Code::HostMismatch, Causes(refusal).to_string())
}
