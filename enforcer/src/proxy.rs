//! The proxy: what redirected connections meet. Every request is judged anew; only an admitted and recorded one is forwarded.
//!
//! [`serve`] accepts and asks the kernel whose the connection is; `shake` reads which server it wants, asks [`way`] where it may go, and
//! speaks TLS to agents; `splice` passes on what is neither an agent's nor BigQuery's; `session` speaks HTTP; [`request`] judges
//! what `asked` has understood, [`asking`] makes requests of what has no window ([`estimator`] says what those need), `start` what a job would do, and `relay` passes answers on, which `coded` has decoded and compresses anew; `grpc` does the same for what is spoken so;
//! [`forward`] is the only way to BigQuery for what an agent sent, and `allowed` the one to other names that it may reach; [`cut`] ends what
//! a closing window leaves open; [`closer`] cancels its jobs and drops its token.

mod allowed;
pub mod apis;
mod asked;
pub mod asking;
pub mod authority;
pub mod closer;
mod coalesce;
pub mod coded;
mod compare;
mod conditions;
pub mod cut;
pub mod estimator;
pub mod forward;
mod forwarded;
mod grpc;
pub mod hello;
pub mod pages;
mod parked;
mod peek;
mod presented;
pub mod quota;
mod relay;
pub mod request;
mod resets;
mod session;
mod shake;
mod splice;
mod start;
pub mod strict;
pub mod tls;
pub mod upload;
pub mod verdicts;
pub mod way;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::Refusal;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Ended, Place};
use crate::callers::{Callers, Peer};
use crate::clock::Clock;
use crate::engine::{Engine, OpenWindow, Requester};
use crate::namespaces::Site;
use crate::origin;
use crate::shared::Shared;
use crate::token::Credential;
use crate::upstream::Upstream;
use apis::Apis;
use asking::Asking;
pub use coalesce::{Came, Coalesce};
use estimator::Estimator;
pub use forwarded::Forwarded;
pub use grpc::Reads;
use pages::Pages;
pub use presented::Presented;
use quota::Quota;
pub use session::Session;
use shake::Shaken;
use tls::{ProtectedNames, TlsFront};
use upload::Uploads;
use verdicts::Verdicts;
use way::Rules;

/// How long a TLS handshake may take, its hello included.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// Tokens by window. They never leave the daemon.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// What to send with a request in an open window.
    ///
    /// # Errors
    /// [`TokenUnavailable`](enforcer_proto::refusal::Code::TokenUnavailable).
    async fn for_query(&self, window: &OpenWindow) -> Result<Credential, Refusal>;
    /// Begins to have one for queries, without waiting for it: it will be asked for soon.
    fn begin(&self, window: &OpenWindow);
    /// What to cancel jobs with, of a window that has closed: what is still held or, within the grace after the close, a token that is
    /// minted for this. It is never given out for a query.
    ///
    /// # Errors
    /// [`TokenUnavailable`](enforcer_proto::refusal::Code::TokenUnavailable).
    async fn for_cancel(&self, window: &OpenWindow) -> Result<Credential, Refusal>;
    /// BigQuery does not take this one: what of it is held is dropped, so that whoever asks next has another minted.
    async fn refused(&self, window: &OpenWindow, credential: &Credential);
    /// From now on no query of this window gets a token, whatever is held or under way; what is held stays for cancelling.
    fn close(&self, window: &OpenWindow);
    /// Drops and wipes whatever is held for a grant.
    async fn forget(&self, grant: GrantId);
}

