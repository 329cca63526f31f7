//! The certificate authority that agents' clients trust: opened and published at the start, renewed in time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use crate::client_setup::Files;
use crate::clock::Clock;
use crate::config::Config;
use crate::dns::protected::permitted_subtrees;
use crate::proxy::authority::{Authority, AuthorityOptions};
use crate::roots;

/// How often the authority is asked whether it must be renewed.
const RENEW: Duration = Duration::from_secs(3600);

pub(super) fn open(
    config: &Config,
    names: &[String],
    clock: &dyn Clock,
    files: &Files,
) -> Result<Arc<Authority>> {
    make_dir(&config.state_dir, 0o700)?;
    make_dir(&config.run_dir, 0o755)?;
    let options = AuthorityOptions {
        dir: config.state_dir.clone(),
        host: config.host.clone(),
        permitted: permitted_subtrees(names, &config.universe),
    };
    let authority = Authority::open(options, clock.now())?;
    files.publish(&authority.pem(), &roots::system(&files.bundle))?;
    Ok(Arc::new(authority))
}

/// Makes a folder with these rights; one that exists keeps its own.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    made.with_context(|| format!("making the folder {}", path.display()))
}

pub(super) async fn renew(
    authority: Arc<Authority>,
    files: Files,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    while stop
        .run_until_cancelled(tokio::time::sleep(RENEW))
        .await
        .is_some()
    {
        let renewed = authority.renew(clock.now()).map_err(anyhow::Error::from);
        let done = renewed.and_then(|renewed| {
            if renewed {
                files.publish(&authority.pem(), &roots::system(&files.bundle))
            } else {
                Ok(())
            }
        });
        if let Err(error) = done {
            tracing::error!(error = %format!("{error:#}"), "the certificate authority could not be renewed");
        }
    }
}
