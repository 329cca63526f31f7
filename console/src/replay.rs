//! A recording, shown as it happened: the same messages, drawn at the same sizes, make the same screens.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::app::Msg;
use crate::app::key::Key;
use crate::clock::Clock;
use crate::recording::{Reading, Recording, Stamped};
use crate::run::{self, MESSAGES_MAX, Screen};
use crate::theme::Theme;

/// What is replayed, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The recording.
    file: PathBuf,
    /// How many times as fast.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    speed: u32,
    /// Print what was on screen at the end, laid out for this size, and end: such as 120x40.
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
    let mut recording = Reading::whole(&args.file)?;
    let mut model = recording.model();
    if let Some(size) = args.print {
        while let Some(Stamped { at_ms, msg }) = recording.take()? {
            model.update(at_ms, msg);
        }
        return crate::demo::print(model, theme, size);
    }
    let (to, heard) = sync_channel(MESSAGES_MAX);
    let (own, typed) = sync_channel(MESSAGES_MAX);
    let mut screen = Screen::take(false)?;
    run::listen(&own)?;
    let ends = to.clone();
    std::thread::spawn(move || look_on(&typed, &ends));
    let speed = args.speed;
    let (failed, failure) = sync_channel(1);
    std::thread::spawn(move || {
        if let Err(why) = tell(recording, speed, &to) {
            let _ = failed.send(why);
            let _ = to.send(Msg::Key(Key::Ctrl('c')));
        }
    });
    run::run(
        &mut screen,
        &mut model,
        theme,
        &heard,
        None,
        &mut Recording::none(),
    )?;
    // Where its file has become another meanwhile, that is why it ended.
    failure.try_recv().map_or(Ok(()), Err)
}

/// Whoever looks on can only end it: other keys would make another story of it.
fn look_on(typed: &Receiver<Msg>, to: &SyncSender<Msg>) {
    for msg in typed {
        let msg = match msg {
            Msg::Key(Key::Char('q') | Key::Ctrl('c')) => Msg::Key(Key::Ctrl('c')),
            Msg::Resize => Msg::Resize,
            Msg::Signal(signal) => Msg::Signal(signal),
            Msg::Key(_)
            | Msg::Paste(_)
            | Msg::Click(..)
            | Msg::Tick
            | Msg::Drawn(..)
            | Msg::Unrecorded(_)
            | Msg::Recorded(..)
            | Msg::Status(_)
            | Msg::Records(..)
            | Msg::Lost { .. }
            | Msg::Answered { .. }
            | Msg::NotAsked { .. }
            | Msg::Shown(_)
            | Msg::Dropped(_)
            | Msg::Replaced { .. }
            | Msg::Proven(_)
            | Msg::Found { .. }
            | Msg::Explained { .. } => continue,
        };
        if to.send(msg).is_err() {
            return;
        }
    }
}

/// Tells what was recorded, each when it is due.
fn tell(mut recording: Reading, speed: u32, to: &SyncSender<Msg>) -> anyhow::Result<()> {
    let began = Clock::begin();
    while let Some(Stamped { at_ms, msg }) = recording.take()? {
        let due = Duration::from_millis(at_ms) / speed;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        if to.send(Msg::Recorded(at_ms, Box::new(msg))).is_err() {
            break;
        }
    }
    Ok(())
}
