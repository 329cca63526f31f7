//! Questions for names from an agent's own network namespace, in which others may make packets and change them. A datagram is anybody's there: it is told
//! what everybody is, and all else is to be asked by a connection. Of that the kernel knows whose it is and what its socket said first, and only that is
//! answered.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enforcer_ebpf::opening::{OPENING_BYTES_MAX, Said as Beside};
use enforcer_proto::refusal::{Code, Refusal};
use hickory_resolver::proto::op::{OpCode, ResponseCode};
use hickory_resolver::proto::rr::Name;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};

use super::super::told::{letters, told_anybody};
use super::{Namespace, Responder, Said, encode, read};
use crate::callers::{Caller, Peer};
use crate::namespaces::Site;
use crate::pace::Bucket;
use crate::proxy::Came;

/// The most that is read of a connection there, bytes: what its socket said first is known so far.
const FIRST_BYTES_MAX: usize = OPENING_BYTES_MAX as usize;
/// How many questions of one connection are answered there: both families' of a few names.
const QUESTIONS_MAX: usize = 16;
/// How long all of that may take to come: whoever may make packets there can have an agent's connection begin and not go on.
const FIRST: Duration = Duration::from_secs(3);

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

    /// Answers the questions that a connection begins with, once they are all that its socket has said; none where they are not.
    pub(super) async fn answers_first(
        &self,
        stream: &mut TcpStream,
        peer: &Peer,
        asks: (&Caller, bool),
    ) -> io::Result<()> {
        let questions = tokio::time::timeout(FIRST, self.begins_with(stream, peer)).await??;
        let from = stream.peer_addr()?;
        for question in questions.into_iter().take(QUESTIONS_MAX) {
            if !self.reply(stream, asks, question, from).await? {
                break;
            }
        }
        Ok(())
    }

    async fn begins_with(&self, stream: &mut TcpStream, peer: &Peer) -> io::Result<Vec<Vec<u8>>> {
        let mut came = Vec::with_capacity(FIRST_BYTES_MAX + 1);
        loop {
            if stream.read_buf(&mut came).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match self.callers.has_said(peer, &came) {
                Some(Beside::This) => {
                    if let Some(questions) = whole(&came) {
                        return Ok(questions);
                    }
                }
                Some(Beside::More) => {}
                Some(Beside::Other) => return Ok(self.foreign(peer)),
                None => return Ok(self.forgotten(peer)),
            }
        }
    }

    fn foreign(&self, peer: &Peer) -> Vec<Vec<u8>> {
        let what = "The question for a name that came is not what the process that connected has sent, or is longer than is known of that (4096 bytes)";
        self.not_answered(peer, Refusal::new(Code::QuestionForeign, what))
    }

    fn forgotten(&self, peer: &Peer) -> Vec<Vec<u8>> {
        let what = "What the process that asks for a name has sent is not known any more, since too many connections have begun";
        self.not_answered(peer, Refusal::new(Code::Overloaded, what))
    }

    fn not_answered(&self, peer: &Peer, refusal: Refusal) -> Vec<Vec<u8>> {
        let process = Some(peer.process.clone());
        self.refused.add(peer.agent.clone(), process, refusal);
        Vec::new()
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

/// The messages, each behind its length (RFC 1035, 4.2.2), where the last is whole and there is one.
fn whole(came: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut messages, mut rest) = (Vec::new(), came);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (message, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
        messages.push(message.to_vec());
        rest = behind;
    }
    (rest.is_empty() && !messages.is_empty()).then_some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_where_the_last_is() {
        let ab = [[1_u8, 2].to_vec(), Vec::new(), [3].to_vec()];
        let all = [0, 2, 1, 2, 0, 0, 0, 1, 3];
        assert_eq!(whole(&all).as_deref(), Some(ab.as_slice()));
        for cut in [1, 2, 3, 5, 7, 8] {
            assert_eq!(whole(&all[..cut]), None, "{cut}");
        }
        assert_eq!(whole(&[]), None);
        assert_eq!(whole(&all[..4]).as_deref(), Some(&ab[..1]));
    }
}
