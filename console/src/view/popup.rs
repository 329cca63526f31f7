//! What lies over the view: questions, forms, and what is looked up.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;

use super::detail::scrolled;
use super::list::role_of;
use super::text::{cell, is_too_long, whole};
use crate::app::Model;
use crate::app::form::{Reason, Terms};
use crate::app::key::BINDINGS;
use crate::app::popup::{Confirm, Popup, clock, clock_ms};
use crate::app::proof::{Outcome, Proof};
use crate::app::reading::Shown;
use crate::app::tail::Entry;
use crate::theme::{Role, Theme};

/// The widest that a popup is, columns.
const WIDEST: u16 = 110;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let Some(popup) = &model.popup else { return };
    let across = across(area);
    let (title, lines, from) = content(popup, model, across, theme);
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let top = area.y + (area.height - height) / 2;
    let area = Rect::new(across.x, top, across.width, height);
    frame.render_widget(Clear, area);
    scrolled(frame, area, &title, lines, from, theme);
}

/// What such a part of the screen shows of a question.
pub(super) fn shown(area: Rect, model: &Model) -> Option<Shown> {
    let Some(Popup::Confirm(confirm)) = &model.popup else {
        return None;
    };
    let across = across(area);
    let columns = across.width.saturating_sub(2);
    let (above, asked) = question(model, confirm, usize::from(columns), Theme::Plain);
    let (above, lines) = (above.len(), asked.len());
    let room = usize::from(area.height.saturating_sub(2));
    let from = confirm.from.min((above + lines).saturating_sub(room));
    let is_too_long = confirm.lines.iter().any(|line| is_too_long(line));
    Some(Shown {
        question: confirm.number,
        columns,
        above,
        lines: (!is_too_long).then_some(lines),
        first: from.saturating_sub(above),
        end: from.saturating_add(room).saturating_sub(above).min(lines),
    })
}

/// Keeps a popup on such a part of the screen from being scrolled past its end.
pub(super) fn keep_within(area: Rect, model: &mut Model) {
    let Some(popup) = &model.popup else { return };
    let (_, lines, _) = content(popup, model, across(area), Theme::Plain);
    let room = usize::from(area.height.saturating_sub(2));
    let last = lines.len().saturating_sub(room);
    match &mut model.popup {
        Some(
            Popup::Help(from)
            | Popup::Proof(from)
            | Popup::Story { from, .. }
            | Popup::Why { from, .. }
            | Popup::Confirm(Confirm { from, .. }),
        ) => *from = (*from).min(last),
        Some(Popup::Reason(_) | Popup::Terms(_)) | None => {}
    }
}

/// The columns that a popup takes.
fn across(area: Rect) -> Rect {
    let width = area.width.saturating_sub(2).min(WIDEST);
    let left = area.x + (area.width - width) / 2;
    Rect::new(left, area.y, width, area.height)
}

/// The title of a popup, its lines, and the first that is shown.
fn content(
    popup: &Popup,
    model: &Model,
    area: Rect,
    theme: Theme,
) -> (String, Vec<Line<'static>>, usize) {
    let inner = usize::from(area.width.saturating_sub(2));
    match popup {
        Popup::Help(from) => ("keys".to_owned(), help(theme), *from),
        Popup::Confirm(confirm) => {
            let (mut lines, asked) = question(model, confirm, inner, theme);
            lines.extend(asked);
            (confirm.title.clone(), lines, confirm.from)
        }
        Popup::Reason(reason) => (reason.title.clone(), asking(reason, inner, theme), 0),
        Popup::Terms(terms) => (
            format!("approve {}, but less", terms.request.request),
            form(terms, inner, theme),
            0,
        ),
        Popup::Story { title, found, from } => {
            let lines = story(found.as_ref(), inner, theme);
            (title.clone(), lines, *from)
        }
        Popup::Why { title, lines, from } => {
            let plain = theme.style(Role::Plain);
            let lines = lines.iter().flat_map(|line| whole(line, inner, plain));
            (title.clone(), lines.collect(), *from)
        }
        Popup::Proof(from) => (
            "what shows that they have ended".to_owned(),
            proof(model, inner, theme),
            *from,
        ),
    }
}

fn help(theme: Theme) -> Vec<Line<'static>> {
    let bold = theme.style(Role::Title);
    let muted = theme.style(Role::Muted);
    let line = |binding: &crate::app::key::Binding| {
        let views: Vec<&str> = binding.views.iter().map(|view| view.name()).collect();
        let views = if views.is_empty() {
            String::new()
        } else {
            format!("  ({})", views.join(", "))
        };
        Line::from(vec![
            Span::styled(format!("{:<14}", binding.names()), bold),
            Span::raw(format!(":{:<10} {}", binding.word, binding.help)),
            Span::styled(views, muted),
        ])
    };
    let mut lines: Vec<Line<'static>> = BINDINGS.iter().map(line).collect();
    lines.push(Line::raw(
        "A command may name what it is about, as in :revoke g-17 or :approve r-3.",
    ));
    lines
}

