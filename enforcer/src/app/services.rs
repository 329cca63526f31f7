//! All that agents are led to, wherever it listens: on this host, and in each network namespace that agents are in.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::beside::Beside;
use crate::dns::responder::Namespace;
use crate::listeners::Sockets;
use crate::proxy::{self, Proxy};

/// The services. Whoever is led to them is known by the kernel's word, and not by where they came.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) proxy: Arc<Proxy>,
    pub(super) beside: Beside,
}

impl Services {
    /// Serves the sockets of one network namespace until `stop`, and what came by them until `gone`.
    ///
    /// # Errors
    /// When the runtime cannot wait for one of them; what was begun ends with `stop`.
    pub(super) fn serve(
        &self,
        sockets: Sockets,
        (stop, gone): (&CancellationToken, &CancellationToken),
        tasks: &TaskTracker,
    ) -> Result<()> {
        let namespace = Namespace {
            netns: sockets.netns,
            is_strict: sockets.is_strict,
        };
        self.beside.serve(sockets.beside, namespace, stop, tasks)?;
        self.serve_proxy(sockets.proxy, (stop, gone), tasks);
        Ok(())
    }

    /// Serves the proxy's alone.
    pub(super) fn serve_proxy(
        &self,
        listeners: Vec<TcpListener>,
        (stop, gone): (&CancellationToken, &CancellationToken),
        tasks: &TaskTracker,
    ) {
        for listener in listeners {
            let proxy = Arc::clone(&self.proxy);
            tasks.spawn(proxy::serve(proxy, listener, stop.clone(), gone.clone()));
        }
    }
}
