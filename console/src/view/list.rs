//! The list of a view: a head, and as many rows as there is room for. Only those are looked at, however many there are.

use enforcer_proto::principal::AgentName;
use enforcer_proto::size;
use enforcer_proto::wire::{CheckState, GrantView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};

use super::columns::{Room, columns};
use super::text::{cell, span};
use crate::app::popup::{clock, minutes_seconds};
use crate::app::queries::{Query, State};
use crate::app::rows::Row;
use crate::app::signed::{self, Signed};
use crate::app::{Model, View};
use crate::theme::{Role, Theme};

/// A window that ends within this long stands out, nanoseconds.
const SOON_NS: u64 = 60_000_000_000;
/// How many cells a countdown's bar has, where there is much room and where there is little.
const BAR_CELLS: u64 = 8;
const BAR_CELLS_PLAIN: u64 = 4;
/// The first row that is shown, so that the selected one is.
pub(crate) fn first_shown(model: &Model, rows: &[Row]) -> usize {
    let page = model.page.max(1);
    let at = model.selected(rows).map_or(0, |(at, _)| at);
    // A page stands still while one moves within it.
    (at / page * page).min(rows.len().saturating_sub(page))
}

/// Draws the list, or what is said where there is none.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let rows = model.rows();
    let room = Room::of(area.width);
    let [title, list] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(
        Paragraph::new(heading(model, rows.len(), room, theme)),
        title,
    );
    if rows.is_empty() {
        let muted = theme.style(Role::Muted);
        frame.render_widget(
            Paragraph::new(Line::styled(nothing_shown(model), muted)),
            list,
        );
        return;
    }
    let selected = model.selected(&rows).map(|(at, _)| at);
    let first = first_shown(model, &rows);
    let page = usize::from(list.height.saturating_sub(1));
    let shown = rows.iter().enumerate().skip(first).take(page);
    let columns = columns(model.view, room);
    let shown = shown.map(|(at, row)| {
        let line = TableRow::new(cells(model, row, theme, room));
        if Some(at) == selected {
            line.style(theme.style(Role::Selected))
        } else {
            line
        }
    });
    let head = columns.iter().map(|(name, _)| Cell::from(*name));
    let widths = columns.iter().map(|(_, cells)| width_of(*cells));
    let table = Table::new(shown, widths)
        .header(TableRow::new(head).style(theme.style(Role::Muted)))
        .column_spacing(1);
    frame.render_widget(table, list);
}

fn heading(model: &Model, count: usize, room: Room, theme: Theme) -> Line<'static> {
    let place = model.place();
    let mut text = match model.view {
        View::Windows => format!("{} open{}", model.open().count(), windows_left_out(model)),
        View::Requests => {
            let status = model.status();
            let more = status.map_or(0, |status| status.requests_waiting_left_out);
            let more = if more > 0 {
                format!(", {more} more do and find no room here (enforcer status --request R)")
            } else {
                String::new()
            };
            format!("{count} wait{more}")
        }
        View::Sessions => format!("the newest {count} queries"),
        View::Log => format!("{count} of {}", log_heading(model, room)),
        View::Refusals => {
            let let_go = match model.refusals.let_go() {
                0 => String::new(),
                let_go => format!(", {let_go} kinds let go"),
            };
            format!(
                "{} refused, of {count} kinds{let_go}",
                model.refusals.count()
            )
        }
        View::Agents => {
            let cell = match room {
                Room::Narrow | Room::Plain => "an hour",
                Room::Wide => "half an hour",
            };
            let left_out = model.status().map_or(0, |status| status.agents_left_out);
            let more = if left_out > 0 {
                format!(", {left_out} more find no room here")
            } else {
                String::new()
            };
            format!("{count} agents{more} · a cell is {cell} of the last 24")
        }
        View::Health => "what is checked".to_owned(),
    };
    if let Some(since) = model.doubt_since_unix_ns() {
        text.push_str(&format!(", as of {}", clock(since)));
    }
    if !place.search.is_empty() {
        text.push_str(&format!(" · only with “{}”", cell(&place.search)));
    }
    if matches!(model.view, View::Log | View::Sessions | View::Refusals) {
        text.push_str(if place.follows {
            " · follows"
        } else {
            " · stays"
        });
    }
    Line::styled(text, theme.style(Role::Title))
}

