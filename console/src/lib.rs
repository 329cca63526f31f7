//! The terminal console: where security staff watch, approve, deny and revoke. It holds no authority: it shows what the daemon says, and asks.

mod app;
mod clock;
mod demo;
mod link;
mod recording;
mod replay;
mod run;
pub mod sheet;
mod theme;
mod twins;
mod view;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;

use clap::Parser;
use enforcer_proto::checkpoint::Verifier;
use enforcer_proto::text::{one_line, safe_json};

use app::signed::Signer;
use app::{Mode, Model};
use link::LinkError;
use recording::Recording;
use run::{MESSAGES_MAX, Screen};
use theme::Theme;
use twins::{Listed, Twin, TwinError};

/// Exit codes: the same as those of `enforcer`.
const EXIT_ERROR: u8 = 1;
const EXIT_REFUSED: u8 = 3;
const EXIT_UNREACHABLE: u8 = 4;

/// Watch windows and requests as they change, and decide on them. Without a command it takes the terminal; ? lists its keys.
#[derive(Parser, Debug)]
#[command(name = "enforcer-console", version)]
struct Cli {
    /// The daemon's control socket.
    #[arg(
        long,
        global = true,
        env = "ENFORCER_SOCKET",
        default_value = "/run/enforcer/control.sock"
    )]
    socket: PathBuf,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    /// Only look: nothing is asked for.
    #[arg(long, global = true)]
    read_only: bool,
    /// Colours: dark, light or plain. Plain where NO_COLOR is set.
    #[arg(long, value_enum)]
    theme: Option<Theme>,
    /// Let the mouse select and scroll; the terminal's own selection then takes shift.
    #[arg(long)]
    mouse: bool,
    /// Keep what is seen and typed in a new file, for `replay`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Check the signatures of the log's checkpoints with this key: the text that `enforcer log key` prints, or a file with it. Of commands `list health` takes it.
    #[arg(long, global = true, value_name = "KEY")]
    log_key: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Twin(Twin),
    /// Show a recording as it happened.
    Replay(replay::Args),
    /// Show the console with made-up agents, windows and queries.
    Demo(demo::Args),
}

impl Command {
    /// Whether it checks signatures.
    const fn takes_key(&self) -> bool {
        match self {
            Self::Twin(Twin::List { what }) => matches!(what, Listed::Health),
            Self::Twin(_) | Self::Replay(_) | Self::Demo(_) => false,
        }
    }
}

/// Runs the console, or the command that is asked for.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error, json),
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let is_no_color = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let theme = Theme::chosen(cli.theme, is_no_color);
    if cli.command.is_some() && cli.record.is_some() {
        anyhow::bail!(
            "--record keeps what the console itself shows of a daemon: commands, replay and demo have nothing to keep, so leave it out"
        );
    }
    if cli.mouse && matches!(cli.command, Some(Command::Twin(_) | Command::Replay(_))) {
        anyhow::bail!(
            "--mouse selects and scrolls in the console itself and in its demo: commands and recordings have nothing to select, so leave it out"
        );
    }
    let is_checked = cli.command.as_ref().is_none_or(Command::takes_key);
    if cli.log_key.is_some() && !is_checked {
        anyhow::bail!(
            "--log-key checks the log that the console itself follows, and `list health`: other commands print what the daemon says and check none of it; for a whole log there is `enforcer log verify --checkpoint FILE --key KEY`"
        );
    }
    let key = cli.log_key.as_deref();
    let key = key.map(app::signed::read_key).transpose()?;
    match cli.command {
        Some(Command::Twin(twin)) => {
            Ok(twins::run(&cli.socket, twin, cli.read_only, cli.json, key)?)
        }
        Some(Command::Replay(args)) => replay::run(&args, theme),
        Some(Command::Demo(args)) => demo::run(&args, theme, cli.mouse),
        None => watch(&cli, key, theme),
    }
}

fn watch(cli: &Cli, key: Option<Verifier>, theme: Theme) -> anyhow::Result<()> {
    // Asked once before the screen is taken: a daemon that refuses or is not there is said in plain text.
    let status = link::Link::to(&cli.socket)?.status()?;
    let mode = if cli.read_only {
        Mode::ReadOnly
    } else {
        Mode::Full
    };
    let record = cli.record.as_deref();
    let recording = record.map(|path| Recording::to(path, mode, key.as_ref()));
    let mut recording = recording.transpose()?.unwrap_or(Recording::none());
    let mut model = Model::new(mode);
    model.signer = Signer::new(key);
    let first = app::Msg::Status(Box::new(status));
    let lost = recording.take(0, &first);
    for msg in std::iter::once(first).chain(lost) {
        model.update(0, msg);
    }
    let (to, messages) = sync_channel(MESSAGES_MAX);
    let mut screen = Screen::take(cli.mouse)?;
    run::listen(&to)?;
    let deeds = link::feed::start(&cli.socket, &to);
    run::run(
        &mut screen,
        &mut model,
        theme,
        &messages,
        Some(&deeds),
        &mut recording,
    )
}

fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let link = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<LinkError>());
    let link = link.or_else(|| match error.downcast_ref::<TwinError>() {
        Some(TwinError::Link(link)) => Some(link),
        Some(
            TwinError::Unknown(_) | TwinError::ReadOnly | TwinError::Output(_) | TwinError::Json(_),
        )
        | None => None,
    });
    let (exit, code) = match link {
        Some(LinkError::Refused(refusal)) => (EXIT_REFUSED, refusal.code.as_str()),
        Some(LinkError::Unreachable(..) | LinkError::Broken(_) | LinkError::Wire(_)) => {
            (EXIT_UNREACHABLE, "daemon.unreachable")
        }
        Some(LinkError::SomethingElse(_)) | None => (EXIT_ERROR, "failed"),
    };
    let is_quiet = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|why| why.kind() == io::ErrorKind::BrokenPipe);
    if is_quiet && link.is_none() {
        return ExitCode::SUCCESS;
    }
    let said = format!("{error:#}");
    let _ = if json {
        let error = serde_json::json!({"error": {"code": code, "message": said}});
        writeln!(io::stdout(), "{}", safe_json(&error.to_string()))
    } else {
        writeln!(io::stderr(), "enforcer-console: {}", one_line(&said))
    };
    ExitCode::from(exit)
}
