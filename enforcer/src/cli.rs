//! The command line. It holds no authority: it asks the daemon, and prints what it says.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

mod ask;
mod check;
mod check_client;
mod client;
mod decide;
mod detach;
mod doctor;
mod gcp;
mod log;
mod notify;
mod policy;
mod prove;
mod run;
mod show;
mod verify;
mod wait;

use enforcer_proto::text::safe_json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use enforcer_proto::id::{GrantId, RequestId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::Refusal;
use enforcer_proto::scope::Scope;
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
/// A command that was to be run is there, and cannot be; as of a shell.
const EXIT_NOT_RUN: u8 = 126;
/// It is not there; as of a shell.
const EXIT_NOT_FOUND: u8 = 127;

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

/// Prints JSON on a line, with nothing in it that would hide on a terminal.
fn say_json(value: &serde_json::Value) {
    println!("{}", safe_json(&value.to_string()));
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
    /// Ask a policy file, without a daemon.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// What Google is to be told of this host, whether the way to it is whole, and the change of the host's key.
    Gcp {
        #[command(subcommand)]
        command: gcp::GcpCommand,
    },
    /// Ask for a window (as an agent).
    Request {
        /// What: PROJECT.DATASET:read, :write or :ddl, or gs://BUCKET:read or :write; several with commas.
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
        /// Wait for the decision. Interrupted, the request stays pending.
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
        /// Less than was asked for: fewer datasets, or :read in place of :write.
        #[arg(long)]
        scope: Option<Scope>,
        /// Fewer bytes than were asked for.
        #[arg(long)]
        bytes_max: Option<u64>,
        /// Fewer queries.
        #[arg(long)]
        queries_max: Option<u64>,
        /// The digest of what you were shown: a request that has changed since is not approved. Absent: what this prints; with --json it prints
        /// nothing, and this must be named.
        #[arg(long)]
        seen: Option<String>,
        /// Sign with this key, by `ssh-keygen`: a private key, or a public one whose private key an agent or a FIDO key holds.
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
    },
    /// Open a window without the others whom the policy asks for, in an emergency: short, on record, and red until another has reviewed it.
    BreakGlass {
        /// Which request, such as r-17.
        request: RequestId,
        /// Why it cannot wait.
        #[arg(long)]
        reason: String,
        /// The digest of what you were shown, as for an approval.
        #[arg(long)]
        seen: Option<String>,
        /// Sign with this key, as for an approval.
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
    },
    /// Say that you have looked at a window that somebody else opened in an emergency.
    Review {
        /// Which, such as g-17.
        grant: GrantId,
        /// What there is to say of it.
        #[arg(long)]
        note: String,
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
    /// Keep an agent from windows, whatever the policy: the one it has ends, what it waits for is denied.
    Lock {
        /// Which.
        agent: AgentName,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let an agent have windows again.
    Unlock {
        /// Which.
        agent: AgentName,
    },
    /// End every window at once.
    CloseAll,
    /// Give a window back (as its agent).
    Close {
        /// Which, such as g-17.
        grant: GrantId,
    },
    /// Give back whatever window the calling agent holds.
    Done,
    /// Show windows, requests and health.
    Status {
        /// Show this request alone, such as r-17, however many others wait.
        #[arg(long)]
        request: Option<RequestId>,
    },
    /// Read the log, or search it: one line a record, oldest first. Over the daemon, or with --dir without one.
    #[command(args_conflicts_with_subcommands = true)]
    Log {
        #[command(flatten)]
        read: Box<log::ReadArgs>,
        #[command(subcommand)]
        command: Option<LogCommand>,
    },
    /// Say why something was allowed or refused: the rule and the policy in force, the facts, and the next step.
    Why {
        /// What: a query (q-17), a window (g-17), a request (r-17), or a record by its number.
        id: log::Id,
        #[command(flatten)]
        place: Box<log::PlaceArgs>,
    },
    /// Run a command inside an agent's workload: in a session and a terminal of its own, as the agent's uid, without a way to further
    /// privileges, with PATH, LANG, TERM and TZ of this environment and the client's variables. Exits as the command does. With --scope it asks for
    /// a window first, waits for the decision, and gives the window back as soon as the command or this process ends.
    Run {
        /// Which agent.
        #[arg(long)]
        agent: AgentName,
        /// Ask for a window for the command: PROJECT.DATASET:read, :write or :ddl, or gs://BUCKET:read or :write; several with commas.
        #[arg(long, requires = "reason")]
        scope: Option<Scope>,
        /// How long it is at most: 90s, 15m, 1h.
        #[arg(long, default_value = "15m", requires = "scope")]
        ttl: Ttl,
        /// Why, for the person who decides.
        #[arg(long, requires = "scope")]
        reason: Option<String>,
        /// Byte budget; the policy's when absent.
        #[arg(long, requires = "scope")]
        bytes_max: Option<u64>,
        /// Query budget; the policy's when absent.
        #[arg(long, requires = "scope")]
        queries_max: Option<u64>,
        /// The request that the command was started for.
        #[arg(long, hide = true)]
        window_of: Option<RequestId>,
        /// Another variable that the command gets (repeat it).
        #[arg(long, value_name = "NAME")]
        keep_env: Vec<String>,
        /// All that the command gets besides PATH.
        #[arg(long, value_name = "NAME=VALUE", hide = true)]
        only_env: Vec<String>,
        /// In a sandbox that has no network and whose system cannot be written, but for the working folder (bubblewrap). What leads out of it is
        /// BigQuery within a window, and what the agent is allowed besides. It is started in a folder of the command's own, such as ~/work: never in
        /// /tmp, /var/tmp or a folder above them, and nowhere in /run, /proc, /dev and /sys.
        #[arg(long)]
        sandbox: bool,
        /// The half that becomes the command.
        #[arg(long, hide = true)]
        inside: bool,
        /// What ties it to the other.
        #[arg(long, hide = true, requires = "inside")]
        tie: Option<i32>,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// The command of `run --sandbox`, in its sandbox.
    #[command(hide = true)]
    Sandboxed {
        /// A signal that the command was not to hear from the start.
        #[arg(long)]
        unheard: Vec<i32>,
        /// What ties it to `enforcer run`.
        #[arg(long)]
        tie: Option<i32>,
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
    /// Ask for names, in a process of its own.
    #[command(hide = true)]
    ProveAsking,
    /// Detach the kernel programs, for good: from then on nothing is enforced on this host (as root, the daemon stopped). On record first.
    Detach {
        #[command(flatten)]
        config: ConfigArg,
        /// Why, for the log.
        #[arg(long)]
        reason: String,
    },
    /// Try the hooks that are told of what happens.
    Notify {
        #[command(subcommand)]
        command: notify::NotifyCommand,
    },
    /// Have this host's clients trust the proxy, and see whether they do.
    Client {
        #[command(subcommand)]
        command: client::ClientCommand,
    },
}

#[derive(Subcommand, Debug)]
enum LogCommand {
    /// Check the whole chain on disk, offline, on whichever machine: names the first record that is bad, gaps, and what was cut off or
    /// rewritten since a checkpoint.
    Verify {
        /// The log's folder; of the configuration when absent.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// A file with a checkpoint, or with several one after the other, as kept by a witness.
        #[arg(long, requires = "key")]
        checkpoint: Option<PathBuf>,
        /// The public key, or a file with it: what `enforcer log key` prints.
        #[arg(long, requires = "checkpoint")]
        key: Option<String>,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Tell everything about a window, a request or a query as one story.
    Show {
        /// Which, such as g-17, r-17 or q-17.
        id: log::Id,
        #[command(flatten)]
        place: Box<log::PlaceArgs>,
    },
    /// Write the log for other programs, on standard output.
    Export {
        /// In which form.
        #[arg(long, value_enum)]
        format: log::Format,
        #[command(flatten)]
        filter: Box<log::FilterArgs>,
        #[command(flatten)]
        place: Box<log::PlaceArgs>,
    },
    /// Build the index of the log on disk, or bring it up to date. Searches with --dir do so by themselves; it can be removed at any time.
    Index {
        /// The log's folder; of the configuration when absent.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Where the index is; index.sqlite in the log's folder when absent.
        #[arg(long)]
        index: Option<PathBuf>,
        /// Begin anew.
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Print the public key that checkpoints are verified with (as root).
    Key(ConfigArg),
}

/// Why a command ended badly; decides the exit code.
enum Failure {
    Refused(Refusal),
    Unreachable(PathBuf, LinkError),
    /// The arguments do not go together.
    Usage(String),
    /// A command that was to be run did not begin.
    NotRun(OsString, std::io::Error),
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
        say_json(&serde_json::json!({"error": {"code": "usage", "message": message.trim_end()}}));
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
        Command::Policy { command } => return policy::run(command, cli.json),
        Command::Gcp { command } => return gcp::run(&command, cli.json),
        Command::Prove(arg) => return prove::prove(&arg.config, cli.json),
        Command::Detach { config, reason } => detach::detach(&config.config, reason, cli.json),
        Command::ProveAttempt { attempt } => prove::attempt(&attempt),
        Command::ProveAsking => prove::asking(),
        Command::Run {
            agent,
            scope,
            ttl,
            reason,
            bytes_max,
            queries_max,
            window_of,
            keep_env,
            only_env,
            sandbox,
            inside,
            tie,
            command,
        } => {
            let terms = scope.zip(reason);
            let terms = terms.map(|(scope, reason)| enforcer_proto::policy::Ask {
                scope,
                ttl,
                reason,
                bytes_max,
                queries_max,
            });
            return run::run(&run::Run {
                terms: terms.as_ref(),
                window_of,
                socket: &cli.socket,
                json: cli.json,
                agent: &agent,
                keep_env: &keep_env,
                only_env: &only_env,
                is_inside: inside,
                tie,
                is_sandboxed: sandbox,
                command: &command,
            });
        }
        Command::Sandboxed {
            unheard,
            tie,
            command,
        } => {
            return Err(run::sandbox::become_command(&unheard, tie, &command));
        }
        Command::Notify { command } => return notify::run(&cli.socket, command, cli.json),
        Command::Client { command } => return client::run(&cli.socket, &command, cli.json),
        Command::Log {
            command: Some(command),
            ..
        } => return log_command(&cli.socket, command, cli.json),
        Command::Log {
            read,
            command: None,
        } => log::read(&cli.socket, &read, cli.json),
        Command::Why { id, place } => log::why(&cli.socket, id, &place, cli.json),
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
            scope,
            bytes_max,
            queries_max,
            seen,
            sign,
        } => {
            let terms = decide::Terms {
                ttl,
                scope,
                bytes_max,
                queries_max,
                seen,
                sign,
            };
            decide::approve(&cli.socket, request, terms, cli.json)
        }
        Command::BreakGlass {
            request,
            reason,
            seen,
            sign,
        } => decide::break_glass(&cli.socket, request, reason, (seen, sign), cli.json),
        Command::Review { grant, note } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Review { grant, note },
            cli.json,
        ),
        Command::Deny { request, reason } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Deny { request, reason },
            cli.json,
        ),
        Command::Lock { agent, reason } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Lock { agent, reason },
            cli.json,
        ),
        Command::Unlock { agent } => ask::one(
            &cli.socket,
            enforcer_proto::wire::Ask::Unlock { agent },
            cli.json,
        ),
        Command::CloseAll => ask::one(&cli.socket, enforcer_proto::wire::Ask::CloseAll, cli.json),
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
        Command::Done => ask::one(&cli.socket, enforcer_proto::wire::Ask::Done, cli.json),
        Command::Status { request: None } => {
            ask::one(&cli.socket, enforcer_proto::wire::Ask::Status, cli.json)
        }
        Command::Status {
            request: Some(request),
        } => decide::show(&cli.socket, request, cli.json),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn log_command(socket: &Path, command: LogCommand, json: bool) -> Result<ExitCode, Failure> {
    let dir_or = |dir: Option<PathBuf>, config: &ConfigArg| {
        dir.map_or_else(
            || Config::load(&config.config).map(|config| config.audit_dir()),
            Ok,
        )
    };
    match command {
        LogCommand::Verify {
            dir,
            checkpoint,
            key,
            config,
        } => {
            let signed = checkpoint.zip(key);
            return verify::verify(&dir_or(dir, &config)?, signed.as_ref(), json);
        }
        LogCommand::Key(config) => verify::key(&config.config, json)?,
        LogCommand::Show { id, place } => log::show(socket, id, &place, json)?,
        LogCommand::Export {
            format,
            filter,
            place,
        } => log::export(socket, &filter, &place, format)?,
        LogCommand::Index {
            dir,
            index,
            rebuild,
            config,
        } => log::index(&dir_or(dir, &config)?, index.as_deref(), rebuild, json)?,
    }
    Ok(ExitCode::SUCCESS)
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
        Failure::Usage(message) => (EXIT_USAGE, "usage", message.clone()),
        Failure::NotRun(program, error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound {
                EXIT_NOT_FOUND
            } else {
                EXIT_NOT_RUN
            };
            let message = format!("cannot run {}: {error}", program.to_string_lossy());
            (code, "command.not_run", message)
        }
        Failure::Other(error) => (EXIT_ERROR, "failed", format!("{error:#}")),
    };
    if json {
        say_json(&serde_json::json!({"error": {"code": kind, "message": message}}));
    } else {
        eprintln!("enforcer: {message}");
    }
    ExitCode::from(code)
}
