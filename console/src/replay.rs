//! A recording, shown as it happened: the same messages make the same screens.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::layout::Rect;

use crate::app::key::Key;
use crate::app::{Mode, Model, Msg};
use crate::clock::Clock;
use crate::run::{self, MESSAGES_MAX, Recording, Screen, Stamped};
use crate::theme::Theme;
use crate::view;

/// The longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is replayed, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The recording.
    file: PathBuf,
    /// How many times as fast.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    speed: u32,
    /// Print the screen as it is at the end, this large, and end: such as 120x40.
    #[arg(long, value_name = "COLUMNSxROWS", value_parser = size)]
    print: Option<(u16, u16)>,
}

/// A size such as 120x40.
pub(crate) fn size(text: &str) -> Result<(u16, u16), String> {
    let (width, height) = text
        .split_once('x')
        .ok_or_else(|| "write it as 120x40".to_owned())?;
    let number = |text: &str| {
        let number = text.parse::<u16>().ok();
        let fits = number.filter(|number| (1..=500).contains(number));
        fits.ok_or_else(|| format!("`{text}` is not between 1 and 500"))
    };
    Ok((number(width)?, number(height)?))
}

pub(crate) fn run(args: &Args, theme: Theme) -> anyhow::Result<()> {
    let messages = read(&args.file)?;
    if let Some(size) = args.print {
        let mut model = Model::new(Mode::Replay);
        for Stamped { at_ms, msg } in messages {
            view::fit(&mut model, Rect::new(0, 0, size.0, size.1));
            model.update(at_ms, msg);
        }
        return crate::demo::print(model, theme, size);
    }
    let (to, heard) = sync_channel(MESSAGES_MAX);
    let (own, typed) = sync_channel(MESSAGES_MAX);
    let mut screen = Screen::take(false)?;
    run::listen(&own)?;
    let ends = to.clone();
    // Whoever looks on can only end it: other keys would make another story of it.
    std::thread::spawn(move || {
        for msg in typed {
            let msg = match msg {
                Msg::Key(Key::Char('q') | Key::Ctrl('c')) => Msg::Key(Key::Ctrl('c')),
                Msg::Resize => Msg::Resize,
                Msg::Signal(signal) => Msg::Signal(signal),
                Msg::Key(_)
                | Msg::Paste(_)
                | Msg::Click(..)
                | Msg::Tick
                | Msg::Recorded(..)
                | Msg::Status(_)
                | Msg::Records(..)
                | Msg::Lost { .. }
                | Msg::Answered { .. }
                | Msg::Shown(_)
                | Msg::Dropped(_)
                | Msg::Replaced { .. }
                | Msg::Proven(_)
                | Msg::Found { .. }
                | Msg::Explained { .. } => continue,
            };
            if ends.send(msg).is_err() {
                return;
            }
        }
    });
    let speed = args.speed;
    std::thread::spawn(move || {
        let began = Clock::begin();
        for Stamped { at_ms, msg } in messages {
            let due = Duration::from_millis(at_ms) / speed;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            if to.send(Msg::Recorded(at_ms, Box::new(msg))).is_err() {
                return;
            }
        }
    });
    let mut model = Model::new(Mode::Replay);
    run::run(
        &mut screen,
        &mut model,
        theme,
        &heard,
        None,
        &mut Recording::to(None)?,
    )
}

fn read(path: &Path) -> anyhow::Result<Vec<Stamped>> {
    let file = File::open(path)
        .with_context(|| format!("the recording {} cannot be read", path.display()))?;
    let mut lines = BufReader::new(file);
    let mut messages = Vec::new();
    loop {
        let mut line = Vec::new();
        let mut bounded = std::io::Read::take(&mut lines, LINE_BYTES_MAX);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let nth = messages.len() + 1;
        match serde_json::from_slice(&line) {
            Ok(stamped) => messages.push(stamped),
            // What was cut off by the end of the console that kept it.
            Err(_) if !line.ends_with(b"\n") => break,
            Err(why) => bail!(
                "line {nth} of {} is no line of a recording of this release: {why}",
                path.display()
            ),
        }
    }
    Ok(messages)
}