/// How many windows found no room in what the daemon told, and whether they may be open.
fn windows_left_out(model: &Model) -> String {
    let left_out = model.status().map_or(0, |status| status.grants_left_out);
    match (left_out, model.open_left_out_max()) {
        (0, _) => String::new(),
        (ended, 0) => format!(", {ended} more that have ended find no room here"),
        (more, _) => format!(", {more} more find no room here"),
    }
}

/// What was checked here of the log, and what is the daemon's word alone.
fn log_heading(model: &Model, room: Room) -> String {
    let signed = match signed::of(model) {
        Signed::None => "daemon: none signed".to_owned(),
        Signed::Said { records } => format!("daemon: signed to {records}"),
        Signed::Holds { records } => format!("signed to {records}, by the key"),
        Signed::OfElsewhere { records } => format!("signed to {records}, not shown"),
        Signed::Wrong(_) => "SIGNED FALSELY".to_owned(),
    };
    let records = model.status().map_or(0, |status| status.log.records);
    if model.mode.is_replay() {
        return format!("{records} records · as they were recorded, not checked");
    }
    match (model.chain.run(), room) {
        (None, _) => format!("{records} records · none checked · {signed}"),
        (Some((first, last)), Room::Narrow) => {
            format!("{records} · hashes hold {first}–{last} · {signed}")
        }
        (Some((first, last)), Room::Plain | Room::Wide) => {
            format!("{records} records · hashes hold from {first} to {last} · {signed}")
        }
    }
}

/// What is said where a list has nothing.
pub(crate) fn nothing_shown(model: &Model) -> String {
    if !model.place().search.is_empty() {
        return "Nothing here has that text. esc shows all again.".to_owned();
    }
    if model.known.is_none() {
        return "Nothing was heard from the daemon yet.".to_owned();
    }
    if let Some(since) = model.doubt_since_unix_ns() {
        return format!(
            "There was none at {}. Whether there is now is not known.",
            clock(since)
        );
    }
    match model.view {
        View::Windows if model.open_left_out_max() > 0 => {
            return format!(
                "{} windows find no room here, and may be open (enforcer log).",
                model.open_left_out_max()
            );
        }
        View::Windows => return no_window(model),
        View::Requests => "No request is waiting.",
        View::Sessions => "No window was asked anything yet.",
        View::Log => "No record has come yet.",
        View::Refusals => return nothing_refused(model),
        View::Agents => "No agent is configured.",
        View::Health => "Nothing is known yet.",
    }
    .to_owned()
}

/// That all is denied is said only where nothing speaks against it.
fn no_window(model: &Model) -> String {
    let none = "No window is open.";
    match model.status() {
        Some(status) if !status.unhealthy.is_empty() => {
            format!(
                "{none} Whether BigQuery egress is denied is not sure: see what is unhealthy (7)."
            )
        }
        Some(status) if status.enforce.warning().is_some() => {
            format!("{none} BigQuery egress of agents is denied; that of other processes is not.")
        }
        Some(_) => format!("{none} All BigQuery egress is denied."),
        None => none.to_owned(),
    }
}

/// Only what has come here is known of: the log may have more.
fn nothing_refused(model: &Model) -> String {
    let first = model.tail.iter().next().map(|entry| entry.record.seq);
    first.map_or_else(
        || "No record has come yet, so it is not known whether anything was refused.".to_owned(),
        |first| {
            let last = model.tail.last_seq();
            format!(
                "Nothing was refused in records {first} to {last}: those before did not come here."
            )
        },
    )
}

const fn width_of(cells: u16) -> Constraint {
    if cells == 0 {
        Constraint::Fill(1)
    } else {
        Constraint::Length(cells)
    }
}

fn cells(model: &Model, row: &Row, theme: Theme, room: Room) -> Vec<Cell<'static>> {
    match row {
        Row::Grant(id) => model
            .grant(*id)
            .map_or_else(Vec::new, |grant| window(model, grant, theme, room)),
        Row::Request(id) => request(model, *id, theme, room),
        Row::Query(id) => model
            .queries
            .get(*id)
            .map_or_else(Vec::new, |query| asked(query, theme, room)),
        Row::Record(seq) => record(model, *seq, theme),
        Row::Refusal(like) => refusal(model, like, theme, room),
        Row::Agent(name) => agent(model, name, theme, room),
        Row::Health(what, nth) => health(model, (what, *nth), theme),
    }
}

