//! Answers agents' questions for names, whichever server they were meant for: the kernel leads them here. What is said is decided in
//! `told`; this reads questions, asks the resolvers, and bounds what each agent may have.
//!
//! The messages are the library's; its sockets are not used: it bounds neither connections nor questions.

mod apart;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{Name, RData, Record};
use hickory_resolver::proto::serialize::binary::BinEncoder;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Names;
use super::marked::{self, Received};
use super::questions::Questions;
use super::told::{NamesRules, OWN_TTL_S, Told, answered, letters, told};
use crate::accept::{self, Ended, Place};
use crate::callers::{Bounds, Caller, Callers, Places, of_agent};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::namespaces::Site;
use crate::pace::{Bucket, Pace};
use crate::proxy::tls::ProtectedNames;
use crate::proxy::{Came, Coalesce};

/// What agents may have here.
pub const BOUNDS: Bounds = Bounds {
    connections: 4096,
    connections_per_agent: 128,
    connections_apart: 96,
    questions_per_agent: 64,
    pace: Pace {
        burst: 1000,
        per_second: 100,
    },
};
/// The longest question, bytes; a longer one is not answered.
const QUESTION_BYTES_MAX: usize = 4096;
/// The longest answer in a datagram, bytes (the DNS flag day's figure: it is never fragmented). Longer ones say that they are cut.
const DATAGRAM_BYTES_MAX: u16 = 1232;
/// The same for a client that does not say what it takes (RFC 1035).
const DATAGRAM_BYTES_PLAIN: u16 = 512;
/// How long a connection may wait for the next question, or for its client to read.
const IDLE: Duration = Duration::from_secs(10);

/// How long a connection may last in an agent's own network namespace.
const APART: Duration = Duration::from_secs(10);

/// What it is made of.
pub struct Responder {
    /// Knows who asks.
    pub callers: Arc<dyn Callers>,
    /// What the configuration says of each agent.
    pub rules: BTreeMap<AgentName, NamesRules>,
    /// BigQuery's names.
    pub protected: Arc<ProtectedNames>,
    /// Asks the resolvers.
    pub names: Names,
    /// What became of questions.
    pub questions: Arc<Questions>,
    /// Questions that were refused.
    pub refused: Arc<Coalesce>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What each agent may have at once.
    pub places: Places,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// In which network namespace questions come.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its cookie.
    pub netns: u64,
    /// Whether it has no network that this host's root has given it: then nothing is told there but what any strict agent is, since who has no way out would have one by asking
    /// for names that it makes.
    pub is_strict: bool,
    /// What is said of where it is.
    pub site: Site,
}

/// What is said of a question.
#[derive(Debug)]
struct Said {
    code: ResponseCode,
    records: Vec<Record>,
    authority: Vec<Record>,
    /// Whether it is to be asked again by a connection.
    is_cut: bool,
}

impl Said {
    const fn only(code: ResponseCode) -> Self {
        Self {
            code,
            records: Vec::new(),
            authority: Vec::new(),
            is_cut: false,
        }
    }

    /// Of a name, what was decided.
    fn of(name: Name, told: Told) -> Self {
        match told {
            Told::Address(ip) => {
                Self::records(vec![Record::from_rdata(name, OWN_TTL_S, RData::A(A(ip)))])
            }
            Told::Records(records) => Self::records(records),
            Told::Nothing => Self::only(ResponseCode::NoError),
            Told::NotServed => Self::only(ResponseCode::NotImp),
            // What was looked up is not looked up again.
            Told::LookUp => Self::only(ResponseCode::ServFail),
            Told::Refused(_) => Self::only(ResponseCode::Refused),
        }
    }

    fn records(records: Vec<Record>) -> Self {
        Self {
            records,
            ..Self::only(ResponseCode::NoError)
        }
    }
}

