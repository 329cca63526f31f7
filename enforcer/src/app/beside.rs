//! What is served to agents beside the proxy: answers to their questions for names, and the metadata server's stand-in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{listen, not_bound};
use crate::callers::{Callers, Places};
use crate::clock::Clock;
use crate::config::Config;
use crate::dns::marked;
use crate::dns::questions::Questions;
use crate::dns::responder::{self, Responder};
use crate::dns::{Names, NamesRules};
use crate::metadata;
use crate::proxy::Coalesce;
use crate::proxy::tls::ProtectedNames;

/// What both need.
pub(super) struct Beside {
    pub(super) callers: Arc<dyn Callers>,
    pub(super) protected: Arc<ProtectedNames>,
    pub(super) refused: Arc<Coalesce>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) questions: Arc<Questions>,
    /// Where it is served.
    pub(super) loopback: &'static [IpAddr],
}

impl Beside {
    pub(super) async fn serve(
        self,
        config: &Config,
        tls: &rustls::ClientConfig,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<()> {
        if let Some(metadata) = &config.metadata {
            let server = Arc::new(metadata::Server {
                callers: Arc::clone(&self.callers),
                config: metadata.clone(),
                clock: Arc::clone(&self.clock),
                places: Places::new(metadata::BOUNDS),
                refused: Arc::clone(&self.refused),
            });
            for ip in self.loopback.iter().copied() {
                let listener = listen(ip, metadata.port, "metadata.port")?;
                tasks.spawn(metadata::serve(Arc::clone(&server), listener, stop.clone()));
            }
        }
        let loopback = self.loopback;
        let responder = Arc::new(self.responder(config, tls)?);
        for ip in loopback.iter().copied() {
            let listener = listen(ip, config.names_port, "names.port")?;
            let address = SocketAddr::new(ip, config.names_port);
            let socket = UdpSocket::bind(address).await;
            let socket = socket.map_err(|error| not_bound(address, "names.port", error))?;
            marked::tell_marks(&socket).context("having the marks of questions told")?;
            let of = || (Arc::clone(&responder), stop.clone());
            let (connections, stop) = of();
            tasks.spawn(responder::serve_connections(connections, listener, stop));
            let (datagrams, stop) = of();
            tasks.spawn(responder::serve_datagrams(datagrams, socket, stop));
        }
        Ok(())
    }

    fn responder(self, config: &Config, tls: &rustls::ClientConfig) -> Result<Responder> {
        let rules = config.agents.iter().map(|agent| {
            let rules = NamesRules {
                which: agent.names,
                allow: agent.allow.clone(),
            };
            (agent.name.clone(), rules)
        });
        Ok(Responder {
            callers: self.callers,
            rules: rules.collect(),
            protected: self.protected,
            names: Names::for_agents(&config.resolvers, tls)?,
            questions: self.questions,
            refused: self.refused,
            clock: self.clock,
            places: Places::new(responder::BOUNDS),
        })
    }
}
