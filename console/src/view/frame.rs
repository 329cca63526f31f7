//! What is around every view: how things are, which views there are, what can be done.

use enforcer_proto::text::{columns, cut, cut_to_end};
use enforcer_proto::wire::{CheckState, Status};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::text::cell;
use crate::app::key::{BINDINGS, Key};
use crate::app::popup::clock;
use crate::app::{Link, Model, Typing, View, ago};
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
    let mut lines = vec![first(model, area.width, theme)];
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
        let alarm = shortened(&alarm, width);
        lines.push(Line::styled(format!("{alarm}{more}"), danger));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// One statement of the first line, and how it is said where there is little room.
struct Said {
    long: String,
    short: String,
    role: Role,
}

impl Said {
    fn of(text: impl Into<String>, role: Role) -> Self {
        let long = text.into();
        Self {
            short: long.clone(),
            long,
            role,
        }
    }

    fn text(&self, is_short: bool) -> &str {
        if is_short { &self.short } else { &self.long }
    }
}

/// What stands first on the screen.
const NAME: &str = "enforcer ";
/// The fewest cells in which a host's name says anything, its end cut off.
const HOST_CELLS_MIN: usize = 8;

/// The host's name gives way first, then the words; whether things are well, the connection and what kind of console it is are always whole.
fn first(model: &Model, width: u16, theme: Theme) -> Line<'static> {
    let title = theme.style(Role::Title);
    let all = statements(model);
    let room = |is_short: bool| {
        let taken = all.iter().map(|said| columns(said.text(is_short)) + 2);
        usize::from(width).checked_sub(NAME.len() + taken.sum::<usize>())
    };
    let host = model
        .status()
        .map_or_else(String::new, |status| cell(&status.host));
    let wanted = columns(&host).min(HOST_CELLS_MIN);
    let is_short = room(false).is_none_or(|room| room < wanted);
    let host = shortened(&host, room(is_short).unwrap_or(0));
    let mut spans = vec![Span::styled(NAME, title), Span::styled(host, title)];
    for said in all {
        spans.push(Span::raw("  "));
        let text = said.text(is_short).to_owned();
        spans.push(Span::styled(text, theme.style(said.role)));
    }
    let warning = theme.style(Role::Warning);
    spans.extend(lost(model).map(|said| Span::styled(format!("  {said}"), warning)));
    Line::from(spans)
}

/// As much of a text as has room, which says that it goes on.
fn shortened(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    let kept = room.checked_sub(1).map(|room| cut(text, room));
    kept.map_or_else(String::new, |kept| format!("{kept}…"))
}

fn statements(model: &Model) -> Vec<Said> {
    let mut all = Vec::new();
    all.extend(model.status().map(|status| health(model, status)));
    all.push(link(model));
    all.extend(
        model
            .mode
            .banner()
            .map(|banner| Said::of(banner, Role::Warning)),
    );
    all
}

/// What is missing here of the log.
fn lost(model: &Model) -> impl Iterator<Item = String> {
    let tail = &model.tail;
    let skipped = (tail.skipped > 0)
        .then(|| format!("{} records skipped here (the log has them)", tail.skipped));
    let unreadable = (tail.unreadable > 0)
        .then(|| format!("{} records that this release cannot read", tail.unreadable));
    let missing =
        (tail.missing > 0).then(|| format!("{} records missing, asked for again", tail.missing));
    skipped.into_iter().chain(missing).chain(unreadable)
}

/// Whether all is well, where that is known: what was heard too long ago says nothing of now.
fn health(model: &Model, status: &Status) -> Said {
    if let Some(since) = model.doubt_since_unix_ns() {
        let since = clock(since);
        return Said {
            long: format!("? health unknown since {since}"),
            short: format!("? since {since}"),
            role: Role::Warning,
        };
    }
    let checks = |state| {
        status
            .checks
            .iter()
            .filter(|check| check.state == state)
            .count()
    };
    // What was found wrong here the daemon does not know of, or does not say.
    let faults = status.unhealthy.len().max(checks(CheckState::Bad)) + model.log_faults().len();
    if faults > 0 {
        return Said::of(format!("✗ UNHEALTHY ({faults})"), Role::Danger);
    }
    match checks(CheckState::Warning) {
        0 => Said::of("✓ healthy", Role::Open),
        some => Said {
            long: format!("! {some} to look at in 7"),
            short: format!("! {some} in 7"),
            role: Role::Warning,
        },
    }
}

fn link(model: &Model) -> Said {
    match (&model.link, model.doubt_ms()) {
        (Link::Never, None) => Said::of("… connecting", Role::Pending),
        (Link::Up, None) => Said::of("● connected", Role::Muted),
        (Link::Down { .. }, _) => Said::of("○ NOT CONNECTED", Role::Danger),
        (Link::Never | Link::Up, Some(age_ms)) => {
            let age = ago(age_ms / 1000);
            Said {
                long: format!("○ STALE: as of {age} ago"),
                short: format!("○ STALE {age}"),
                role: Role::Danger,
            }
        }
    }
}