/// Serves datagrams in a network namespace until `stop`.
pub async fn serve_datagrams(
    responder: Arc<Responder>,
    (socket, namespace): (UdpSocket, Namespace),
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUESTION_BYTES_MAX + 1];
    // All that come here together have one agent's, where it cannot be told whose each is.
    let mut pace = Bucket::new(BOUNDS.pace);
    loop {
        match stop
            .run_until_cancelled(marked::receive(&socket, &mut buffer))
            .await
        {
            None => return,
            Some(Ok(received)) if received.length <= QUESTION_BYTES_MAX => {
                let question = &buffer[..received.length];
                let here = (&socket, &namespace);
                if namespace.site.is_apart() {
                    responder.to_anybody(here, (question, received.peer), &mut pace);
                } else {
                    responder.datagram(here, question.to_vec(), received);
                }
            }
            Some(Ok(_)) => {}
            // A client that has gone already, said by the kernel. So it is where somebody destroys sockets (`ss -K`): one for datagrams stays as it was.
            Some(Err(error)) => tracing::debug!(%error, "a question could not be received"),
        }
    }
}

/// Serves connections in a network namespace until `stop`, or as long as the listener listens.
pub async fn serve_connections(
    responder: Arc<Responder>,
    listener: (TcpListener, Arc<Semaphore>),
    namespace: Namespace,
    stop: CancellationToken,
) -> Ended {
    let serve = |stream, from, place| {
        let (responder, stop) = (Arc::clone(&responder), stop.clone());
        let namespace = namespace.clone();
        async move {
            let connection = responder.connection(stream, (from, place), &namespace);
            // One that goes on would keep the namespace alive.
            if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection with questions ended");
            }
        }
    };
    accept::each(
        listener,
        stop.clone(),
        || responder.places.connection(),
        serve,
    )
    .await
}

impl Responder {
    fn datagram(
        self: &Arc<Self>,
        (socket, namespace): (&Arc<UdpSocket>, &Namespace),
        question: Vec<u8>,
        received: Received,
    ) {
        let peer = received.peer;
        if self.callers.is_probe(received.mark, namespace.netns) {
            // What it asks is whether it is heard. Only root enters its cgroup.
            if let Err(error) = socket.try_send_to(&question, peer) {
                tracing::debug!(%error, "the daemon's own probe could not be answered");
            }
            return;
        }
        let Ok(port) = socket.local_addr().map(|own| own.port()) else {
            return;
        };
        let Some(caller) = self.callers.of_datagram(received.mark, peer, port) else {
            return self.of_nobody(&namespace.site);
        };
        let Some(place) = self
            .places
            .question_of(&caller.agent, self.clock.now().boot_ns)
        else {
            return self.too_many(caller);
        };
        let (responder, socket) = (Arc::clone(self), Arc::clone(socket));
        let is_strict = namespace.is_strict;
        tokio::spawn(async move {
            let asked = responder.answer((&caller, is_strict), question, peer, Protocol::Udp);
            let answer = asked.await;
            if let Some(answer) = answer
                && let Err(error) = socket.send_to(&answer, peer).await
            {
                tracing::debug!(%error, "an answer could not be sent");
            }
            drop(place);
        });
    }