fn cells_of(texts: Vec<(String, Style)>) -> Vec<Cell<'static>> {
    let cells = texts
        .into_iter()
        .map(|(text, style)| Cell::from(span(&text, style)));
    cells.collect()
}

/// How much is left of a whole, in cells of a bar.
fn bar(left: u64, whole: u64, cells: u64) -> String {
    let full = (u128::from(left) * u128::from(cells))
        .div_ceil(u128::from(whole.max(1)))
        .min(u128::from(cells));
    let full = usize::try_from(full).unwrap_or(0);
    let cells = usize::try_from(cells).unwrap_or(0);
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

/// How a window is: its glyph, the same in a word, and how it looks.
const fn state_of_window(grant: &GrantView, left_ns: u64) -> (&'static str, &'static str, Role) {
    if grant.open && left_ns == 0 {
        ("◌", "ending", Role::Warning)
    } else if !grant.open {
        ("×", "closed", Role::Muted)
    } else if grant.break_glass.is_some() {
        ("!", "EMERGENCY", Role::Danger)
    } else if left_ns < SOON_NS {
        ("◐", "soon", Role::Warning)
    } else {
        ("●", "open", Role::Open)
    }
}

/// How long a window is still open, behind the word for how it is.
fn closes(grant: &GrantView, word: &str, left_ns: u64, room: Room) -> String {
    let left = minutes_seconds(left_ns);
    match (&grant.closed, room) {
        (Some(why), _) => why.clone(),
        (None, _) if !grant.open || left_ns == 0 => "ending".to_owned(),
        (None, Room::Narrow) => format!("{} {left}", word.get(..5).unwrap_or(word)),
        // The word takes the place of the bar.
        (None, Room::Plain | Room::Wide) if grant.break_glass.is_some() => {
            format!("{word} {left}")
        }
        (None, Room::Plain) => {
            let bar = bar(left_ns, grant.lasts_ns, BAR_CELLS_PLAIN);
            format!("{word} {bar} {left}")
        }
        (None, Room::Wide) => {
            let bar = bar(left_ns, grant.lasts_ns, BAR_CELLS);
            format!("{word} {bar} {left}")
        }
    }
}

fn window(model: &Model, grant: &GrantView, theme: Theme, room: Room) -> Vec<Cell<'static>> {
    let left = model.left_ns(grant.closes_in_ns);
    let plain = theme.style(Role::Plain);
    let (glyph, word, role) = state_of_window(grant, left);
    let closes = closes(grant, word, left, room);
    let style = theme.style(role);
    let quiet = if grant.open {
        plain
    } else {
        theme.style(Role::Muted)
    };
    let mut texts = vec![
        (glyph.to_owned(), style),
        (grant.grant.to_string(), quiet),
        (grant.agent.to_string(), quiet),
        (grant.scope.to_string(), quiet),
        (closes, style),
    ];
    if room != Room::Narrow {
        let queries = format!("{}/{}", grant.queries, grant.queries_max);
        texts.push((queries, quiet));
    }
    if room == Room::Wide {
        let sparkline = model
            .rates
            .get(&grant.grant)
            .map_or_else(String::new, |rate| sparkline(&rate.each));
        texts.push((
            format!(
                "{}/{}",
                size::short(grant.bytes),
                size::short(grant.bytes_max)
            ),
            quiet,
        ));
        texts.push((sparkline, theme.style(Role::Open)));
        texts.push((share(model, &grant.agent), quiet));
        texts.push((grant.approver.clone(), quiet));
    } else {
        texts.push((
            percent(
                grant.bytes.saturating_add(grant.held_bytes),
                grant.bytes_max,
            ),
            quiet,
        ));
    }
    cells_of(texts)
}

fn percent(part: u64, whole: u64) -> String {
    let share = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{share} %")
}

/// How many per cent of a day so many seconds are. What the daemon says is not taken on trust: it may be more than a day has.
pub(super) const fn share_of_day(seconds: u64) -> u64 {
    seconds.saturating_mul(100) / 86_400
}

/// The share of the last 24 hours in which an agent held a window.
pub(super) fn share(model: &Model, agent: &AgentName) -> String {
    model
        .agent(agent)
        .map_or_else(String::new, |known| percent(known.held_in_day_s, 86_400))
}

/// How many of a window's rates its column shows.
const SPARKS: usize = 8;