/// What must be seen in every view.
fn alarms(model: &Model) -> Vec<String> {
    let mut alarms = Vec::new();
    if let Link::Down {
        why,
        retry_at_ms,
        tries,
    } = &model.link
    {
        let left = retry_at_ms.saturating_sub(model.at_ms).div_ceil(1000);
        let what = if model.known.is_some() {
            "; this is what was last known"
        } else {
            ""
        };
        alarms.push(format!(
            "NOT CONNECTED, again in {left} s (try {tries}){what}: {why}"
        ));
    }
    alarms.extend(model.unrecorded.as_ref().map(|why| {
        format!("THE RECORDING HAS STOPPED, and has nothing of what comes from here on: {why}")
    }));
    let (past, now): (Vec<_>, Vec<_>) = model
        .log_faults()
        .into_iter()
        .partition(|fault| fault.is_past);
    alarms.extend(now.into_iter().map(|fault| fault.said));
    if let Some(status) = model.status() {
        alarms.extend(
            status
                .unhealthy
                .iter()
                .map(|fault| format!("UNHEALTHY: {fault}")),
        );
    }
    // It stays, and is not to keep what is wrong now from being seen.
    alarms.extend(past.into_iter().map(|fault| fault.said));
    if let Some(status) = model.status() {
        alarms.extend(
            status
                .enforce
                .warning()
                .map(|warning| format!("NOTE: {warning}")),
        );
    }
    alarms
}

/// How the views are named where there is so much room.
#[derive(Debug, Clone, Copy)]
struct Naming {
    /// Names are cut, but that of the view that is shown.
    is_short: bool,
    /// One blank between them instead of two, and counts close behind names.
    is_tight: bool,
    /// Counts end at [`COUNT_MAX`].
    is_capped: bool,
}

/// The largest count that is said where there is little room.
const COUNT_MAX: u64 = 99;
/// From the most room to the least. By the last all views have room on the smallest screen, however much is counted.
const NAMINGS: [Naming; 4] = [
    Naming {
        is_short: false,
        is_tight: false,
        is_capped: false,
    },
    Naming {
        is_short: true,
        is_tight: false,
        is_capped: false,
    },
    Naming {
        is_short: true,
        is_tight: true,
        is_capped: false,
    },
    Naming {
        is_short: true,
        is_tight: true,
        is_capped: true,
    },
];
/// Below this width names are cut, whether or not they have room: they would change with each count.
const LONG_NAMES_WIDTH: u16 = 100;

/// The views, each with its key, and how much waits in it.
pub(super) fn tabs(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let namings = NAMINGS
        .iter()
        .filter(|naming| naming.is_short || area.width >= LONG_NAMES_WIDTH);
    let mut all = namings.map(|naming| View::ALL.map(|view| tab(model, view, *naming)));
    let fits = |tabs: &[(String, Role); View::ALL.len()]| {
        tabs.iter().map(|(text, _)| columns(text)).sum::<usize>() <= usize::from(area.width)
    };
    let least = NAMINGS[NAMINGS.len() - 1];
    let shown = all
        .find(fits)
        .unwrap_or_else(|| View::ALL.map(|view| tab(model, view, least)));
    let spans = shown.map(|(text, role)| Span::styled(text, theme.style(role)));
    frame.render_widget(Paragraph::new(Line::from(spans.to_vec())), area);
}

fn tab(model: &Model, view: View, naming: Naming) -> (String, Role) {
    let count = match view {
        View::Windows => model.open().count() as u64,
        View::Requests => model.waiting().count() as u64,
        View::Refusals => model.refusals.count(),
        View::Sessions | View::Log | View::Agents | View::Health => 0,
    };
    let name = if naming.is_short && view != model.view {
        view.name().get(..3).unwrap_or_default()
    } else {
        view.name()
    };
    // Where the next view follows closely, its key is not to be taken for a count.
    let before = if naming.is_tight { ":" } else { " " };
    let count = match count {
        0 => String::new(),
        count if naming.is_capped && count > COUNT_MAX => format!("{before}{COUNT_MAX}+"),
        count => format!("{before}{count}"),
    };
    let role = if view == model.view {
        Role::Selected
    } else if view == View::Requests && !count.is_empty() {
        Role::Pending
    } else {
        Role::Plain
    };
    let end = if naming.is_tight { "" } else { " " };
    (format!(" {} {name}{count}{end}", view.place() + 1), role)
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
            let said = shortened(&cell(&notice.text), usize::from(area.width));
            Line::styled(said, theme.style(role))
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
    if let Some(popup) = &model.popup {
        let all = super::popup::keys(popup).into_iter();
        return fitting(
            all.map(|(key, help)| (key, help.to_owned())),
            &[],
            width,
            theme,
        );
    }
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
    fitting(all.into_iter(), &last, width, theme)
}

/// As many keys as there is room for, the last of them always.
fn fitting(
    all: impl Iterator<Item = (String, String)>,
    last: &[(String, String)],
    width: u16,
    theme: Theme,
) -> Line<'static> {
    let wide = |text: &str| Span::raw(text).width();
    let cells = |(key, help): &(String, String)| wide(key) + wide(help) + 3;
    let mut left = usize::from(width).saturating_sub(last.iter().map(cells).sum::<usize>());
    let fits = |known: &(String, String)| {
        let cells = cells(known);
        let fits = cells <= left;
        left -= if fits { cells } else { 0 };
        fits
    };
    let shown = all.filter(fits).chain(last.iter().cloned());
    let spans = shown.flat_map(|(key, help)| {
        [
            Span::styled(key, theme.style(Role::Title)),
            Span::styled(format!(" {help}  "), theme.style(Role::Muted)),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}
