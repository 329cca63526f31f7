//! What lies over the view: questions, forms, and what is looked up.

use enforcer_proto::size;
use enforcer_proto::text::wrapped;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;

use super::detail::scrolled;
use super::list::role_of;
use super::text::{cell, is_too_long, whole};
use crate::app::Model;
use crate::app::find::Found;
use crate::app::form::{Reason, Terms};
use crate::app::key::{BINDINGS, Key};
use crate::app::popup::{Confirm, Popup, clock};
use crate::app::proof::Outcome;
use crate::app::reading::Shown;
use crate::app::tail::Entry;
use crate::theme::{Role, Theme};

/// The widest that a popup is, columns.
const WIDEST: u16 = 110;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let Some(popup) = &model.popup else { return };
    let across = across(area);
    let Content {
        title,
        pinned,
        lines,
        from,
    } = content(popup, model, across, theme);
    let height = u16::try_from(pinned.len() + lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let top = area.y + (area.height - height) / 2;
    let area = Rect::new(across.x, top, across.width, height);
    frame.render_widget(Clear, area);
    scrolled(frame, area, &title, (pinned, lines), from, theme);
}

/// What such a part of the screen shows of a question.
pub(super) fn shown(area: Rect, model: &Model) -> Option<Shown> {
    let confirm = model.question()?;
    let across = across(area);
    let columns = across.width.saturating_sub(2);
    let (pinned, asked) = question(model, confirm, usize::from(columns), Theme::Plain);
    let room = room_below(area, pinned.len());
    let from = confirm.from.min(asked.len().saturating_sub(room));
    let is_too_long = confirm.lines.iter().any(|line| is_too_long(line));
    Some(Shown {
        question: confirm.number,
        columns,
        lines: (!is_too_long).then_some(asked.len()),
        first: from,
        end: from.saturating_add(room).min(asked.len()),
        takes: takes(model, confirm),
    })
}

/// Whether a question is shown to take an answer.
fn takes(model: &Model, confirm: &Confirm) -> bool {
    confirm.standing.is_due(model.at_ms) && model.hinders(confirm).is_none()
}

/// How many lines such a part of the screen shows of what is scrolled in it.
pub(super) fn room(area: Rect, model: &Model) -> usize {
    let columns = usize::from(across(area).width.saturating_sub(2));
    let pinned = model.question().map_or(0, |confirm| {
        pinned(model, confirm, columns, Theme::Plain).len()
    });
    room_below(area, pinned)
}

fn room_below(area: Rect, pinned: usize) -> usize {
    usize::from(area.height.saturating_sub(2)).saturating_sub(pinned)
}

