//! All that agents are led to, wherever it listens: on this host, and in each network namespace that agents are in.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Result;
use tokio_util::task::TaskTracker;

use super::beside::Beside;
use super::post::Post;
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
    /// Serves the sockets of one network namespace until its post ends.
    ///
    /// # Errors
    /// When the runtime cannot wait for one of them; what was begun ends with the post.
    pub(super) fn serve(&self, sockets: Sockets, post: &Post, tasks: &TaskTracker) -> Result<()> {
        let namespace = Namespace {
            netns: sockets.netns,
            is_strict: sockets.is_strict,
            site: post.site.clone(),
        };
        self.beside.serve(sockets.beside, &namespace, post, tasks)?;
        self.serve_proxy(sockets.proxy, post, tasks);
        Ok(())
    }

    /// Serves the proxy's alone.
    pub(super) fn serve_proxy(
        &self,
        listeners: Vec<TcpListener>,
        post: &Post,
        tasks: &TaskTracker,
    ) {
        for listener in listeners {
            let proxy = Arc::clone(&self.proxy);
            let (stop, gone) = (post.stop.clone(), post.gone.clone());
            let listener = (listener, post.site.clone());
            post.spawn(tasks, proxy::serve(proxy, listener, stop, gone));
        }
    }
}
