//! Text from elsewhere, made safe to show: the one place where that is done.

use enforcer_proto::text::{safe_line, wrapped};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// The most characters of one cell of a list that are looked at: what is cut off by its column anyway.
const CELL_CHARS: usize = 512;
/// The most characters of a text that is shown whole: past them it says that it goes on.
const WHOLE_CHARS: usize = 200_000;

/// For a cell of a list: one line.
pub(super) fn cell(text: &str) -> String {
    safe_line(text, CELL_CHARS)
}

/// A text from elsewhere as a piece of a line.
pub(super) fn span(text: &str, style: Style) -> Span<'static> {
    Span::styled(cell(text), style)
}

/// Whether a text is longer than is shown of one.
pub(super) fn is_too_long(text: &str) -> bool {
    text.char_indices().nth(WHOLE_CHARS).is_some()
}

/// A text of any length as lines of this width; those that go on are set in behind the name of what they are.
pub(super) fn whole(text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let cut = text.char_indices().nth(WHOLE_CHARS).map(|(at, _)| at);
    let shown = cut.map_or(text, |at| &text[..at]);
    let lines = wrapped(shown, width.saturating_sub(2).max(8));
    let mut lines: Vec<Line<'static>> = lines
        .into_iter()
        .enumerate()
        .map(|(nth, line)| match nth {
            0 => Line::styled(line, style),
            _ => Line::styled(format!("  {line}"), style),
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::default());
    }
    if cut.is_some() {
        lines.push(Line::styled("  … it goes on: the log has it whole", style));
    }
    lines
}
