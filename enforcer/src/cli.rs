//! The command line. It holds no authority: it asks the daemon, and prints what it says.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

mod ask;
mod check;
mod detach;
mod log;
mod prove;
mod run;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use enforcer_proto::id::{GrantId, RequestId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::Refusal;
use enforcer_proto::scope::{DatasetRef, Scope};
use enforcer_proto::time::Ttl;

use crate::causes::Causes;
use crate::config::{Config, DEFAULT_PATH};
use crate::control::LinkError;

/// Where the daemon listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/enforcer/control.sock";
/// Something failed.
const EXIT_ERROR: u8 = 1;
/// The arguments are wrong.
const EXIT_USAGE: u8 = 2;
/// The daemon said no; the refusal's code says why.
const EXIT_REFUSED: u8 = 3;
/// The daemon could not be reached.
const EXIT_UNREACHABLE: u8 = 4;

/// Just-in-time BigQuery access for agents: ask for a window, decide on it, watch it close by itself.
#[derive(Parser, Debug)]
#[command(
    name = "enforcer",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 refused, 4 daemon not reachable."
)]
struct Cli {
    /// The daemon's control socket.
    #[arg(long, global = true, env = "ENFORCER_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct ConfigArg {
    /// The configuration file.
    #[arg(long, default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon: attach the kernel programs, serve the proxy and the control socket.
    Daemon(ConfigArg),
    /// Check the configuration and the policy, and print them resolved. Changes nothing.
    Check(ConfigArg),
    /// Ask for a window (as an agent).
    Request {
        /// What: PROJECT.DATASET:read, several datasets with commas.
        #[arg(long)]
        scope: Scope,
        /// How long: 90s, 15m, 1h.
        #[arg(long, default_value = "15m")]
        ttl: Ttl,
        /// Why, for the person who decides.
        #[arg(long)]
        reason: String,
        /// Byte budget; the policy's when absent.
        #[arg(long)]
        bytes_max: Option<u64>,
        /// Query budget; the policy's when absent.
        #[arg(long)]
        queries_max: Option<u64>,
        /// Wait for the decision.
        #[arg(long)]
        wait: bool,
    },
    /// Approve a request; it may be shortened and narrowed.
    Approve {
        /// Which, such as r-17.
        request: RequestId,
        /// A shorter ttl.
        #[arg(long)]
        ttl: Option<Ttl>,
        /// Only these datasets (repeat it).
        #[arg(long = "dataset")]
        datasets: Vec<DatasetRef>,
        /// The digest of what you were shown: a request that has changed since is not approved.
        #[arg(long)]
        seen: Option<String>,
    },
    /// Deny a request.
    Deny {
        /// Which, such as r-17.
        request: RequestId,
        /// Why, for the one who asked.
        #[arg(long)]
        reason: String,
    },
    /// End a window at once (as a person).
    Revoke {
        /// Which, such as g-17.
        grant: GrantId,
    },
    /// Give a window back (as its agent).
    Close {
        /// Which, such as g-17.
        grant: GrantId,
    },
    /// Show windows, requests and health.
    Status,
    /// Read the log.
    Log {
        /// Go on as records come.
        #[arg(long)]
        follow: bool,
        /// Only what concerns this grant.
        #[arg(long)]
        grant: Option<GrantId>,
        /// Only what concerns this agent.
        #[arg(long)]
        agent: Option<AgentName>,
        #[command(subcommand)]
        verify: Option<LogCommand>,
    },
    /// Run a command inside an agent's workload: in a session and a terminal of its own, as the agent's uid, without a way to further
    /// privileges, with PATH, LANG, TERM and TZ of this environment and the client's variables. Exits as the command does.
    Run {
        /// Which agent.
        #[arg(long)]
        agent: AgentName,
        /// Another variable that the command gets (repeat it).
        #[arg(long, value_name = "NAME")]
        keep_env: Vec<String>,
        /// The half that becomes the command.
        #[arg(long, hide = true)]
        inside: bool,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Try every way out of this host toward a throw-away endpoint, and say which are blocked (as root). Harmless, and under a minute.
    Prove(ConfigArg),
    /// One of those attempts, in a process of its own.
    #[command(hide = true)]
    ProveAttempt {
        /// What to try, as JSON.
        #[arg(long)]
        attempt: String,
    },
    /// Detach the kernel programs, for good: from then on nothing is enforced on this host (as root, the daemon stopped). On record first.
    Detach {
        #[command(flatten)]
        config: ConfigArg,
        /// Why, for the log.
        #[arg(long)]
        reason: String,
    },
    /// Set clients up to trust the proxy.
    Client {
        #[command(subcommand)]
        command: ClientCommand,
    },
}

#[derive(Subcommand, Debug)]
enum LogCommand {
    /// Check the whole chain on disk; names the first record that is bad.
    Verify {
        /// The log's folder; of the configuration when absent.
        #[arg(long)]
        dir: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArg,
    },
}

#[derive(Subcommand, Debug)]
enum ClientCommand {
    /// Write the CA bundle, the Cloud SDK's properties and the environment file.
    Setup {
        #[command(flatten)]
        config: ConfigArg,
        /// The Cloud SDK's folder, such as /usr/lib/google-cloud-sdk; its properties file is changed in place.
        #[arg(long)]
        sdk: Option<PathBuf>,
        /// Where to write the environment file for login shells and services.
        #[arg(long)]
        env_file: Option<PathBuf>,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Why a command ended badly; decides the exit code.
enum Failure {
    Refused(Refusal),
    Unreachable(PathBuf, LinkError),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let json = cli.json;
    if !matches!(cli.command, Command::Daemon(_)) {
        end_quietly_with_the_reader();
    }
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => report(&failure, json),
    }
}

/// What clap says of the arguments: as JSON where that was asked for, on its usual stream and with its exit code otherwise.
fn report_usage(error: &clap::Error) -> ExitCode {
    let is_mistake = error.use_stderr();
    if is_mistake && std::env::args_os().any(|argument| argument == "--json") {
        let message = error.render().to_string();
        println!(
            "{}",
            serde_json::json!({"error": {"code": "usage", "message": message.trim_end()}})
        );
    } else if let Err(error) = error.print() {
        tracing::debug!(%error, "nobody reads what is said");
    }
    ExitCode::from(if is_mistake { EXIT_USAGE } else { 0 })
}

/// `enforcer log | head` ends like any other command when its reader has seen enough. The daemon must not: it has no such reader.
#[expect(
    unsafe_code,
    reason = "the standard library ignores SIGPIPE and has no way to say otherwise"
)]
fn end_quietly_with_the_reader() {
    // SAFETY: the default action runs no code of ours, and no other thread has been started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[expect(clippy::too_many_lines, reason = "one arm for each command")]
fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let done = match cli.command {
        Command::Daemon(arg) => Ok(crate::app::run(&arg.config)?),
        Command::Check(arg) => check::check(&arg.config, cli.json),
        Command::Prove(arg) => return prove::prove(&arg.config, cli.json),
        Command::Detach { config, reason } => detach::detach(&config.config, reason, cli.json),
        Command::ProveAttempt { attempt } => prove::attempt(&attempt),
        Command::Run {
            agent,
            keep_env,
            inside,
            command,
        } => {
            return run::run(&run::Run {
                socket: &cli.socket,
                json: cli.json,
                agent: &agent,
                keep_env: &keep_env,
                is_inside: inside,
                command: &command,
            });
        }
        Command::Client {
            command:
                ClientCommand::Setup {
                    config,
                    sdk,
                    env_file,
                    dry_run,
                },
        } => Ok(run::client_setup(
            &config.config,
            sdk.as_deref(),
            env_file.as_deref(),
            dry_run,
            cli.json,
        )?),
        Command::Log {
            verify: Some(LogCommand::Verify { dir, config }),
            ..
        } => {
            let dir = dir.map_or_else(
                || Config::load(&config.config).map(|config| config.audit_dir()),
                Ok,
            )?;
            log::verify(&dir, cli.json)
        }
        Command::Log {
            follow,
            grant,
            agent,
            verify: None,
        } => ask::log(&cli.socket, &log::Filter { grant, agent }, follow, cli.json),
        Command::Request {
            scope,
            ttl,
            reason,
            bytes_max,
            queries_max,
            wait,
        } => {
            let ask = enforcer_proto::policy::Ask {
                scope,
                ttl,
                reason,
                bytes_max,
                queries_max,
            };
            ask::request(&cli.socket, ask, wait, cli.json)
        }
        Command::Approve {
            request,
            ttl,
            datasets,
            seen,
        } => {
            let datasets = (!datasets.is_empty()).then_some(datasets);
            ask::one(
                &cli.socket,
                enforcer_proto::wire::Ask::Approve {
                    request,
                    seen,
                    ttl,
                    datasets,
                },
                cli.json,
            )
        }
        Command::Deny { request, reason } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Deny { request, reason },
            cli.json,
        ),
        Command::Revoke { grant } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Revoke { grant },
            cli.json,
        ),
        Command::Close { grant } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Close { grant },
            cli.json,
        ),
        Command::Status => ask::one(&cli.socket, enforcer_proto::wire::Ask::Status, cli.json),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    let (code, kind, message) = match failure {
        Failure::Refused(refusal) => (
            EXIT_REFUSED,
            refusal.code.as_str(),
            format!("refused: {refusal}"),
        ),
        Failure::Unreachable(socket, error) => {
            let message = format!(
                "the enforcer's daemon cannot be reached at {}: {}. Is it running (enforcer daemon)? Is --socket right?",
                socket.display(),
                Causes(error)
            );
            (EXIT_UNREACHABLE, "daemon.unreachable", message)
        }
        Failure::Other(error) => (EXIT_ERROR, "failed", format!("{error:#}")),
    };
    if json {
        println!(
            "{}",
            serde_json::json!({"error": {"code": kind, "message": message}})
        );
    } else {
        eprintln!("enforcer: {message}");
    }
    ExitCode::from(code)
}
