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

pub(crate) use detail::{agent_lines, query_line, query_lines, window_lines};
pub(crate) use health::{HealthLine, health_line, health_lines};
pub(crate) use list::{first_shown, nothing_shown};

use crate::app::Model;
pub(crate) use crate::app::View;
use crate::app::reading::Shown;
use crate::theme::Theme;

/// The smallest screen on which something is shown, columns and rows.
pub(crate) const SMALLEST: (u16, u16) = (60, 12);

/// Rows above the list: those of the frame, and its own head.
pub(crate) fn rows_above(model: &Model, area: Rect) -> u16 {
    frame::head_height(model, area) + 2
}

/// How many columns of the screen are of the list, from the first on.
pub(crate) fn list_columns(model: &Model) -> u16 {
    body::list_columns(model, area_of(model))
}

/// Draws the screen.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    if is_too_small(area) {
        let text = format!("terminal too small (need {}×{})", SMALLEST.0, SMALLEST.1);
        return frame.render_widget(Paragraph::new(text), area);
    }
    let [head, tabs, body, foot] = parts(model, area);
    frame::head(frame, head, model, theme);
    frame::tabs(frame, tabs, model, theme);
    body::draw(frame, body, model, theme);
    frame::foot(frame, foot, model, theme);
    if model.popup.is_some() {
        popup::draw(frame, body, model, theme);
    }
}

/// The parts of the screen: head, views, what is in the view, foot.
fn parts(model: &Model, area: Rect) -> [Rect; 4] {
    Layout::vertical([
        Constraint::Length(frame::head_height(model, area)),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area)
}

const fn is_too_small(area: Rect) -> bool {
    area.width < SMALLEST.0 || area.height < SMALLEST.1
}

/// Has the model know the screen that it is drawn on: how many rows of a list fit, how many lines of a text, and where that ends.
pub(crate) fn fit(model: &mut Model, area: Rect) {
    model.page = usize::from(area.height.saturating_sub(rows_above(model, area) + 1));
    model.size = (area.width, area.height);
    let [_, _, body, _] = parts(model, area);
    model.room = popup::room(body, model);
    keep_within(model);
}

/// Keeps what is scrolled from being scrolled past its end.
pub(crate) fn keep_within(model: &mut Model) {
    let [_, _, body, _] = parts(model, area_of(model));
    if model.popup.is_some() {
        popup::keep_within(body, model);
    } else if let Some(from) = model.detail {
        model.detail = Some(from.min(detail::last_from(body, model)));
    }
}

fn area_of(model: &Model) -> Rect {
    Rect::new(0, 0, model.size.0, model.size.1)
}

/// What the screen that the model was fitted to shows of a question; `None` where there is none, and where the screen is too small for it.
pub(crate) fn shown(model: &Model) -> Option<Shown> {
    let area = area_of(model);
    if is_too_small(area) {
        return None;
    }
    let [_, _, body, _] = parts(model, area);
    popup::shown(body, model)
}
