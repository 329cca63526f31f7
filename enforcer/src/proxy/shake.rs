//! From the first byte to agreed TLS: reads the hello, asks where it may go, and answers only an agent's. One bound on the time of it all.

use enforcer_ebpf::opening::Said;
use enforcer_proto::refusal::{Code, Refusal};

use super::peek::{Replayed, peek};
use super::session::Serves;
use super::tls::{Accepted, Resumption, TlsRefusal};
use super::way::{Way, Who, way};
use super::{HANDSHAKE, Proxy, reset};
use crate::callers::Peer;
use crate::causes::Causes;
use crate::shared::Shared;

/// What a hello has led to.
pub(super) enum Shaken {
    /// An agent's connection, TLS agreed on.
    Agent(Box<Accepted<Replayed<Shared>>>, Serves),
    /// Somebody else's, to be passed on: its hello, and what follows.
    Splice(Replayed<Shared>),
}

/// A refused handshake, and whether the client has been told.
enum No {
    /// By the alert of the TLS library.
    Alerted(Refusal),
    /// By nothing yet.
    Reset(Refusal),
}

impl Proxy {
    /// Reads the hello and goes as far as TLS, all within [`HANDSHAKE`]. What is refused is recorded and, where no alert was sent, reset.
    pub(super) async fn shake(
        &self,
        socket: &Shared,
        peer: &Peer,
        barred: Option<&Refusal>,
    ) -> Option<Shaken> {
        let shaking = self.shaken(socket.clone(), peer, barred);
        let shaken = tokio::time::timeout(HANDSHAKE, shaking).await;
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
                reset(socket);
                refusal
            }
        };
        self.refuse(peer, refusal);
        None
    }

    async fn shaken(
        &self,
        stream: Shared,
        peer: &Peer,
        barred: Option<&Refusal>,
    ) -> Result<Shaken, No> {
        let (hello, stream) = peek(stream).await.map_err(No::Reset)?;
        let said = self.origins.has_said(peer, stream.came());
        self.origins.forget_said(peer);
        heard(peer, said).map_err(No::Reset)?;
        let serves = match way(&hello.name, &self.protected, self.who(peer, barred)) {
            Way::Splice => return Ok(Shaken::Splice(stream)),
            Way::Refused(refusal) => return Err(No::Reset(refusal)),
            Way::BigQuery => {
                self.begin_token(peer, barred);
                Serves::BigQuery
            }
            Way::Allowed => Serves::Allowed,
        };
        let resumption = if peer.is_apart {
            Resumption::Never
        } else {
            Resumption::Allowed
        };
        let accepted = self.tls.accept(stream, resumption).await;
        let accepted = accepted.map_err(|refusal| No::Alerted(tls_refusal(&refusal)))?;
        // With TLS 1.2, and behind a second hello, whoever speaks after the hello has a say in the keys.
        if peer.is_apart && !accepted.follows_from_hello {
            let what = "TLS 1.3 without a second hello is needed in a network namespace of its own: by less it is not known who speaks";
            return Err(No::Reset(Refusal::new(Code::TlsInsufficient, what)));
        }
        if accepted.name == hello.name {
            return Ok(Shaken::Agent(Box::new(accepted), serves));
        }
        let what = "The TLS library read another name than was judged";
        Err(No::Reset(Refusal::new(Code::HostMismatch, what)))
    }

    /// While TLS is agreed on, and the first request comes, is read and recorded, its token can be on its way already.
    fn begin_token(&self, peer: &Peer, barred: Option<&Refusal>) {
        let agent = peer.agent.as_ref().filter(|_| barred.is_none());
        let window = agent.and_then(|agent| self.engine.windows().borrow().get(agent).cloned());
        // Whether it is open still is asked again where one is minted.
        if let Some(window) = window {
            self.tokens.begin(&window);
        }
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

/// What else TLS agrees on grows from the hello: who did not say it has no part in it, and who put another in its place gets nothing. Who is no agent is
/// passed on, from this host's own network namespace alone, and may say more than a hello at once.
fn heard(peer: &Peer, said: Option<Said>) -> Result<(), Refusal> {
    match said {
        Some(Said::This) => Ok(()),
        Some(Said::More | Said::Other) | None if peer.agent.is_none() => Ok(()),
        // A hello that goes on says more than it is.
        Some(Said::More | Said::Other) => {
            let what = "The TLS hello that came is not what the process that connected has sent";
            Err(Refusal::new(Code::HelloForeign, what))
        }
        None => {
            let what = "What the process that connected has sent first is not known any more, since too many connections have begun";
            Err(Refusal::new(Code::Overloaded, what))
        }
    }
}

fn tls_refusal(refusal: &TlsRefusal) -> Refusal {
    Refusal::new(Code::HostMismatch, Causes(refusal).to_string())
}