/// What stands above a question, and what is asked.
fn question(
    model: &Model,
    confirm: &Confirm,
    width: usize,
    theme: Theme,
) -> (Vec<Line<'static>>, Vec<Line<'static>>) {
    let plain = theme.style(Role::Plain);
    let title = theme.style(Role::Title);
    let danger = theme.style(Role::Danger);
    let rest = confirm.must_be_read();
    let rest = rest.then(|| format!("{} shows the rest, then ", confirm.turns()));
    let mut above = Vec::new();
    if let (Some(rest), Some(_)) = (&rest, &confirm.word) {
        above.push(Line::styled(rest.clone(), title));
    }
    let rest = rest.unwrap_or_default();
    above.push(match &confirm.word {
        // It takes no key yet, and says which once it does.
        _ if !confirm.reading.has_begun() => Line::styled("…", title),
        None => Line::styled(format!("{rest}y  yes        n or esc  no"), title),
        Some((word, typed)) => Line::from(vec![
            Span::styled(format!("type “{word}” and enter, or esc: "), danger),
            Span::raw(cell(typed)),
            Span::styled(" ", theme.style(Role::Selected)),
        ]),
    });
    if let Some(why) = model.hindered().or_else(|| model.outdated(&confirm.deed)) {
        above.extend(whole(&why, width, danger));
    }
    above.push(Line::default());
    let asked = confirm.lines.iter();
    let asked = asked.flat_map(|line| whole(line, width, plain));
    (above, asked.collect())
}

fn asking(reason: &Reason, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(
        "why? enter goes on, esc leaves it",
        theme.style(Role::Title),
    )];
    lines.extend(whole(
        &format!("{}▏", reason.field.text),
        width,
        theme.style(Role::Plain),
    ));
    lines
}

fn form(terms: &Terms, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(
        "tab goes to the next, del empties it, enter goes on, esc leaves it",
        theme.style(Role::Title),
    )];
    for (at, (name, field)) in Terms::NAMES.iter().zip(&terms.fields).enumerate() {
        let (mark, role) = if at == terms.at {
            ("▏", Role::Title)
        } else {
            ("", Role::Plain)
        };
        let text = format!("{name:<8} {}{mark}", field.text);
        lines.extend(whole(&text, width, theme.style(role)));
    }
    if let Some(wrong) = &terms.wrong {
        lines.extend(whole(wrong, width, theme.style(Role::Danger)));
    }
    lines
}

fn story(
    found: Option<&Result<Vec<Entry>, String>>,
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let entries = match found {
        None => return vec![Line::raw("The log is being asked …")],
        Some(Err(why)) => return whole(why, width, theme.style(Role::Danger)),
        Some(Ok(entries)) => entries,
    };
    let line = |entry: &Entry| {
        let text = format!("{}  {}", clock(entry.record.unix_ns), entry.sentence);
        whole(&text, width, theme.style(role_of(&entry.sentence)))
    };
    if entries.is_empty() {
        return vec![Line::raw("The log has nothing of it.")];
    }
    let count = format!("{} records, the oldest first", entries.len());
    let mut lines = vec![Line::styled(count, theme.style(Role::Muted))];
    lines.extend(entries.iter().flat_map(line));
    lines
}

/// What was asked for from here that ends windows, what the daemon said to it, and what its log says of them.
fn proof(model: &Model, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut say = |text: &str, role| lines.extend(whole(text, width, theme.style(role)));
    for deed in model.proofs.deeds() {
        match &deed.outcome {
            Outcome::Asked => say(
                &format!("{}: asked, not answered yet", deed.said),
                Role::Pending,
            ),
            Outcome::Done(said) => say(said, Role::Open),
            Outcome::NotDone(why) => say(&format!("NOT DONE, {}: {why}", deed.said), Role::Danger),
        }
        let windows = deed.windows.iter();
        let windows = windows.map(|(grant, agent)| (grant, agent, model.proofs.of(*grant)));
        // What is not shown yet stands first.
        let (open, closed): (Vec<_>, Vec<_>) =
            windows.partition(|(_, _, proof)| proof.closed.is_none());
        if deed.windows.len() > 1 {
            let count = format!(
                "{} of {} windows have their close on record",
                closed.len(),
                deed.windows.len()
            );
            let role = if open.is_empty() {
                Role::Open
            } else {
                Role::Pending
            };
            say(&count, role);
        }
        for (grant, agent, proof) in open.iter().chain(&closed) {
            for (text, role) in proof_lines(&format!("{grant} of {agent}"), proof) {
                say(&text, role);
            }
        }
    }
    if model.proofs.forgotten > 0 {
        let older = format!(
            "and {} deeds before: the log has them",
            model.proofs.forgotten
        );
        say(&older, Role::Muted);
    }
    if lines.is_empty() {
        lines.push(Line::raw("No window was ended from this console."));
    }
    lines
}

fn proof_lines(window: &str, proof: &Proof) -> Vec<(String, Role)> {
    let mut lines = vec![match &proof.closed {
        Some((at, why)) => (
            format!("{window}: closed at {} UTC: {why}", clock_ms(*at)),
            Role::Open,
        ),
        None => (
            format!("{window}: no record of its close has come yet"),
            Role::Pending,
        ),
    }];
    let last_byte = match proof.last_byte {
        Some(at) => format!(
            "  the last answer ended at {} UTC, {} were cut short",
            clock_ms(at),
            proof.cut
        ),
        None => "  no answer of it is among the records here".to_owned(),
    };
    let jobs = proof.cancelled.iter().map(|job| format!("  job {job}"));
    let refused = match proof.last_refused {
        Some(at) => format!(
            "  refused since: {}, the last at {} UTC",
            proof.refused,
            clock_ms(at)
        ),
        None => "  nothing was asked since".to_owned(),
    };
    let said = std::iter::once(last_byte).chain(jobs).chain([refused]);
    lines.extend(said.map(|text| (text, Role::Plain)));
    lines
}