/// The last of these numbers, each as high as its share of the most.
pub(super) fn sparkline(each: &[u64]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &each[each.len().saturating_sub(SPARKS)..];
    let most = shown.iter().copied().max().unwrap_or(0).max(1);
    let step = |count: &u64| {
        let at = u128::from(*count) * 7 / u128::from(most);
        STEPS[usize::try_from(at).unwrap_or(7).min(7)]
    };
    shown.iter().map(step).collect()
}

fn request(
    model: &Model,
    id: enforcer_proto::id::RequestId,
    theme: Theme,
    room: Room,
) -> Vec<Cell<'static>> {
    let Some(request) = model.waiting().find(|request| request.request == id) else {
        return Vec::new();
    };
    let (plain, pending) = (theme.style(Role::Plain), theme.style(Role::Pending));
    let left = model.left_ns(request.expires_in_ns);
    let mut texts = vec![
        ("?".to_owned(), pending),
        (request.request.to_string(), plain),
        (request.agent.to_string(), plain),
        (request.scope.to_string(), plain),
        (request.ttl.to_string(), plain),
        (minutes_seconds(left), pending),
    ];
    if room == Room::Wide {
        texts.push((percent(request.held_in_day_s, 86_400), plain));
        let wanting = request
            .wanting
            .as_deref()
            .unwrap_or("nobody can approve it");
        texts.push((wanting.to_owned(), plain));
    }
    if room != Room::Narrow {
        texts.push((request.ask.reason.clone(), plain));
    }
    cells_of(texts)
}

fn asked(query: &Query, theme: Theme, room: Room) -> Vec<Cell<'static>> {
    let (glyph, role) = glyph_of(query);
    let plain = theme.style(Role::Plain);
    let what = query.sql.as_ref().or(query.resource.as_ref());
    let what = what.cloned().unwrap_or_else(|| query.method.clone());
    let took = query
        .duration_us
        .map_or_else(|| "…".to_owned(), |us| format!("{} ms", us / 1000));
    let state = (state_of(query), theme.style(role));
    let mut texts = vec![
        (glyph.to_owned(), theme.style(role)),
        (query.query.to_string(), plain),
    ];
    if room != Room::Narrow {
        texts.push((query.grant.to_string(), plain));
    }
    texts.push((query.agent.to_string(), plain));
    if room == Room::Wide {
        texts.push((query.method.clone(), plain));
    }
    texts.push((what, plain));
    texts.push((size::short(query.bytes), plain));
    if room != Room::Narrow {
        texts.push((took, plain));
    }
    texts.push(state);
    cells_of(texts)
}

fn glyph_of(query: &Query) -> (&'static str, Role) {
    if query.read_outside.is_some() {
        return ("!", Role::Danger);
    }
    match &query.state {
        State::Running => ("▶", Role::Pending),
        State::Answered(status) if *status < 400 => ("✓", Role::Open),
        State::Answered(_) => ("✗", Role::Warning),
        State::Ended(_) => ("✂", Role::Warning),
    }
}

/// How far a query is, in a word or two.
pub(super) fn state_of(query: &Query) -> String {
    if query.read_outside.is_some() {
        return "OUTSIDE".to_owned();
    }
    match &query.state {
        State::Running => "running".to_owned(),
        State::Answered(status) if *status < 400 => format!("ok {status}"),
        State::Answered(status) => format!("error {status}"),
        State::Ended(why) => why.clone(),
    }
}

/// Whether a sentence is of something bad. Sentences begin with a word in capitals where they are.
pub(super) fn role_of(sentence: &str) -> Role {
    let first = sentence.split(' ').next().unwrap_or_default();
    let is_loud = first.len() > 2 && first.chars().all(|c| c.is_ascii_uppercase());
    if is_loud && first != "HEALTHY" {
        Role::Warning
    } else {
        Role::Plain
    }
}

fn record(model: &Model, seq: u64, theme: Theme) -> Vec<Cell<'static>> {
    let Some(entry) = model.tail.get(seq) else {
        return Vec::new();
    };
    // It has its hash, and follows the one before it.
    // What a recording says of itself shows nothing.
    let is_checked = model.chain.holds(seq) && !model.mode.is_replay();
    let mark = if is_checked { "✓" } else { " " };
    cells_of(vec![
        (format!("{seq}{mark}"), theme.style(Role::Muted)),
        (clock(entry.record.unix_ns), theme.style(Role::Muted)),
        (
            entry.sentence.clone(),
            theme.style(role_of(&entry.sentence)),
        ),
    ])
}

