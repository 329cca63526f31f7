//! The loop: takes what happens, has the model take it in, performs what comes of it, and draws when something has changed. Decides nothing.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use anyhow::Context;
use crossterm::event::{
    self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEventKind,
};
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use ratatui::Frame;
use ratatui::layout::Rect;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

use crate::app::key::Key;
use crate::app::reading::Shown;
use crate::app::{Effect, Mode, Model, Msg};
use crate::clock::Clock;
use crate::link::feed::Deeds;
use crate::recording::Recording;
use crate::sheet;
use crate::theme::{Role, Theme};
use crate::view;

/// The most messages that are taken in before the screen is drawn again.
const MESSAGES_PER_FRAME: usize = 64;
/// The most messages that are taken in as ahead of a question: more than wait where keys are typed and not poured in.
const AHEAD_MAX: usize = 4 * MESSAGES_MAX;
/// How many messages may wait.
pub(crate) const MESSAGES_MAX: usize = 256;
/// How long a frame lasts at least.
const FRAME: Duration = Duration::from_millis(16);
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(500);

/// The terminal, as long as the console has it. It is given back whatever happens: at the end, on an error, on a panic.
pub(crate) struct Screen {
    terminal: ratatui::DefaultTerminal,
    has_mouse: bool,
}

impl Screen {
    /// # Errors
    /// Where there is no terminal, or it cannot be taken.
    pub(crate) fn take(has_mouse: bool) -> anyhow::Result<Self> {
        let terminal = ratatui::try_init()
            .context("there is no terminal to draw on; for scripts there is `enforcer-console list`, and --help names the rest")?;
        // The hook that ratatui has set gives back the rest.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back(has_mouse);
            before(panic);
        }));
        execute!(io::stdout(), EnableBracketedPaste)?;
        if has_mouse {
            execute!(io::stdout(), EnableMouseCapture)?;
        }
        Ok(Self {
            terminal,
            has_mouse,
        })
    }
}

impl Screen {
    /// Gives the terminal back, has a signal do what it does by itself, and takes the terminal again where the console is still there then.
    fn give_way(&mut self, signal: i32) -> anyhow::Result<()> {
        if signal != SIGCONT {
            give_back(self.has_mouse);
            ratatui::restore();
            signal_hook::low_level::emulate_default_handler(signal)?;
        }
        enable_raw_mode()?;
        execute!(
            io::stdout(),
            EnterAlternateScreen,
            EnableBracketedPaste,
            Clear(ClearType::All)
        )?;
        if self.has_mouse {
            execute!(io::stdout(), EnableMouseCapture)?;
        }
        // What was drawn last is forgotten, so that all is drawn. To clear would ask the terminal where its cursor is, and whoever reads keys has the answer.
        self.terminal.swap_buffers();
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(self.has_mouse);
        ratatui::restore();
    }
}

fn give_back(has_mouse: bool) {
    let _ = execute!(io::stdout(), DisableBracketedPaste);
    if has_mouse {
        let _ = execute!(io::stdout(), DisableMouseCapture);
    }
}

