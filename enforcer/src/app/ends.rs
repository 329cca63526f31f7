//! How the daemon ends: it is told to, what is under way has a while, and the log's last record is the last thing that happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;

/// How long what is under way may take to end when the daemon is stopped.
const DRAIN: Duration = Duration::from_secs(5);

/// Agents that require this service start only then. Where there is no service manager nobody listens.
pub(super) fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

pub(super) async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Lets tasks end, then the engine: its last record is the last thing that happens.
pub(super) async fn shut_down(
    stop: CancellationToken,
    tasks: &TaskTracker,
    engine: Engine,
    thread: std::thread::JoinHandle<()>,
) -> Result<()> {
    tracing::info!("stopping; the kernel goes on refusing");
    tell_service_manager(NotifyState::Stopping);
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("something is still under way, and is cut");
    }
    engine.stop().await;
    drop(engine);
    let joined = tokio::task::spawn_blocking(move || thread.join())
        .await
        .context("waiting for the engine")?;
    ensure!(
        joined.is_ok(),
        "the engine ended badly; its last words are above"
    );
    Ok(())
}
