//! The view itself: its list, and what is selected, whole, where that is asked for or there is room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};

use super::{detail, list};
use crate::app::Model;
use crate::theme::{Role, Theme};

/// From this width on what is selected is shown beside the list.
const WIDE: u16 = 150;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    if model.detail.is_none() {
        list::draw(frame, area, model, theme);
    } else if area.width >= WIDE {
        let [left, right] = halves(area);
        list::draw(frame, left, model, theme);
        detail::draw(frame, right, model, theme);
    } else {
        detail::draw(frame, area, model, theme);
    }
    if model.doubt_ms().is_some() {
        // Whatever it says of itself: it is no longer known to be so.
        frame.buffer_mut().set_style(area, theme.style(Role::Stale));
    }
}

fn halves(area: Rect) -> [Rect; 2] {
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    Layout::horizontal(halves).spacing(1).areas(area)
}

/// How many columns are of the list.
pub(super) fn list_columns(model: &Model, area: Rect) -> u16 {
    match model.detail {
        None => area.width,
        Some(_) if area.width >= WIDE => halves(area)[0].width,
        Some(_) => 0,
    }
}

/// The part in which what is selected is shown whole.
pub(super) fn beside_list(area: Rect) -> Rect {
    if area.width >= WIDE {
        halves(area)[1]
    } else {
        area
    }
}