fn refusal(
    model: &Model,
    like: &crate::app::refusals::Like,
    theme: Theme,
    room: Room,
) -> Vec<Cell<'static>> {
    let Some((like, burst)) = model.refusals.get(like) else {
        return Vec::new();
    };
    let plain = theme.style(Role::Plain);
    let count = if burst.count > 9 {
        theme.style(Role::Warning)
    } else {
        plain
    };
    let mut texts = vec![
        (format!("{}×", burst.count), count),
        (clock(burst.last_unix_ns), theme.style(Role::Muted)),
        (like.who.clone(), plain),
    ];
    if room == Room::Wide {
        texts.push((like.process.clone(), plain));
        texts.push((like.way.to_owned(), plain));
    }
    texts.push((like.why.clone(), theme.style(Role::Warning)));
    if room == Room::Narrow {
        return cells_of(texts);
    }
    let what = if room == Room::Wide || !like.what.is_empty() {
        like.what.clone()
    } else {
        like.process.clone()
    };
    texts.push((what, plain));
    cells_of(texts)
}

fn agent(model: &Model, name: &AgentName, theme: Theme, room: Room) -> Vec<Cell<'static>> {
    let Some(agent) = model.agent(name) else {
        return Vec::new();
    };
    let plain = theme.style(Role::Plain);
    let is_open = model.open().any(|grant| grant.agent == *name);
    let (glyph, word, role) = if agent.locked.is_some() {
        ("⊘", "LOCKED", Role::Danger)
    } else if is_open {
        ("●", "open", Role::Open)
    } else if model.open_left_out_max() > 0 {
        // Its window may be among those that found no room.
        ("?", "unsure", Role::Warning)
    } else {
        ("○", "none", Role::Muted)
    };
    let workload = match &agent.locked {
        Some(lock) => format!("LOCKED by {}: {}", lock.by, lock.reason),
        None => agent.workload.clone(),
    };
    // A quarter of the day is a good deal; half of it is standing access with a timer.
    let share = share_of_day(agent.held_in_day_s);
    let loud = if share >= 50 {
        Role::Danger
    } else if share >= 25 {
        Role::Warning
    } else {
        Role::Plain
    };
    let mut texts = vec![
        (glyph.to_owned(), theme.style(role)),
        (agent.agent.to_string(), plain),
        (strip(&agent.day, room), theme.style(Role::Open)),
        (format!("{share} %"), theme.style(loud)),
        (agent.processes.to_string(), plain),
        (word.to_owned(), theme.style(role)),
    ];
    if room != Room::Narrow {
        let style = if agent.locked.is_some() {
            theme.style(Role::Danger)
        } else {
            plain
        };
        texts.push((workload, style));
    }
    cells_of(texts)
}

/// How many quarters of an hour a day has.
const DAY_QUARTERS: usize = 96;

/// A day as one cell for each half hour, or hour: how much of it a window was open. The last cell is of the newest quarters, also where the daemon tells
/// of fewer than a day has: what it does not tell of lies before them.
fn strip(day: &[u8], room: Room) -> String {
    let quarters = match room {
        Room::Narrow | Room::Plain => 4,
        Room::Wide => 2,
    };
    let newest = &day[day.len().saturating_sub(DAY_QUARTERS)..];
    let mut whole = [0; DAY_QUARTERS];
    whole[DAY_QUARTERS - newest.len()..].copy_from_slice(newest);
    let cell = |quarters: &[u8]| match quarters.iter().copied().max().unwrap_or(0) {
        0 => '·',
        1..=33 => '░',
        34..=66 => '▒',
        67..=99 => '▓',
        100.. => '█',
    };
    whole.chunks(quarters).map(cell).collect()
}

fn health(model: &Model, row: (&str, usize), theme: Theme) -> Vec<Cell<'static>> {
    let Some(line) = super::health_line(model, row) else {
        return Vec::new();
    };
    let (mark, said) = match line.state {
        CheckState::Well => (Role::Open, Role::Plain),
        CheckState::Warning => (Role::Warning, Role::Warning),
        CheckState::Bad => (Role::Danger, Role::Danger),
        CheckState::Unknown => (Role::Warning, Role::Plain),
    };
    cells_of(vec![
        (line.state.mark().to_owned(), theme.style(mark)),
        (line.what.clone(), theme.style(Role::Plain)),
        (line.said.clone(), theme.style(said)),
    ])
}
