//! `enforcer client`: sets this host's clients up, has them connect, and puts back what was there.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, anyhow, ensure};
use clap::{Args, Subcommand};
use enforcer_proto::principal::AgentName;

use super::{ConfigArg, EXIT_ERROR, Failure, check_client};
use crate::client_setup::container::{self, Runtime, Shared};
use crate::client_setup::{self, Change, Files, Found, Host, Part, Removal, Store, Wanted};
use crate::config::Config;
use crate::roots;

/// What is to be known of an unpacked root that is set up.
const COPIED: &str = "that root has copies of what the daemon publishes: set it up again when the daemon's CA is another. A container reads no profile: start it with `--env-file` and the root's etc/environment.d/60-enforcer-clients.conf, or with what `enforcer client setup --print` prints";

#[derive(Subcommand, Debug)]
pub(super) enum ClientCommand {
    /// Have this host's clients trust the proxy: the Cloud SDK's properties, variables for Python, gRPC and Node, the trust store.
    Setup {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        place: Place,
        /// Only this part (repeat it).
        #[arg(long, value_enum, value_name = "PART")]
        only: Vec<Part>,
        /// The Cloud SDK's folder, such as /opt/google-cloud-sdk; those that are found when absent.
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
        /// Change nothing, and print what a container's runtime is to be told instead: options for podman and docker, a fragment of a pod's manifest.
        #[arg(long, value_enum, value_name = "RUNTIME", conflicts_with_all = ["root", "dry_run", "only", "sdk"])]
        print: Option<Runtime>,
    },
    /// Have each client that is found connect to BigQuery's name from an agent's workload, and say which of them hear the proxy (as root).
    Check(CheckArgs),
    /// Put back what `setup` found, byte for byte.
    Remove {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args, Debug)]
pub(super) struct Place {
    /// An unpacked root instead of this host.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// In whose workload; the first agent of the configuration when absent.
    #[arg(long)]
    pub(super) agent: Option<AgentName>,
    /// The Cloud SDK's folder; those that are found when absent.
    #[arg(long, value_name = "DIR")]
    pub(super) sdk: Option<PathBuf>,
    /// An interpreter of Python besides the one on PATH, such as that of a virtual environment (repeat it).
    #[arg(long, value_name = "PROGRAM")]
    pub(super) python: Vec<PathBuf>,
    /// A Node besides the one on PATH (repeat it).
    #[arg(long, value_name = "PROGRAM")]
    pub(super) node: Vec<PathBuf>,
}

pub(super) fn run(socket: &Path, command: &ClientCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        ClientCommand::Setup {
            config,
            place,
            only,
            sdk,
            print: None,
        } => Ok(setup(&config.config, place, only, sdk.as_deref(), json)?),
        ClientCommand::Setup {
            config,
            print: Some(runtime),
            ..
        } => Ok(print(&config.config, *runtime, json)?),
        ClientCommand::Check(args) => check_client::check(socket, args, json),
        ClientCommand::Remove { config, place } => Ok(remove(&config.config, place, json)?),
    }
}

/// Where files are to be written.
fn host(place: &Place) -> anyhow::Result<Host> {
    match &place.root {
        Some(root) => Host::unpacked(root),
        None => Ok(Host::running()),
    }
}

fn setup(
    config: &Path,
    place: &Place,
    only: &[Part],
    sdk: Option<&Path>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let host = host(place)?;
    let files = Files::in_run_dir(&config.run_dir);
    let roots = roots::system(&files.bundle);
    let plan = client_setup::plan(&Wanted {
        host: &host,
        files: &files,
        roots: &roots,
        sdk,
        parts: if only.is_empty() { &Part::ALL } else { only },
        needs_token: config.metadata.is_none(),
    })?;
    let kept = host.kept(&config.state_dir)?;
    let mut found = Found::load(&kept)?;
    for step in &plan.steps {
        if step.is_needed() && !place.dry_run {
            step.apply(&mut found, &kept)?;
        }
        let word = match (step.is_needed(), place.dry_run) {
            (false, _) => "unchanged",
            (true, true) => "would write",
            (true, false) => "wrote",
        };
        say(&step.change, word, step.is_needed() && !place.dry_run, json);
    }
    for why in &plan.left_out {
        note(why, json);
    }
    if !host.is_running() {
        note(COPIED, json);
    }
    if let Some(store) = plan.store {
        update(&host, store, place.dry_run, json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what a runtime is to be told. Standard output has that alone, for a shell or a file; what people are to know besides goes to the other.
fn print(config: &Path, runtime: Runtime, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let shared = Shared::of(&config.run_dir, &config.socket())?;
    if json {
        crate::cli::say_json(&shared.json(runtime));
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", shared.text(runtime));
    for note in container::notes(runtime) {
        eprintln!("NOTE: {note}");
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(config: &Path, place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let host = host(place)?;
    let kept = host.kept(&config.state_dir)?;
    let mut found = Found::load(&kept)?;
    let removed = client_setup::remove(&host, &mut found, &kept, place.dry_run)?;
    if removed.is_empty() {
        note("nothing was set up here, or all of it was put back", json);
    }
    for one in &removed {
        let done = one.change.is_needed() && !place.dry_run;
        say(&one.change, one.removal.as_str(), done, json);
    }
    let is_store = |store: &Store| {
        let path = host.path(store.place());
        removed.iter().any(|one| one.change.path() == path)
    };
    if let Some(store) = host.store().filter(is_store) {
        update(&host, store, place.dry_run, json)?;
    }
    let is_left = removed.iter().any(|one| one.removal == Removal::Left);
    Ok(ExitCode::from(if is_left { EXIT_ERROR } else { 0 }))
}

/// Has the system make its trust store anew.
fn update(host: &Host, store: Store, is_dry_run: bool, json: bool) -> anyhow::Result<()> {
    let command = format!("{} {}", store.tool(), store.arguments().join(" "));
    if is_dry_run {
        note(&format!("would run {command}"), json);
        return Ok(());
    }
    if !host.is_running() {
        note(
            &format!(
                "to be run inside that root for what reads something else of it than the bundle of roots: {command}"
            ),
            json,
        );
        return Ok(());
    }
    let output = Command::new(store.tool())
        .args(store.arguments())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {command}"))?;
    ensure!(
        output.status.success(),
        "{command} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    note(&format!("ran {command}"), json);
    Ok(())
}

fn say(change: &Change, word: &str, is_done: bool, json: bool) {
    if json {
        crate::cli::say_json(
            &serde_json::json!({"path": change.path(), "what": word, "changes": change.is_needed(), "written": is_done, "diff": change.shown()}),
        );
    } else if change.is_needed() {
        print!("{}: {word}\n{}", change.path().display(), change.shown());
    } else {
        println!("{}: {word}", change.path().display());
    }
}

pub(super) fn note(text: &str, json: bool) {
    if json {
        crate::cli::say_json(&serde_json::json!({"note": text}));
    } else {
        println!("NOTE: {text}");
    }
}

/// The agent that is named, or the first.
pub(super) fn agent(config: &Config, named: Option<&AgentName>) -> anyhow::Result<AgentName> {
    let mut agents = config.agents.iter().map(|agent| &agent.name);
    let found = match named {
        Some(named) => agents.find(|agent| *agent == named),
        None => agents.next(),
    };
    found.cloned().ok_or_else(|| match named {
        Some(named) => anyhow!("the configuration has no agent {named}"),
        None => anyhow!("the configuration has no agent in whose workload clients could connect"),
    })
}
