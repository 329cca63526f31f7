//! A console on no terminal: what it would show, as text. For pictures, recordings, and for measuring what a screen costs.

use enforcer_proto::wire::Status;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;

use crate::app::tail::Entry;
use crate::app::{Mode, Model, Msg};
use crate::theme::Theme;
use crate::view;

/// A screen of a size of its own.
#[derive(Debug)]
pub struct Sheet {
    terminal: Terminal<TestBackend>,
    theme: Theme,
    model: Model,
    at_ms: u64,
}

impl Sheet {
    /// An empty one, of so many columns and rows.
    #[must_use]
    pub fn new(size: (u16, u16)) -> Self {
        Self::of(Model::new(Mode::Full), Theme::Dark, size)
    }

    pub(crate) fn of(model: Model, theme: Theme, (width, height): (u16, u16)) -> Self {
        let Ok(terminal) = Terminal::new(TestBackend::new(width, height));
        Self {
            terminal,
            theme,
            model,
            at_ms: 0,
        }
    }

    /// Goes to the view of this name. Where there is none of it, nothing happens.
    pub fn go(&mut self, view: &str) {
        let mut all = view::View::ALL.into_iter();
        self.model.view = all
            .find(|known| known.name() == view)
            .unwrap_or(self.model.view);
    }

    /// Takes in how things are, so many milliseconds after the last message.
    pub fn take_status(&mut self, after_ms: u64, status: Status) {
        self.take(after_ms, Msg::Status(Box::new(status)));
    }

    /// Takes in lines of the log.
    pub fn take_records(&mut self, after_ms: u64, lines: &[String]) {
        let entries = lines.iter().filter_map(|line| Entry::read(line)).collect();
        self.take(after_ms, Msg::Records(entries, 0));
    }

    fn take(&mut self, after_ms: u64, msg: Msg) {
        self.at_ms = self.at_ms.saturating_add(after_ms);
        self.model.update(self.at_ms, msg);
    }

    /// Draws it.
    pub fn draw(&mut self) {
        let area = self.area();
        view::fit(&mut self.model, area);
        let Self {
            terminal,
            model,
            theme,
            ..
        } = self;
        let Ok(_) = terminal.draw(|frame| view::draw(frame, model, *theme));
    }

    fn area(&self) -> Rect {
        self.buffer().area
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        self.terminal.backend().buffer()
    }

    /// What was drawn, a line for each row.
    #[must_use]
    pub fn text(&self) -> String {
        text_of(self.buffer())
    }
}

/// A screen as text, a line for each row.
pub(crate) fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width).map(|row| {
        let row: String = row.iter().map(Cell::symbol).collect();
        format!("{}\n", row.trim_end())
    });
    rows.collect()
}
