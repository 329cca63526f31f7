//! A console on no terminal: what it would show, as text. For pictures, recordings, and for measuring what a screen costs.

use enforcer_proto::text::columns;
use enforcer_proto::wire::Status;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Clear, Widget};

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
        self.take(after_ms, Msg::Records(entries, Vec::new()));
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

/// The screen of a console, as large as it was drawn last.
pub(crate) fn picture(model: &Model, theme: Theme) -> Buffer {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(model.size.0, model.size.1));
    let Ok(_) = terminal.draw(|frame| view::draw(frame, model, theme));
    terminal.backend().buffer().clone()
}

/// Puts such a screen on one of another size, from its first cell on. Where that has no room for all of it, its last row says so.
pub(crate) fn show(screen: &mut Buffer, picture: &Buffer, note: Style) {
    let area = screen.area;
    for at in area.intersection(picture.area).positions() {
        let cell = &picture[at];
        // Half a character is none.
        let is_cut = at.x + 1 == area.right() && columns(cell.symbol()) > 1;
        screen[at].clone_from(cell);
        if is_cut {
            screen[at].set_symbol(" ");
        }
    }
    if area.width < picture.area.width || area.height < picture.area.height {
        let row = Rect::new(area.x, area.bottom().saturating_sub(1), area.width, 1);
        let said = format!(
            "recorded at {}×{}: not all of it has room here; q ends",
            picture.area.width, picture.area.height
        );
        Clear.render(row, screen);
        Line::styled(said, note).render(row, screen);
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