/// What the proxy is made of.
pub struct Proxy {
    /// This host's name, for job labels.
    pub host: String,
    /// Decides and records.
    pub engine: Engine,
    /// Knows whose a connection is.
    pub origins: Arc<dyn Callers>,
    /// Where the processes come from that ask.
    pub processes: origin::Reader,
    /// Speaks TLS to agents.
    pub tls: TlsFront,
    /// BigQuery's names.
    pub protected: Arc<ProtectedNames>,
    /// Where jobs are looked at that the daemon before has left behind.
    pub apis: Arc<Apis>,
    /// What the configuration says of each agent.
    pub rules: BTreeMap<AgentName, Rules>,
    /// How long a connection that is passed on may take to be made.
    pub connect_timeout: Duration,
    /// Speaks TLS to Google.
    pub upstream: Arc<Upstream>,
    /// Has the tokens.
    pub tokens: Arc<dyn Tokens>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Requests to other names that agents are allowed.
    pub forwarded: Arc<Forwarded>,
    /// Counts the credentials of agents' own.
    pub presented: Arc<Presented>,
    /// Connections that never became a request, by who and why.
    pub refused: Arc<Coalesce>,
    /// What each agent may have at once.
    pub quota: Arc<Quota>,
    /// Loads whose data comes in parts.
    pub uploads: Uploads,
    /// Seals the tokens of next pages.
    pub pages: Arc<Pages>,
    /// Streams that rows are read from by gRPC.
    pub reads: Reads,
    /// What dry runs have said.
    pub verdicts: Arc<Verdicts>,
    /// Queries that wait for a window.
    pub asking: Asking,
    /// Says what they need besides what their texts name, where the operator has turned it on.
    pub estimator: Option<Estimator>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Takes up what the daemon before left behind in windows that are still open: jobs that run, or may. Before anything is served.
pub async fn take_up(proxy: &Arc<Proxy>) {
    let open = proxy.engine.windows().borrow().clone();
    for window in open.values() {
        let jobs = proxy.engine.unsettled(window.grant).await;
        for job in jobs.unwrap_or_default() {
            compare::take_up(proxy, window, job);
        }
    }
}

/// Serves one listener until `stop` or as long as it listens, and agents' connections that came by it until `gone`.
pub async fn serve(
    proxy: Arc<Proxy>,
    (listener, site): (TcpListener, Site),
    stop: CancellationToken,
    gone: CancellationToken,
) -> Ended {
    let serve = |stream, peer, place| {
        let (proxy, gone) = (Arc::clone(&proxy), gone.clone());
        proxy.connection(stream, (peer, site.clone()), place, gone)
    };
    accept::each(
        (listener, accept::unknown()),
        stop,
        || proxy.quota.connection(),
        serve,
    )
    .await
}

impl Proxy {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        (from, site): (SocketAddr, Site),
        place: Place,
        gone: CancellationToken,
    ) {
        let peer = match self.origins.origin(&stream, from).await {
            Ok(peer) => peer,
            Err(process) => {
                self.refused.add_unknown(from, &site, process);
                return reset(&stream);
            }
        };
        let place = place.known();
        match peer.agent.clone() {
            Some(agent) => {
                self.of_agent(stream, &peer, agent, &gone).await;
                drop(place);
            }
            None => {
                // Only agents' connections keep a place among theirs.
                drop(place);
                self.of_nobody(stream, &peer).await;
            }
        }
    }

    /// A connection of somebody who is no agent: passed on untouched, unless BigQuery is wanted.
    async fn of_nobody(&self, stream: TcpStream, peer: &Peer) {
        let place = self.quota.connection_of_nobody(peer.process.uid);
        let _place = match place {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse(peer, refusal);
                return reset(&stream);
            }
        };
        let socket = Shared::new(stream);
        let shaken = self.shake(&socket, peer, None).await;
        drop(socket);
        let Some(Shaken::Splice(stream)) = shaken else {
            return;
        };
        let (came, client) = stream.into_parts();
        let Some(client) = client.into_inner() else {
            return;
        };
        // To where the kernel says it wanted, never to what the name would resolve to now.
        let connecting = TcpStream::connect(peer.destination);
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(server)) => {
                // The two ends decide how to cut what they send; waiting for more here only adds latency.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                splice::splice(client, &came, server, splice::IDLE).await;
            }
            Ok(Err(_)) | Err(_) => reset(&client),
        }
    }

    async fn of_agent(
        self: Arc<Self>,
        stream: TcpStream,
        peer: &Peer,
        agent: AgentName,
        gone: &CancellationToken,
    ) {
        let _place = match self.quota.connection_of(&agent, peer.apart()) {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse(peer, refusal);
                return reset(&stream);
            }
        };
        // The end of an answer does not wait for the client to acknowledge what came before. Failing to set it costs nothing else.
        let _ = stream.set_nodelay(true);
        // To reset it while the other holder is deep inside TLS and HTTP.
        let socket = Shared::new(stream);
        let barred = self.barred(&agent, &peer.process).await;
        // In a place of its own, which goes with the handshake: the connection lives long, and keeps what its task was made with.
        let shaken = Box::pin(self.shake(&socket, peer, barred.as_ref())).await;
        let Some(Shaken::Agent(accepted, serves)) = shaken else {
            return;
        };
        let requester = Requester {
            container: self.processes.container(&peer.process).await,
            agent,
            session: self.engine.begin_session(),
            process: peer.process.clone(),
        };
        self.session(*accepted, serves, requester, barred, (&socket, gone))
            .await;
    }

    /// Why a process in an agent's workload goes nowhere, if so.
    async fn barred(&self, agent: &AgentName, process: &Process) -> Option<Refusal> {
        let executables = &self.rules.get(agent)?.executables;
        executables.look(agent, process).await.err()
    }

    fn refuse(&self, peer: &Peer, refusal: Refusal) {
        let (agent, process) = (peer.agent.clone(), peer.process.clone());
        self.refused.add(agent, Some(process), refusal);
    }
}

/// Closes without a farewell: what was not led here gets not one byte.
fn reset(stream: &impl AsFd) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed and not reset");
    }
}
