//! What is around every view: how things are, which views there are, what can be done.

use enforcer_proto::text::{columns, cut, cut_to_end};
use enforcer_proto::wire::Status;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::text::{cell, span};
use crate::app::key::{BINDINGS, Key};
use crate::app::{Link, Model, Typing, View};
use crate::theme::{Role, Theme};

/// The most lines that alarms take.
const ALARMS_MAX: usize = 3;

/// How many rows the head takes.
pub(super) fn head_height(model: &Model, area: Rect) -> u16 {
    let most = if area.height < 20 { 1 } else { ALARMS_MAX };
    let alarms = alarms(model).len().min(most);
    1 + u16::try_from(alarms).unwrap_or(1)
}

/// The first line, and what is wrong.
pub(super) fn head(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let mut lines = vec![first(model, theme)];
    let alarms = alarms(model);
    let room = usize::from(area.height.saturating_sub(1));
    let danger = theme.style(Role::Danger);
    for (nth, alarm) in alarms.iter().take(room).enumerate() {
        let more = alarms.len() - nth - 1;
        let is_last = nth + 1 == room && more > 0;
        let more = if is_last {
            format!(" (and {more} more: 7)")
        } else {
            String::new()
        };
        let width = usize::from(area.width).saturating_sub(columns(&more));
        let alarm = cell(alarm);
        let alarm = cut(&alarm, width);
        lines.push(Line::styled(format!("{alarm}{more}"), danger));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn first(model: &Model, theme: Theme) -> Line<'static> {
    let title = theme.style(Role::Title);
    let muted = theme.style(Role::Muted);
    let mut spans = vec![Span::styled("enforcer ", title)];
    if let Some(status) = model.status() {
        spans.push(span(&status.host, title));
        spans.push(Span::styled("  ", muted));
        spans.push(health(status, theme));
    }
    spans.push(Span::styled("  ", muted));
    spans.push(link(model, theme));
    if let Some(banner) = model.mode.banner() {
        spans.push(Span::styled("  ", muted));
        spans.push(Span::styled(banner, theme.style(Role::Warning)));
    }
    if model.tail.skipped > 0 {
        spans.push(Span::styled(
            format!(
                "  {} records skipped here (the log has them)",
                model.tail.skipped
            ),
            theme.style(Role::Warning),
        ));
    }
    if model.tail.missing > 0 {
        spans.push(Span::styled(
            format!("  {} records missing, asked for again", model.tail.missing),
            theme.style(Role::Warning),
        ));
    }
    if model.tail.unreadable > 0 {
        spans.push(Span::styled(
            format!(
                "  {} records that this release cannot read",
                model.tail.unreadable
            ),
            theme.style(Role::Warning),
        ));
    }
    Line::from(spans)
}

fn health(status: &Status, theme: Theme) -> Span<'static> {
    if status.unhealthy.is_empty() {
        Span::styled("✓ healthy", theme.style(Role::Open))
    } else {
        Span::styled(
            format!("✗ UNHEALTHY ({})", status.unhealthy.len()),
            theme.style(Role::Danger),
        )
    }
}

fn link(model: &Model, theme: Theme) -> Span<'static> {
    match &model.link {
        Link::Never => Span::styled("… connecting", theme.style(Role::Pending)),
        Link::Up => {
            let age = model.age_ms().unwrap_or(0);
            // What is a moment old needs no number that moves.
            if age < 2_000 {
                Span::styled("● connected", theme.style(Role::Muted))
            } else {
                Span::styled(
                    format!("○ STALE: as of {} s ago", age / 1000),
                    theme.style(Role::Danger),
                )
            }
        }
        Link::Down {
            retry_at_ms, tries, ..
        } => {
            let left = retry_at_ms.saturating_sub(model.at_ms).div_ceil(1000);
            Span::styled(
                format!("○ NOT CONNECTED, again in {left} s (try {tries})"),
                theme.style(Role::Danger),
            )
        }
    }
}

