//! `enforcer detach`: ends enforcement on purpose. Record, then detach: what cannot be recorded is not done.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use std::path::Path;

use anyhow::{Context, anyhow};
use enforcer_proto::event::Event;

use super::Failure;
use crate::audit::rebuild::rebuild;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::{kernel, workload};

/// Detaches everything of this configuration's that is pinned.
pub(super) fn detach(path: &Path, reason: String, json: bool) -> Result<(), Failure> {
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Err(anyhow!("only root can detach what root has attached").into());
    }
    let config = Config::load(path)?;
    let detached = kernel::let_go(&config.pin_dir, || {
        let boot_id = workload::boot_id().context("reading the boot id")?;
        let mut rebuilt = rebuild(&config.audit_dir(), &boot_id)?;
        let detached = Event::Detached {
            uid: uid.as_raw(),
            reason,
        };
        let aside = rebuilt.aside.into_iter();
        let aside = aside.map(|why| Event::SnapshotSetAside { why });
        let now = SystemClock.now();
        let events: Vec<_> = aside
            .chain([detached])
            .map(|event| (now, event.bounded()))
            .collect();
        rebuilt
            .opened
            .log
            .append(&events)
            .context("recording that the programs are detached; they still are attached")
    })?;
    if json {
        crate::cli::say_json(&serde_json::json!({"detached": detached}));
    } else {
        println!(
            "detached {}: every process of this host reaches BigQuery as the network lets it, until a daemon starts again",
            detached.join(", ")
        );
    }
    Ok(())
}