/// Keeps a popup on such a part of the screen from being scrolled past its end.
pub(super) fn keep_within(area: Rect, model: &mut Model) {
    let Some(popup) = &model.popup else { return };
    let content = content(popup, model, across(area), Theme::Plain);
    let room = room_below(area, content.pinned.len());
    let last = content.lines.len().saturating_sub(room);
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

/// The keys that do something in a popup, and what.
pub(super) fn keys(popup: &Popup) -> Vec<(String, &'static str)> {
    let named = |keys: &[(Key, &'static str)]| {
        let named = keys.iter().map(|(key, help)| (key.name(), *help));
        named.collect::<Vec<_>>()
    };
    match popup {
        Popup::Help(_) | Popup::Story { .. } | Popup::Why { .. } | Popup::Proof(_) => named(&[
            (Key::Esc, "away"),
            (Key::Char('X'), "end all"),
            (Key::Char(' '), "a page on"),
            (Key::Up, "up"),
            (Key::Down, "down"),
            (Key::End, "to the end"),
        ]),
        Popup::Confirm(confirm) => {
            let mut all = named(&[(Key::Esc, "no")]);
            all.push((confirm.turns(), "a page on"));
            all.extend(named(&[
                (Key::Up, "up"),
                (Key::Down, "down"),
                (Key::End, "to the end"),
            ]));
            all
        }
        Popup::Reason(_) => named(&[(Key::Enter, "go on"), (Key::Esc, "leave it")]),
        Popup::Terms(_) => named(&[
            (Key::Enter, "go on"),
            (Key::Esc, "leave it"),
            (Key::Tab, "the next"),
            (Key::Delete, "empty it"),
        ]),
    }
}

/// The columns that a popup takes.
fn across(area: Rect) -> Rect {
    let width = area.width.saturating_sub(2).min(WIDEST);
    let left = area.x + (area.width - width) / 2;
    Rect::new(left, area.y, width, area.height)
}

/// What is in a popup.
struct Content {
    title: String,
    /// What always stands at its top.
    pinned: Vec<Line<'static>>,
    /// What is scrolled below that.
    lines: Vec<Line<'static>>,
    /// The first of those that is shown.
    from: usize,
}

fn content(popup: &Popup, model: &Model, area: Rect, theme: Theme) -> Content {
    let inner = usize::from(area.width.saturating_sub(2));
    let (title, (pinned, lines), from) = match popup {
        Popup::Help(from) => ("keys".to_owned(), (Vec::new(), help(inner, theme)), *from),
        Popup::Confirm(confirm) => {
            let parts = question(model, confirm, inner, theme);
            (confirm.title.clone(), parts, confirm.from)
        }
        // Where one types is its end.
        Popup::Reason(reason) => (
            reason.title.clone(),
            asking(reason, inner, theme),
            usize::MAX,
        ),
        Popup::Terms(terms) => {
            let Form { pinned, lines, end } = form(terms, inner, theme);
            // Where one types is the end of a field: that stays on screen, however long it and those before it are.
            let from = end.saturating_sub(room_below(area, pinned.len()));
            let title = format!("approve {}, but less", terms.request.request);
            (title, (pinned, lines), from)
        }
        Popup::Story {
            title,
            all,
            found,
            from,
        } => {
            let lines = story(found.as_ref(), all, inner, theme);
            (title.clone(), (Vec::new(), lines), *from)
        }
        Popup::Why { title, lines, from } => {
            let plain = theme.style(Role::Plain);
            let lines = lines.iter().flat_map(|line| whole(line, inner, plain));
            (title.clone(), (Vec::new(), lines.collect()), *from)
        }
        Popup::Proof(from) => (
            "what shows that they have ended".to_owned(),
            (Vec::new(), proof(model, inner, theme)),
            *from,
        ),
    };
    Content {
        title,
        pinned,
        lines,
        from,
    }
}

/// How wide a command and its keys are in the help, columns.
const HELP_KEYS: usize = 14;
const HELP_WORD: usize = 12;

fn help(width: usize, theme: Theme) -> Vec<Line<'static>> {
    let bold = theme.style(Role::Title);
    let line = |binding: &crate::app::key::Binding| {
        let views: Vec<&str> = binding.views.iter().map(|view| view.name()).collect();
        let views = if views.is_empty() {
            String::new()
        } else {
            format!("  ({})", views.join(", "))
        };
        let text = format!("{}{views}", binding.help);
        let room = width.saturating_sub(HELP_KEYS + HELP_WORD).max(8);
        let lines = wrapped(&text, room).into_iter().enumerate();
        let said = lines.map(|(nth, text)| {
            let (keys, word) = match nth {
                0 => (binding.names(), format!(":{}", binding.word)),
                _ => (String::new(), String::new()),
            };
            Line::from(vec![
                Span::styled(format!("{keys:<HELP_KEYS$}"), bold),
                Span::raw(format!("{word:<HELP_WORD$}{text}")),
            ])
        });
        said.collect::<Vec<_>>()
    };
    let mut lines: Vec<Line<'static>> = BINDINGS.iter().flat_map(line).collect();
    lines.extend(whole(
        "A command may name what it is about, as in :revoke g-17 or :approve r-3.",
        width,
        theme.style(Role::Plain),
    ));
    lines
}

/// The most lines that say what hinders a question: what is asked must have room as well.
const HINDERS_LINES_MAX: usize = 2;

/// What always stands above a question: which keys it takes, and what hinders it.
fn pinned(model: &Model, confirm: &Confirm, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let title = theme.style(Role::Title);
    let danger = theme.style(Role::Danger);
    let is_taken = takes(model, confirm);
    let mut lines = vec![match &confirm.word {
        // It takes no yes yet, and says so once it does.
        _ if confirm.must_be_read() && confirm.reading.has_begun() => {
            let no = if confirm.word.is_none() {
                "n or esc"
            } else {
                "esc"
            };
            let rest = confirm.turns();
            Line::styled(format!("…  {rest} shows the rest        {no}  no"), title)
        }
        None if is_taken => Line::styled("y  yes        n or esc  no", title),
        None => Line::styled("…             n or esc  no", title),
        Some((word, typed)) if is_taken || confirm.typed_from_ms.is_some() => Line::from(vec![
            Span::styled(format!("type “{word}” and enter, or esc: "), danger),
            Span::raw(cell(typed)),
            Span::styled(" ", theme.style(Role::Selected)),
        ]),
        Some(_) => Line::styled("…             esc  no", title),
    }];
    if let Some(why) = model.hinders(confirm) {
        let why = whole(&why, width, danger);
        lines.extend(at_most(why, HINDERS_LINES_MAX));
    }
    lines.push(Line::default());
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
    let asked = confirm.lines.iter();
    let asked = asked.flat_map(|line| whole(line, width, plain));
    (pinned(model, confirm, width, theme), asked.collect())
}

fn asking(reason: &Reason, width: usize, theme: Theme) -> (Vec<Line<'static>>, Vec<Line<'static>>) {
    let pinned = vec![Line::styled(
        "why? enter goes on, esc leaves it",
        theme.style(Role::Title),
    )];
    let text = format!("{}▏", reason.field.text);
    (pinned, whole(&text, width, theme.style(Role::Plain)))
}

/// The most lines that say what is wrong with a form: the field must have room as well.
const WRONG_LINES_MAX: usize = 2;

/// A form, as it is drawn.
struct Form {
    /// What always stands above it: its keys, and what is wrong with it.
    pinned: Vec<Line<'static>>,
    /// Its fields.
    lines: Vec<Line<'static>>,
    /// The first line behind the field that is being typed.
    end: usize,
}

fn form(terms: &Terms, width: usize, theme: Theme) -> Form {
    let keys = "tab next, del empties, enter goes on, esc leaves it";
    let mut pinned = whole(keys, width, theme.style(Role::Title));
    if let Some(wrong) = &terms.wrong {
        let wrong = whole(wrong, width, theme.style(Role::Danger));
        pinned.extend(at_most(wrong, WRONG_LINES_MAX));
    }
    let (mut lines, mut end) = (Vec::new(), 0);
    for (at, (name, field)) in Terms::NAMES.iter().zip(&terms.fields).enumerate() {
        let (mark, role) = if at == terms.at {
            ("▏", Role::Title)
        } else {
            ("", Role::Plain)
        };
        // What is typed is a plain number; beside it stands how people read it.
        let bytes = (*name == "bytes").then(|| field.text.trim().parse().ok());
        let read = bytes
            .flatten()
            .map(|bytes| format!("  {}", size::whole(bytes)));
        let read = read.unwrap_or_default();
        let text = format!("{name:<8} {}{mark}{read}", field.text);
        lines.extend(whole(&text, width, theme.style(role)));
        if at == terms.at {
            end = lines.len();
        }
    }
    Form { pinned, lines, end }
}

/// As many of these lines as have room, the last of which says where there are more.
fn at_most(mut lines: Vec<Line<'static>>, most: usize) -> Vec<Line<'static>> {
    let is_cut = lines.len() > most;
    lines.truncate(most);
    if let Some(last) = lines.last_mut().filter(|_| is_cut) {
        last.push_span(Span::raw(" …"));
    }
    lines
}

fn story(
    found: Option<&Result<Found, String>>,
    all: &str,
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let Found {
        first,
        newest,
        is_cut,
    } = match found {
        None => return vec![Line::raw("The log is being asked …")],
        Some(Err(why)) => return whole(why, width, theme.style(Role::Danger)),
        Some(Ok(found)) => found,
    };
    let line = |entry: &Entry| {
        let text = format!("{}  {}", clock(entry.record.unix_ns), entry.sentence);
        whole(&text, width, theme.style(role_of(&entry.sentence)))
    };
    if first.is_empty() && newest.is_empty() {
        return vec![Line::raw("The log has nothing of it.")];
    }
    let said = if *is_cut {
        format!(
            "the first {} and the newest {} of more records, the oldest first; {all}",
            first.len(),
            newest.len()
        )
    } else {
        format!("{} records, the oldest first", first.len() + newest.len())
    };
    let mut lines = whole(&said, width, theme.style(Role::Muted));
    lines.extend(first.iter().flat_map(line));
    if *is_cut {
        let between = "… there are more between, which are not shown here …";
        lines.extend(whole(between, width, theme.style(Role::Warning)));
    }
    lines.extend(newest.iter().flat_map(line));
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
            let first = if proof.closed.is_some() {
                Role::Open
            } else {
                Role::Pending
            };
            let roles = std::iter::once(first).chain(std::iter::repeat(Role::Plain));
            for (text, role) in proof.lines(**grant, agent).into_iter().zip(roles) {
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