/// What must be seen in every view.
fn alarms(model: &Model) -> Vec<String> {
    let mut alarms = Vec::new();
    if let Link::Down { why, .. } = &model.link {
        let what = if model.known.is_some() {
            "NOT CONNECTED, this is what was last known"
        } else {
            "NOT CONNECTED"
        };
        alarms.push(format!("{what}: {why}"));
    }
    if let Some(status) = model.status() {
        alarms.extend(
            status
                .unhealthy
                .iter()
                .map(|fault| format!("UNHEALTHY: {fault}")),
        );
        alarms.extend(
            status
                .enforce
                .warning()
                .map(|warning| format!("NOTE: {warning}")),
        );
    }
    alarms
}

/// The views, each with its key, and how much waits in it.
pub(super) fn tabs(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let is_narrow = area.width < 100;
    let mut spans = Vec::new();
    for view in View::ALL {
        let count = match view {
            View::Windows => model.open().count(),
            View::Requests => model.waiting().count(),
            View::Refusals => usize::try_from(model.refusals.count()).unwrap_or(usize::MAX),
            View::Sessions | View::Log | View::Agents | View::Health => 0,
        };
        let name = if is_narrow && view != model.view {
            view.name().get(..3).unwrap_or_default()
        } else {
            view.name()
        };
        let count = if count > 0 {
            format!(" {count}")
        } else {
            String::new()
        };
        let role = if view == model.view {
            Role::Selected
        } else if view == View::Requests && !count.is_empty() {
            Role::Pending
        } else {
            Role::Plain
        };
        let text = format!(" {} {name}{count} ", view.place() + 1);
        spans.push(Span::styled(text, theme.style(role)));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

/// What is typed, what came of something, or what can be done here.
pub(super) fn foot(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let line = match (&model.typing, &model.notice) {
        (Some(Typing::Search(text)), _) => typed("/", &text.text, area.width, theme),
        (Some(Typing::Command(text)), _) => typed(":", &text.text, area.width, theme),
        (None, Some(notice)) => {
            let role = if notice.is_bad {
                Role::Danger
            } else {
                Role::Title
            };
            Line::styled(cell(&notice.text), theme.style(role))
        }
        (None, None) => keys(model, area.width, theme),
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// The end of what is typed, which is where one types.
fn typed(sign: &'static str, text: &str, width: u16, theme: Theme) -> Line<'static> {
    let text = cell(text);
    let room = usize::from(width).saturating_sub(3);
    let text = cut_to_end(&text, room).to_owned();
    Line::from(vec![
        Span::styled(sign, theme.style(Role::Title)),
        Span::raw(text),
        Span::styled(" ", theme.style(Role::Selected)),
    ])
}

/// What can be done here, as much as there is room for; how to see all of it is always among it.
fn keys(model: &Model, width: u16, theme: Theme) -> Line<'static> {
    let search = &model.place().search;
    let mut all = Vec::new();
    if !search.is_empty() {
        let help = format!("all; now only with “{}”", cell(search));
        all.push(("esc".to_owned(), help));
    }
    let here = BINDINGS.iter().filter(|binding| !binding.short.is_empty());
    let here = here.filter(|binding| binding.is_in(model.view));
    all.extend(here.map(|binding| (binding.keys[0].name(), binding.short.to_owned())));
    let named = |(key, help): (Key, &str)| (key.name(), help.to_owned());
    let everywhere = [
        (Key::Char('X'), "end all"),
        (Key::Enter, "detail"),
        (Key::Char('/'), "search"),
    ];
    all.extend(everywhere.map(named));
    let last = [(Key::Char('?'), "help"), (Key::Char('q'), "quit")].map(named);
    let wide = |text: &str| Span::raw(text).width();
    let cells = |(key, help): &(String, String)| wide(key) + wide(help) + 3;
    let mut left = usize::from(width).saturating_sub(last.iter().map(cells).sum());
    let fits = |known: &(String, String)| {
        let cells = cells(known);
        let fits = cells <= left;
        left -= if fits { cells } else { 0 };
        fits
    };
    let shown = all.into_iter().filter(fits).chain(last);
    let spans = shown.flat_map(|(key, help)| {
        [
            Span::styled(key, theme.style(Role::Title)),
            Span::styled(format!(" {help}  "), theme.style(Role::Muted)),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}