/// Starts what reads keys, and what hears signals.
pub(crate) fn listen(to: &SyncSender<Msg>) -> io::Result<()> {
    let keys = to.clone();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Some(msg) = message(event)
                && keys.send(msg).is_err()
            {
                return;
            }
        }
        // The terminal is gone.
        let _ = keys.send(Msg::Key(Key::Ctrl('c')));
    });
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGCONT])?;
    let heard = to.clone();
    std::thread::spawn(move || {
        for signal in &mut signals {
            let msg = if matches!(signal, SIGQUIT | SIGTSTP | SIGCONT) {
                Msg::Signal(signal)
            } else {
                Msg::Key(Key::Ctrl('c'))
            };
            if heard.send(msg).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// What an event of the terminal is to the console; `None` for what is nothing to it.
fn message(event: Event) -> Option<Msg> {
    match event {
        Event::Key(key) => key_of(key).map(Msg::Key),
        Event::Paste(text) => Some(Msg::Paste(text)),
        Event::Resize(..) => Some(Msg::Resize),
        Event::Mouse(mouse) => match mouse.kind {
            MouseEventKind::Down(_) => Some(Msg::Click(mouse.column, mouse.row)),
            MouseEventKind::ScrollDown => Some(Msg::Key(Key::Down)),
            MouseEventKind::ScrollUp => Some(Msg::Key(Key::Up)),
            MouseEventKind::Up(_)
            | MouseEventKind::Drag(_)
            | MouseEventKind::Moved
            | MouseEventKind::ScrollLeft
            | MouseEventKind::ScrollRight => None,
        },
        Event::FocusGained | Event::FocusLost => None,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a terminal has many more keys, and none of them does anything"
)]
fn key_of(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let has_others = key
        .modifiers
        .intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META);
    let key = match key.code {
        KeyCode::Char(_) if has_others => return None,
        KeyCode::Char(c) if is_control => Key::Ctrl(c),
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        _ => return None,
    };
    Some(key)
}

/// Runs until it is told to end.
pub(crate) fn run(
    screen: &mut Screen,
    model: &mut Model,
    theme: Theme,
    messages: &Receiver<Msg>,
    deeds: Option<&Deeds>,
    recording: &mut Recording,
) -> anyhow::Result<()> {
    let mut taking = Taking {
        clock: Clock::begin(),
        deeds,
        recording,
    };
    loop {
        if model.is_dirty {
            let drawn = Clock::begin();
            let shown = draw(screen, model, theme, taking.recording)?;
            model.is_dirty = false;
            if let Some(shown) = shown.filter(|shown| model.learns(shown)) {
                // Whatever was pressed before this screen could be seen is taken in before it counts as seen.
                let ahead: Vec<Msg> = messages.try_iter().take(AHEAD_MAX).collect();
                // Where more may wait, it is not known to be all.
                let is_all = ahead.len() < AHEAD_MAX;
                let seen = is_all.then_some(Msg::Shown(shown));
                if taking.all(model, screen, &mut ahead.into_iter().chain(seen))? {
                    return Ok(());
                }
                model.is_dirty |= !is_all;
            }
            std::thread::sleep(FRAME.saturating_sub(drawn.elapsed()));
            // What changed by being seen is drawn at once.
            if model.is_dirty {
                continue;
            }
        }
        let first = match messages.recv_timeout(taking.patience(model)) {
            Ok(msg) => msg,
            Err(RecvTimeoutError::Timeout) => Msg::Tick,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let more = messages.try_iter().take(MESSAGES_PER_FRAME);
        if taking.all(model, screen, &mut std::iter::once(first).chain(more))? {
            return Ok(());
        }
        if let Some(lost) = taking.recording.flush() {
            model.update(model.at_ms, lost);
        }
    }
}

/// Draws the screen, and gives what it shows of a question. How large it is, is part of what happens: a page is as long as the screen.
fn draw(
    screen: &mut Screen,
    model: &mut Model,
    theme: Theme,
    recording: &mut Recording,
) -> io::Result<Option<Shown>> {
    if model.mode.is_replay() {
        // What a recording shows was read on a screen of its own size, and is told so by it.
        let picture = sheet::picture(model, theme);
        let note = theme.style(Role::Warning);
        let show = |frame: &mut Frame<'_>| sheet::show(frame.buffer_mut(), &picture, note);
        screen.terminal.draw(show)?;
        return Ok(None);
    }
    let (mut drawn, mut shown) = (Msg::Tick, None);
    screen.terminal.draw(|frame| {
        let area = frame.area();
        drawn = Msg::Drawn(area.width, area.height);
        model.update(model.at_ms, drawn.clone());
        shown = view::shown(model);
        view::draw(frame, model, theme);
    })?;
    if let Some(lost) = recording.take(model.at_ms, &drawn) {
        model.update(model.at_ms, lost);
    }
    Ok(shown)
}

/// What taking in messages needs.
struct Taking<'a> {
    clock: Clock,
    deeds: Option<&'a Deeds>,
    recording: &'a mut Recording,
}

impl Taking<'_> {
    /// The console's clock, milliseconds. In a recording only its own goes on: what was taken then is taken at any speed, and nothing else is.
    fn at_ms(&self, model: &Model) -> u64 {
        match model.mode {
            Mode::Replay { .. } => model.at_ms,
            Mode::Full | Mode::ReadOnly | Mode::Demo => self.clock.ms(),
        }
    }

    /// How long a message is waited for: until something on screen is due.
    fn patience(&self, model: &Model) -> Duration {
        if model.mode.is_replay() {
            // What is due there comes with the recording.
            return TICK;
        }
        let due_ms = model
            .question()
            .and_then(|question| question.standing.due_ms())
            .map(|due_ms| due_ms.saturating_sub(self.at_ms(model)))
            .filter(|left_ms| *left_ms > 0);
        due_ms.map_or(TICK, |left_ms| TICK.min(Duration::from_millis(left_ms)))
    }

    /// Keeps what was taken in.
    fn keep(&mut self, model: &mut Model, at_ms: u64, msg: Option<Msg>) {
        let lost = msg.and_then(|msg| self.recording.take(at_ms, &msg));
        if let Some(lost) = lost {
            model.update(at_ms, lost);
        }
    }

    /// Has the model take in messages, and performs what comes of them. Gives whether the console is to end.
    fn all(
        &mut self,
        model: &mut Model,
        screen: &mut Screen,
        messages: &mut dyn Iterator<Item = Msg>,
    ) -> anyhow::Result<bool> {
        for msg in messages {
            let msg = if let Msg::Signal(signal) = msg {
                screen.give_way(signal)?;
                // What was on screen was gone for a while.
                Msg::Resize
            } else {
                on_list(model, screen, msg)?
            };
            let (at_ms, msg) = if let Msg::Recorded(at_ms, msg) = msg {
                (at_ms, *msg)
            } else if model.mode.is_replay() {
                // What happens to whoever looks on is no part of the recording.
                model.is_dirty |= msg == Msg::Resize;
                if msg == Msg::Key(Key::Ctrl('c')) {
                    return Ok(true);
                }
                continue;
            } else {
                (self.at_ms(model), msg)
            };
            let kept = self.recording.is_on().then(|| msg.clone());
            let effects = model.update(at_ms, msg);
            if effects.contains(&Effect::Quit) {
                return Ok(true);
            }
            // What ends the console is not part of what was seen.
            self.keep(model, at_ms, kept);
            for effect in effects {
                let refused = self.deeds.and_then(|deeds| deeds.ask(effect));
                if let Some(msg) = refused {
                    model.update(at_ms, msg.clone());
                    self.keep(model, at_ms, Some(msg));
                }
            }
        }
        Ok(false)
    }
}

/// A click's row as the list counts it.
fn on_list(model: &Model, screen: &Screen, msg: Msg) -> io::Result<Msg> {
    let Msg::Click(column, row) = msg else {
        return Ok(msg);
    };
    let size = screen.terminal.size()?;
    let above = view::rows_above(model, Rect::new(0, 0, size.width, size.height)) + 1;
    Ok(match row.checked_sub(above) {
        Some(row) => Msg::Click(column, row),
        None => Msg::Tick,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[ignore = "it is run by the one below, in a terminal"]
    fn panics_with_the_screen_taken() {
        let _screen = Screen::take(true).expect("a terminal");
        panic!("on purpose");
    }

    #[test]
    fn the_terminal_is_given_back_before_a_panic_is_told() {
        let own = std::env::current_exe().expect("this test");
        let child = "run::tests::panics_with_the_screen_taken";
        let command = format!(
            "{} --ignored --exact --nocapture {child}; stty -a",
            own.display()
        );
        let output = Command::new("script")
            .args(["--quiet", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .output()
            .expect("script runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let at = |text: &str| {
            said.find(text)
                .unwrap_or_else(|| panic!("{text:?}: {said}"))
        };
        let told = at("on purpose");
        for (taken, given) in [
            ("\u{1b}[?1049h", "\u{1b}[?1049l"),
            ("\u{1b}[?2004h", "\u{1b}[?2004l"),
            ("\u{1b}[?1000h", "\u{1b}[?1000l"),
        ] {
            assert!(at(taken) < at(given) && at(given) < told, "{said}");
        }
        // Keys are lines again, and are seen.
        assert!(
            said.contains(" icanon") && said.contains(" echo "),
            "{said}"
        );
    }
}
