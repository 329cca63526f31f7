//! The terminal console, in its first form: what waits, what is open, and whether all is well, as it changes. It only watches; deciding is
//! done with `enforcer approve`, `deny` and `revoke`. It holds no authority: it shows what the daemon says.

mod link;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use link::Link;
use view::Model;

/// How often the daemon is asked.
const REFRESH: Duration = Duration::from_millis(250);

/// Watch windows and requests as they change. Keys: q ends.
#[derive(Parser, Debug)]
#[command(name = "enforcer-console", version)]
struct Cli {
    /// The daemon's control socket.
    #[arg(
        long,
        env = "ENFORCER_SOCKET",
        default_value = "/run/enforcer/control.sock"
    )]
    socket: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut link = Link::new(cli.socket);
    // Asked once before the screen is taken over: a daemon that refuses or is not there is said in plain text.
    let mut model = Model::Live(link.status()?);
    let mut terminal = ratatui::try_init()?;
    let ended = watch(&mut terminal, &mut link, &mut model);
    ratatui::try_restore()?;
    ended
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    link: &mut Link,
    model: &mut Model,
) -> Result<()> {
    loop {
        terminal.draw(|frame| view::draw(frame, model))?;
        if event::poll(REFRESH)? && is_quit(&event::read()?) {
            return Ok(());
        }
        *model = match (link.status(), &*model) {
            (Ok(status), _) => Model::Live(status),
            (Err(error), Model::Live(last) | Model::Stale(last, _)) => {
                Model::Stale(last.clone(), format!("{error:#}"))
            }
        };
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
