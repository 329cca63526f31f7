//! Questions for names from an agent's own network namespace, in which others may make packets and change them. A datagram is anybody's there: it is told
//! what everybody is, and all else is to be asked by a connection. Of that the kernel knows whose it is and what its socket said first, and only that is
//! answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enforcer_ebpf::opening::{OPENING_BYTES_MAX, Said as Beside};
use enforcer_proto::refusal::{Code, Refusal};
use hickory_resolver::proto::op::{OpCode, ResponseCode};
use hickory_resolver::proto::rr::Name;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::super::told::{letters, told_anybody};
use super::{Namespace, Responder, Said, encode, read};
use crate::callers::{Caller, Peer};
use crate::namespaces::Site;
use crate::pace::Bucket;
use crate::proxy::Came;

/// The most that is answered of a connection there, bytes, and so some hundred questions: what its socket said is known so far.
const KNOWN_BYTES_MAX: usize = OPENING_BYTES_MAX as usize;
/// How much of it is read at once, bytes.
const READ_BYTES: usize = 512;
/// The most that is read behind that, bytes.
const UNANSWERED_BYTES_MAX: u64 = 64 * 1024;
/// How long the first question may take to come: whoever may make packets there can have an agent's connection begin and not go on.
const FIRST: Duration = Duration::from_secs(3);
/// A question's length before it (RFC 1035, 4.2.2).
const LENGTH_BYTES: usize = 2;

impl Responder {
    /// Answers a datagram, whoever has sent it.
    pub(super) fn to_anybody(
        &self,
        (socket, namespace): (&Arc<UdpSocket>, &Namespace),
        (question, from): (&[u8], SocketAddr),
        pace: &mut Bucket,
    ) {
        let Ok(port) = socket.local_addr().map(|own| own.port()) else {
            return;
        };
        if !self.callers.is_led(from, (namespace.netns, port)) {
            return self.not_led(&namespace.site);
        }
        if !pace.take(1, self.clock.now().boot_ns) {
            return self.too_fast(&namespace.site);
        }
        let Some(request) = read(question.to_vec(), from, Protocol::Udp) else {
            return;
        };
        let said = self.say_anybody(&request);
        if !said.is_cut {
            self.questions.add(said.code);
        }
        if let Some(answer) = encode(&request, &said, Protocol::Udp)
            && let Err(error) = socket.try_send_to(&answer, from)
        {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }

    fn say_anybody(&self, request: &Request) -> Said {
        if request.metadata.op_code != OpCode::Query {
            return Said::only(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else {
            return Said::only(ResponseCode::FormErr);
        };
        let name = Name::from(query.name().clone());
        match told_anybody(&self.protected, &letters(&name), query.query_type()) {
            Some(told) => Said::of(name, told),
            None => Said {
                is_cut: true,
                ..Said::only(ResponseCode::NoError)
            },
        }
    }

    /// Answers each question that comes by a connection, once all that has come is what its socket has said, as far as that is known. What comes behind is left
    /// unanswered, for the client to ask by another.
    pub(super) async fn answers_known(
        &self,
        stream: &mut TcpStream,
        peer: &Peer,
        asks: (&Caller, bool),
    ) -> io::Result<()> {
        let from = stream.peer_addr()?;
        let first_until = Instant::now() + FIRST;
        let (mut came, mut answered) = (Vec::new(), 0);
        while came.len() < KNOWN_BYTES_MAX {
            let mut next = [0; READ_BYTES];
            let room = READ_BYTES.min(KNOWN_BYTES_MAX - came.len());
            let read = stream.read(&mut next[..room]);
            let read = if answered == 0 {
                tokio::time::timeout_at(first_until, read).await??
            } else {
                read.await?
            };
            if read == 0 {
                return Ok(());
            }
            came.extend_from_slice(&next[..read]);
            if question(&came[answered..]).is_none() {
                continue;
            }
            match self.is_known(peer, &came) {
                Ok(true) => {}
                // The rest is on its way.
                Ok(false) => continue,
                Err(refusal) => {
                    let (agent, process) = (peer.agent.clone(), peer.process.clone());
                    self.refused.add(agent, Some(process), refusal);
                    return Ok(());
                }
            }
            while let Some(next) = question(&came[answered..]) {
                answered += LENGTH_BYTES + next.len();
                if !self.reply(stream, asks, next.to_vec(), from).await? {
                    return Ok(());
                }
            }
        }
        // What is closed while more comes is reset, and an answer on its way may be lost by that.
        stream.shutdown().await?;
        let mut behind = stream.take(UNANSWERED_BYTES_MAX);
        tokio::io::copy(&mut behind, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// Whether what came is all that the socket of the connection has said.
    fn is_known(&self, peer: &Peer, came: &[u8]) -> Result<bool, Refusal> {
        match self.callers.has_said(peer, came) {
            Some(Beside::This) => Ok(true),
            Some(Beside::More) => Ok(false),
            Some(Beside::Other) => {
                let what = "The question for a name that came is not what the process that connected has sent";
                Err(Refusal::new(Code::QuestionForeign, what))
            }
            None => {
                let what = "What the process that asks for a name has sent is not known any more, since too many connections have begun";
                Err(Refusal::new(Code::Overloaded, what))
            }
        }
    }

    /// No socket is known to have been led here that has this end: it was put on the loopback by hand, or thousands of others have asked since.
    fn not_led(&self, site: &Site) {
        let what = format!(
            "A question for a name{site} was not led here by the kernel, or came among too many for that to be known"
        );
        let refusal = Refusal::new(Code::CallerUnknown, what);
        self.refused.add_nobodys(Came::Question, site, refusal);
    }

    fn too_fast(&self, site: &Site) {
        let what = format!("Names are asked for too fast{site}");
        let refusal = Refusal::new(Code::Overloaded, what);
        self.refused.add_nobodys(Came::Question, site, refusal);
    }
}

/// The next question, behind its length, where it is whole.
fn question(rest: &[u8]) -> Option<&[u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    behind.get(..u16::from_be_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_next_once_all_of_it_has_come() {
        let all = [0, 2, 1, 2, 0, 0, 0, 1, 3];
        for cut in 0..4 {
            assert_eq!(question(&all[..cut]), None, "{cut}");
        }
        assert_eq!(question(&all), Some(&all[2..4]));
        assert_eq!(question(&all[4..]), Some(&[][..]));
        assert_eq!(question(&all[6..8]), None);
        assert_eq!(question(&all[6..]), Some(&[3][..]));
    }
}
