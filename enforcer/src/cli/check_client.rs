//! `enforcer client check`: has the clients of this host connect from an agent's workload, with nothing but what the host sets for everybody.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::Ask;
use rustix::fs::Uid;

use super::client::{CheckArgs, agent, note};
use super::{EXIT_ERROR, Failure, ask};
use crate::client_setup::Host;
use crate::client_setup::check::{Attempt, Client, Named, Outcome, attempts, environment, judge};
use crate::config::Config;

/// How long one client may take; `bq` starts slowly on a busy host.
const ATTEMPT_MAX: Duration = Duration::from_secs(90);
/// What the proof does not reach.
const SERVICES: &str = "system services are told of the variables by EnvironmentFile=/etc/environment.d/60-enforcer-clients.conf in their units, containers by their own; `enforcer run` sets them itself";

/// Where and as whom the clients run.
struct Workload<'a> {
    socket: &'a Path,
    agent: AgentName,
    /// A home that is thrown away.
    home: tempfile::TempDir,
    /// What is set for the whole host.
    variables: Vec<(String, String)>,
}

/// Has each client connect. Any that does not hear the proxy makes the exit code one, and so does a host where none could be tried.
pub(super) fn check(socket: &Path, args: &CheckArgs, json: bool) -> Result<ExitCode, Failure> {
    let config = Config::load(&args.config.config)?;
    let host = Host::running();
    let runtime = ask::runtime()?;
    // Said once, rather than by each client.
    runtime.block_on(ask::ask_once(socket, &Ask::Status))?;
    let workload = workload(socket, &config, &host, args)?;
    let named = Named {
        sdk: args.sdk.as_deref(),
        pythons: &args.python,
        nodes: &args.node,
    };
    let (mut trusts, mut fails) = (0, 0);
    for client in Client::ALL {
        let attempts = attempts(&host, client, &named)?;
        if attempts.is_empty() {
            let why = "no such client is found here".to_owned();
            say(client, None, &Outcome::NotTried { why }, json);
        }
        for attempt in attempts {
            let outcome = runtime.block_on(workload.connect(&attempt))?;
            match outcome {
                Outcome::Trusts { .. } => trusts += 1,
                Outcome::Fails { .. } => fails += 1,
                Outcome::NotTried { .. } => {}
            }
            say(client, Some(&attempt.program), &outcome, json);
        }
    }
    note(SERVICES, json);
    if fails == 0 && trusts == 0 {
        return Err(Failure::Other(anyhow!(
            "no client could be tried, so nothing is shown: name one with --sdk, --python or --node"
        )));
    }
    Ok(ExitCode::from(if fails == 0 { 0 } else { EXIT_ERROR }))
}

fn workload<'a>(
    socket: &'a Path,
    config: &Config,
    host: &Host,
    args: &CheckArgs,
) -> anyhow::Result<Workload<'a>> {
    let agent = agent(config, args.agent.as_ref())?;
    let home = tempfile::tempdir().context("making a folder")?;
    let found = config.agents.iter().find(|one| one.name == agent);
    if let Some(uid) = found.and_then(|agent| agent.uid) {
        rustix::fs::chown(home.path(), Some(Uid::from_raw(uid)), None)
            .context("giving the agent a folder; run this as root")?;
    }
    Ok(Workload {
        socket,
        agent,
        home,
        variables: environment(host)?,
    })
}

impl Workload<'_> {
    /// Runs one client to its end.
    async fn connect(&self, attempt: &Attempt) -> anyhow::Result<Outcome> {
        let home = format!("HOME={}", self.home.path().display());
        let variables = self.variables.iter();
        let variables = variables.map(|(name, value)| format!("{name}={value}"));
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command
            .arg("--socket")
            .arg(self.socket)
            .args(["run", "--inside", "--agent", self.agent.as_str()])
            .args(
                variables
                    .chain([home])
                    .flat_map(|set| ["--only-env".to_owned(), set]),
            )
            .arg("--")
            .arg(&attempt.program)
            .args(&attempt.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().context("starting a process")?;
        let Ok(ended) = tokio::time::timeout(ATTEMPT_MAX, child.wait_with_output()).await else {
            let said = format!("no answer within {} s", ATTEMPT_MAX.as_secs());
            return Ok(Outcome::Fails { said });
        };
        let ended = ended.context("waiting for a client")?;
        let output = [ended.stdout, ended.stderr].concat();
        Ok(judge(
            ended.status.code(),
            &String::from_utf8_lossy(&output),
        ))
    }
}

fn say(client: Client, program: Option<&Path>, outcome: &Outcome, json: bool) {
    let (word, said) = match outcome {
        Outcome::Trusts { said } => ("TRUSTS", said),
        Outcome::Fails { said } => ("FAILS", said),
        Outcome::NotTried { why } => ("NOT TRIED", why),
    };
    if json {
        crate::cli::say_json(
            &serde_json::json!({"client": client.to_string(), "program": program, "outcome": word.to_lowercase().replace(' ', "_"), "said": said}),
        );
        return;
    }
    let program = program.map_or_else(String::new, |program| format!("{}: ", program.display()));
    println!("{word:<9}  {client:<6}  {program}{said}");
}
