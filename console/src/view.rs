//! The screen, drawn from the model. Pure: the same model and size give the same cells. Whatever comes from elsewhere is made safe to show here, in
//! [`text`], and nowhere else.

mod body;
mod columns;
mod detail;
mod frame;
mod health;
mod list;
mod popup;
mod sql;
#[cfg(test)]
mod tests;
mod text;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::Paragraph;

pub(crate) use detail::{agent_lines, query_line, query_lines};
pub(crate) use health::health_lines;
pub(crate) use list::first_shown;

use crate::app::Model;
pub(crate) use crate::app::View;
use crate::theme::Theme;

/// The smallest screen on which something is shown, columns and rows.
pub(crate) const SMALLEST: (u16, u16) = (60, 12);

/// Rows above the list: those of the frame, and its own head.
pub(crate) fn rows_above(model: &Model, area: Rect) -> u16 {
    frame::head_height(model, area) + 2
}

/// Draws the screen.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("terminal too small (need {}×{})", SMALLEST.0, SMALLEST.1);
        return frame.render_widget(Paragraph::new(text), area);
    }
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(frame::head_height(model, area)),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame::head(frame, head, model, theme);
    frame::tabs(frame, tabs, model, theme);
    body::draw(frame, body, model, theme);
    frame::foot(frame, foot, model, theme);
    if model.popup.is_some() {
        popup::draw(frame, body, model, theme);
    }
}

/// Has the model know the screen that it is drawn on: how many rows of a list fit, and what of a popup.
pub(crate) fn fit(model: &mut Model, area: Rect) {
    model.page = usize::from(area.height.saturating_sub(rows_above(model, area) + 1));
    model.size = (area.width, area.height);
    model.look();
}

/// How many lines of what lies over the screen are below what is shown of it.
pub(crate) fn hidden_below(model: &Model) -> usize {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let above = frame::head_height(model, area) + 1;
    let body = Rect::new(0, above, area.width, area.height.saturating_sub(above + 1));
    popup::hidden_below(body, model)
}
