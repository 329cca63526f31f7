//! The doctor's parts: within the daemon those that it goes by itself, and without one what is there, of which nothing is made and nothing attached.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::open_upstream;
use super::tokens::{self, Minters, TheirKeys};
use crate::client_setup::Files;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::dns::Names;
use crate::doctor::{Doctor, Ways};
use crate::proxy::apis::Apis;
use crate::roots;
use crate::upstream::{self, Upstream};
use crate::workload;

/// What the daemon goes by.
pub(super) struct Daemons<'a> {
    pub(super) tls: &'a rustls::ClientConfig,
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) minters: &'a Arc<Minters>,
    pub(super) clock: &'a Arc<dyn Clock>,
}

/// The daemon's doctor. Its tokens are counted nowhere: what it finds is for whoever asked.
pub(super) fn of_daemon(config: &Config, digest: String, parts: Daemons<'_>) -> Result<Doctor> {
    of(config, digest, parts, false)
}

fn of(config: &Config, digest: String, parts: Daemons<'_>, is_alone: bool) -> Result<Doctor> {
    let names = config.protected_names();
    let ways = Ways {
        upstream: Arc::clone(parts.upstream),
        names: Arc::new(Names::fresh(&config.resolvers, parts.tls)?),
        minter: Arc::clone(parts.minters) as _,
        keys: Arc::new(TheirKeys {
            minters: Arc::clone(parts.minters),
            state_dir: config.state_dir.clone(),
            store: config.token.keys().clone(),
        }),
        clock: Arc::clone(parts.clock),
        api: Apis::of(&names, &config.universe).first(),
        is_alone,
    };
    Ok(Doctor::new(config.clone(), digest, ways))
}

/// A doctor where no daemon runs.
///
/// # Errors
/// What of the host keeps it from looking at all: its roots, its resolvers.
pub(crate) async fn without_daemon(config: &Config) -> Result<Doctor> {
    let files = Files::in_run_dir(&config.run_dir);
    let tls = upstream::verified_tls(roots::system(&files.bundle), config.upstream_ca.as_deref())
        .context("setting up TLS")?;
    let upstream = open_upstream(config, &tls, None)?;
    let helpers = helpers(config).context("making the cgroup that gcloud runs in")?;
    let minters = tokens::minters_there(config, &upstream, &helpers).await;
    let parts = Daemons {
        tls: &tls,
        upstream: &upstream,
        minters: &Arc::new(minters),
        clock: &(Arc::new(SystemClock) as Arc<dyn Clock>),
    };
    of(config, config.digest(), parts, true)
}

/// The cgroup below which programs run, made where one may be: only gcloud is.
fn helpers(config: &Config) -> std::io::Result<PathBuf> {
    if !config.may_run_gcloud() {
        return Ok(config.helpers_cgroup());
    }
    let root = config.cgroup_root.clone();
    let root = root.map_or_else(workload::find_mount, Ok)?;
    let folder = root.join(config.helpers_cgroup());
    workload::make(&folder)?;
    Ok(folder)
}
