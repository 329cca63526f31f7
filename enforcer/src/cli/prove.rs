//! `enforcer prove`: runs the proofs and prints them as they come.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use enforcer_proto::text::safe_json;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use enforcer_proto::wire::Enforce;

use super::{EXIT_ERROR, Failure, ask};
use crate::config::Config;
use crate::prove::attempt::Attempt;
use crate::prove::{Outcome, Proof, is_shown};
use crate::workload;
use crate::workloads::{Sought, find};

/// What is to be known of a proof where no daemon runs.
const NO_DAEMON: &str = "no daemon answers at its control socket, so nobody guards the interface that this proof has just made: what is REACHED under packet- has left by that one. This host's own interfaces are those under frame-on/";

/// Tries every way out. Any that reaches the endpoint makes the exit code one, and so does a host where too little can be tried.
pub(super) fn prove(config: &Path, json: bool) -> Result<ExitCode, Failure> {
    let config = Config::load(config)?;
    let has_daemon = std::os::unix::net::UnixStream::connect(config.socket()).is_ok();
    let note = (!has_daemon).then_some(NO_DAEMON);
    let names = config.protected_names();
    let root = config.cgroup_root.map_or_else(workload::find_mount, Ok)?;
    // From a cgroup that is enforced on: where that is only agents', the first that is there.
    let root = match config.enforce {
        Enforce::Agents => {
            let wanted: Vec<_> = config.agents.iter().map(|agent| &agent.workload).collect();
            let there = |sought| match sought {
                Sought::At(folder) => Some(folder),
                Sought::Absent | Sought::InDoubt { .. } => None,
            };
            let mut there = find(&root, &wanted).into_iter().filter_map(there);
            there.next().context(
                "only agents are enforced on, and no workload of one is there: start one",
            )?
        }
        Enforce::Host => root,
    };
    if let Some(note) = note.filter(|_| !json) {
        println!("NOTE: {note}");
    }
    let print = |proof: &Proof| {
        if !json {
            println!("{}", line(proof));
        }
    };
    let proofs = ask::runtime()?.block_on(crate::prove::prove(&root, &names, print))?;
    let count = |is: fn(&Outcome) -> bool| proofs.iter().filter(|proof| is(&proof.outcome)).count();
    let blocked = count(|outcome| matches!(outcome, Outcome::Blocked { .. }));
    let reached = count(|outcome| matches!(outcome, Outcome::Reached { .. }));
    let not_tried = count(|outcome| matches!(outcome, Outcome::NotTried { .. }));
    if json {
        let all = serde_json::json!({"paths": proofs, "blocked": blocked, "reached": reached, "not_tried": not_tried, "note": note});
        println!(
            "{}",
            safe_json(&serde_json::to_string_pretty(&all).context("printing the proofs")?)
        );
    } else {
        println!("{blocked} blocked, {reached} reached, {not_tried} not tried");
    }
    if reached > 0 {
        return Ok(ExitCode::from(EXIT_ERROR));
    }
    if !is_shown(&proofs) {
        return Err(Failure::Other(anyhow!(
            "too little could be tried to show anything: see why above. A firewall or a routing rule of this host's own may stand before the enforcer; prove it without"
        )));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(proof: &Proof) -> String {
    let (word, detail) = match &proof.outcome {
        Outcome::Blocked { saw } => ("BLOCKED", saw.clone()),
        Outcome::Reached { saw, .. } => ("REACHED", saw.clone()),
        Outcome::NotTried { why } => ("NOT TRIED", why.clone()),
    };
    let who = if proof.privileged {
        " (takes a capability)"
    } else {
        ""
    };
    format!(
        "{word:<9}  {:<28}  {}{who}: {detail}",
        proof.path, proof.words
    )
}

/// Asks for names, and says on standard output why it was not heard.
pub(super) fn asking() -> Result<(), Failure> {
    let asked = crate::prove::ask();
    if let Err(error) = &asked {
        println!("{error}");
    }
    Ok(asked.context("asking for names")?)
}

/// Goes one way, and says on standard output how it ended.
pub(super) fn attempt(attempt: &str) -> Result<(), Failure> {
    let attempt: Attempt = serde_json::from_str(attempt).context("reading what to try")?;
    println!(
        "{}",
        safe_json(&serde_json::to_string(&attempt.make()).context("saying how it ended")?)
    );
    Ok(())
}
