//! What goes on beside the log: checkpoints and their witnesses, its index, and the check of what a start did not read.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use enforcer_proto::checkpoint::{Keyholder, Verifier};

use crate::audit::Watched;
use crate::audit::publish::{Kept, Publisher};
use crate::audit::verify::{Fault, examine};
use crate::audit::witness::{CommandWitness, WebWitness, Witness};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::search::Keeper;
use crate::upstream::Upstream;

/// How little a check in the background asks of the processor.
const NICE: i32 = 19;

/// Who signs checkpoints and hands them on, as configured.
pub(super) fn publisher(
    config: &Config,
    key: Keyholder,
    helpers: &Path,
    upstream: &Arc<Upstream>,
    clock: &Arc<dyn Clock>,
    watched: Arc<Watched>,
) -> Publisher {
    let command = config.audit.witness_command.as_ref();
    let command =
        command.map(|command| Arc::new(CommandWitness::new(command, helpers)) as Arc<dyn Witness>);
    let web = config.audit.witness_url.clone().map(|url| {
        Arc::new(WebWitness {
            url,
            upstream: Arc::clone(upstream),
        }) as Arc<dyn Witness>
    });
    Publisher {
        key,
        state_dir: config.state_dir.clone(),
        every: config.audit.checkpoint_every,
        witnesses: command.into_iter().chain(web).collect(),
        clock: Arc::clone(clock),
        watched,
    }
}

/// Keeps the log's index, on a thread of its own.
pub(super) fn index(
    config: &Config,
    engine: &Engine,
    watched: &Arc<Watched>,
) -> Result<Arc<Keeper>> {
    let keeper = Arc::new(Keeper::new(&config.audit_dir(), Arc::clone(watched)));
    keeper
        .keep(engine.records())
        .context("starting to keep the index of the log")?;
    Ok(keeper)
}

/// Checks the log, of which the start may have read a part only, and compares it with all that was signed of it, on a thread of its own; says what
/// is wrong with it. Windows are served meanwhile: what follows the snapshot was checked, and the snapshot's digest is in it.
pub(super) fn check_in_background(
    config: &Config,
    key: Verifier,
    watched: &Arc<Watched>,
) -> Result<()> {
    // First, since the log goes on: it has what was signed before.
    let kept = Kept::read(&config.state_dir);
    let audit_dir = config.audit_dir();
    let watched = Arc::clone(watched);
    let check = move || {
        // Of this thread alone; where it is refused the check is as fast as it is.
        let _ = rustix::process::setpriority_process(None, NICE);
        let signed = kept.signed(&key);
        watched.say("signed", signed.fault);
        let fault = match examine(&audit_dir, &signed.checkpoints) {
            Ok(report) => report.faults.first().map(Fault::why_with_record),
            Err(error) => Some(Causes(&error).to_string()),
        };
        // It is said as long as those checkpoints are there: whoever has put another log in its place moves them away.
        let fault = fault.map(|fault| {
            format!("the audit log does not verify, keep it as evidence, with checkpoints.txt (enforcer log verify names all of it): {fault}")
        });
        watched.say("chain", fault);
    };
    std::thread::Builder::new()
        .name("log-check".to_owned())
        .spawn(check)
        .map(drop)
        .context("starting the check of the log")
}