    async fn connection(
        &self,
        mut stream: TcpStream,
        (from, place): (SocketAddr, Place),
        namespace: &Namespace,
    ) -> io::Result<()> {
        let (peer, caller) = match of_agent(self.callers.as_ref(), &stream, from).await {
            Ok(of_agent) => of_agent,
            Err(process) => {
                self.refused.add_unknown(from, &namespace.site, process);
                return Ok(());
            }
        };
        let asks = (&caller, namespace.is_strict);
        let _among_all = place.known();
        let Some(_of_agent) = self.places.connection_of(&caller.agent, peer.apart()) else {
            self.too_many(caller);
            return Ok(());
        };
        if peer.is_apart {
            // Others there may hold it in the agent's name: it does not last, and those of one namespace are fewer than the agent has.
            let answers = self.answers_known(&mut stream, &peer, asks);
            let answered = tokio::time::timeout(APART, answers).await;
            self.callers.forget_said(&peer);
            return answered.unwrap_or(Ok(()));
        }
        // Each message begins with its length (RFC 1035, 4.2.2).
        while let Ok(length) = tokio::time::timeout(IDLE, stream.read_u16()).await {
            let length = usize::from(length?);
            let mut question = vec![0; length];
            if length > QUESTION_BYTES_MAX {
                return Ok(());
            }
            tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await??;
            if !self.reply(&mut stream, asks, question, from).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers a question by the connection that it came by; whether another may follow.
    async fn reply(
        &self,
        stream: &mut TcpStream,
        (caller, is_strict): (&Caller, bool),
        question: Vec<u8>,
        from: SocketAddr,
    ) -> io::Result<bool> {
        let now_boot_ns = self.clock.now().boot_ns;
        if !self.places.take_of(&caller.agent, 1, now_boot_ns) {
            self.too_many(caller.clone());
            return Ok(false);
        }
        let _turn = self.places.turn_of(&caller.agent).await;
        let asked = self.answer((caller, is_strict), question, from, Protocol::Tcp);
        let Some(answer) = asked.await else {
            return Ok(false);
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let whole = [&length.to_be_bytes(), answer.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&whole)).await??;
        Ok(true)
    }

    /// No program of ours has marked it: it was put on the loopback by hand, which on this host's own takes rights that no agent has.
    fn of_nobody(&self, site: &Site) {
        let what = format!("A question for a name{site} came without the mark of an agent's");
        let refusal = Refusal::new(Code::CallerUnknown, what);
        self.refused.add_nobodys(Came::Question, site, refusal);
    }

    fn too_many(&self, caller: Caller) {
        let what = format!(
            "Agent {} asks for too many names at once, or too fast",
            caller.agent
        );
        let refusal = Refusal::new(Code::Overloaded, what);
        self.refused
            .add(Some(caller.agent), Some(caller.process), refusal);
    }

    /// The answer as it goes out; `None` for what is no question.
    async fn answer(
        &self,
        (caller, is_strict): (&Caller, bool),
        question: Vec<u8>,
        peer: SocketAddr,
        protocol: Protocol,
    ) -> Option<Vec<u8>> {
        let request = read(question, peer, protocol)?;
        let said = self.say(caller, is_strict, &request).await;
        self.questions.add(said.code);
        encode(&request, &said, protocol)
    }

    async fn say(&self, caller: &Caller, is_strict: bool, request: &Request) -> Said {
        if request.metadata.op_code != OpCode::Query {
            return Said::only(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else {
            return Said::only(ResponseCode::FormErr);
        };
        let name = Name::from(query.name().clone());
        let kind = query.query_type();
        let rules = self.rules.get(&caller.agent);
        let rules = rules.map(|rules| rules.within(is_strict));
        let mut told = told(
            &caller.agent,
            rules.as_deref(),
            &self.protected,
            &letters(&name),
            kind,
        );
        if told == Told::LookUp {
            told = match self.names.records(name.clone(), kind).await {
                Ok(found) => answered(&self.protected, kind, found.answers()),
                Err(error) => return not_found(&error),
            };
        }
        if let Told::Refused(refusal) = &told {
            let (agent, process) = (caller.agent.clone(), caller.process.clone());
            self.refused
                .add(Some(agent), Some(process), refusal.clone());
        }
        Said::of(name, told)
    }
}

/// A question; `None` for what is none.
fn read(question: Vec<u8>, from: SocketAddr, protocol: Protocol) -> Option<Request> {
    let request = Request::from_bytes(question, from, protocol).ok()?;
    (request.metadata.message_type == MessageType::Query).then_some(request)
}

/// That the resolvers said there is none, or said nothing, in our words.
fn not_found(error: &NetError) -> Said {
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
        let soa = none.soa.clone().map(|soa| soa.into_record_of_rdata());
        return Said {
            authority: soa.into_iter().collect(),
            ..Said::only(none.response_code)
        };
    }
    tracing::debug!(error = %Causes(error), "a look-up for an agent failed");
    Said::only(ResponseCode::ServFail)
}

fn encode(request: &Request, said: &Said, protocol: Protocol) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = said.code;
    metadata.recursion_available = true;
    metadata.truncation = said.is_cut;
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM_BYTES_MAX);
    let mut builder = MessageResponseBuilder::from_message_request(request);
    let mut limit = DATAGRAM_BYTES_PLAIN;
    if let Some(theirs) = &request.edns {
        limit = theirs
            .max_payload()
            .clamp(DATAGRAM_BYTES_PLAIN, DATAGRAM_BYTES_MAX);
        builder.edns(&edns);
    }
    if protocol == Protocol::Tcp {
        limit = u16::MAX;
    }
    let response = builder.build(metadata, &said.records, [], &said.authority, []);
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    match response.destructive_emit(&mut encoder) {
        Ok(_) => Some(bytes),
        Err(error) => {
            tracing::warn!(%error, "an answer could not be written");
            None
        }
    }
}
