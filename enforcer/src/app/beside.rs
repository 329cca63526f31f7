//! What is served to agents beside the proxy: answers to their questions for names, and the metadata server's stand-in.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::post::Post;
use crate::accept;
use crate::callers::{Callers, Places};
use crate::clock::Clock;
use crate::config::Config;
use crate::dns::questions::Questions;
use crate::dns::responder::{self, Namespace, Responder};
use crate::dns::{Names, NamesRules};
use crate::engine::OpenWindows;
use crate::listeners;
use crate::metadata::{self, Placeholders};
use crate::proxy::Coalesce;
use crate::proxy::tls::ProtectedNames;

/// What both need.
pub(super) struct Parts {
    pub(super) callers: Arc<dyn Callers>,
    pub(super) protected: Arc<ProtectedNames>,
    pub(super) refused: Arc<Coalesce>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) questions: Arc<Questions>,
    pub(super) windows: watch::Receiver<OpenWindows>,
}

/// Both, wherever agents are led to them.
#[derive(Clone)]
pub(super) struct Beside {
    responder: Arc<Responder>,
    metadata: Option<Arc<metadata::Server>>,
}

impl Beside {
    pub(super) fn new(parts: Parts, config: &Config, tls: &rustls::ClientConfig) -> Result<Self> {
        let placeholders =
            Placeholders::new(parts.windows.clone()).context("making placeholders")?;
        let metadata = config.metadata.as_ref().map(|metadata| {
            Arc::new(metadata::Server {
                callers: Arc::clone(&parts.callers),
                config: metadata.clone(),
                placeholders,
                clock: Arc::clone(&parts.clock),
                places: Places::new(metadata::BOUNDS),
                refused: Arc::clone(&parts.refused),
            })
        });
        Ok(Self {
            metadata,
            responder: Arc::new(parts.responder(config, tls)?),
        })
    }

    /// Serves these sockets, in that network namespace, until its post ends.
    pub(super) fn serve(
        &self,
        sockets: listeners::Beside,
        namespace: &Namespace,
        post: &Post,
        tasks: &TaskTracker,
    ) -> Result<()> {
        let (of_names, of_metadata) = (accept::unknown(), accept::unknown());
        for listener in sockets.names {
            let responder = Arc::clone(&self.responder);
            let listener = (listener, Arc::clone(&of_names));
            let here = namespace.clone();
            let serves = responder::serve_connections(responder, listener, here, post.stop.clone());
            post.spawn(tasks, serves);
        }
        for socket in sockets.datagrams {
            let socket = UdpSocket::from_std(socket).context("waiting for questions for names")?;
            let responder = Arc::clone(&self.responder);
            let socket = (socket, namespace.clone());
            tasks.spawn(responder::serve_datagrams(
                responder,
                socket,
                post.stop.clone(),
            ));
        }
        for listener in sockets.metadata {
            if let Some(server) = &self.metadata {
                let server = Arc::clone(server);
                let listener = (listener, Arc::clone(&of_metadata));
                let site = namespace.site.clone();
                let serves = metadata::serve(server, listener, site, post.stop.clone());
                post.spawn(tasks, serves);
            }
        }
        Ok(())
    }
}

impl Parts {
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
