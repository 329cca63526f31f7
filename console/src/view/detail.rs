//! All there is of what is selected.

use enforcer_proto::size;
use enforcer_proto::wire::GrantView;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph};

use super::list::{share, sparkline, state_of};
use super::text::whole;
use crate::app::Model;
use crate::app::popup::{clock_ms, grant_lines, request_lines, started};
use crate::app::queries::Query;
use crate::app::rows::Row;
use crate::theme::{Role, Theme};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let (title, lines) = told(area, model, theme);
    let from = model.detail.unwrap_or(0);
    scrolled(frame, area, &title, (Vec::new(), lines), from, theme);
}

/// The last line from which on a box of `body` is filled.
pub(super) fn last_from(body: Rect, model: &Model) -> usize {
    let area = super::body::beside_list(body);
    let room = usize::from(area.height.saturating_sub(2));
    let (_, lines) = told(area, model, Theme::Plain);
    lines.len().saturating_sub(room)
}

fn told(area: Rect, model: &Model, theme: Theme) -> (String, Vec<Line<'static>>) {
    let (title, texts) = lines(model);
    let width = usize::from(area.width.saturating_sub(2));
    let plain = theme.style(Role::Plain);
    let lines = texts.iter().flat_map(|text| whole(text, width, plain));
    (title, lines.collect())
}

/// A box of lines that always stand, and of others from one of them on; the end is never scrolled past.
pub(super) fn scrolled(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    (pinned, lines): (Vec<Line<'static>>, Vec<Line<'static>>),
    from: usize,
    theme: Theme,
) {
    let room = usize::from(area.height.saturating_sub(2)).saturating_sub(pinned.len());
    let last = lines.len().saturating_sub(room);
    let from = from.min(last);
    let below = lines.len().saturating_sub(from + room);
    let mut block = Block::new()
        .borders(Borders::ALL)
        .title(super::text::cell(title))
        .title_style(theme.style(Role::Title));
    if last > 0 {
        block = block.title_bottom(format!(" {below} more lines below "));
    }
    let shown = lines.into_iter().skip(from).take(room);
    let shown: Vec<Line<'static>> = pinned.into_iter().chain(shown).collect();
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

fn lines(model: &Model) -> (String, Vec<String>) {
    let nothing = || ("nothing is selected".to_owned(), Vec::new());
    let Some(row) = model.chosen() else {
        return nothing();
    };
    match row {
        Row::Grant(id) => model.grant(id).map_or_else(nothing, |grant| {
            let mut lines = window_lines(model, grant);
            let queries = model.queries.iter().rev().filter(|query| query.grant == id);
            lines.extend(queries.take(20).map(query_line));
            (format!("window {id}"), lines)
        }),
        Row::Request(id) => {
            let found = model.waiting().find(|request| request.request == id);
            found.map_or_else(nothing, |request| {
                (format!("request {id}"), request_lines(model, request))
            })
        }
        Row::Query(id) => model
            .queries
            .get(id)
            .map_or_else(nothing, |query| (format!("query {id}"), query_lines(query))),
        Row::Record(seq) => model.tail.get(seq).map_or_else(nothing, |entry| {
            let mut lines = vec![entry.sentence.clone()];
            let pretty = serde_json::to_string_pretty(&entry.record);
            lines.extend(pretty.unwrap_or_default().lines().map(str::to_owned));
            (format!("record {seq}"), lines)
        }),
        Row::Refusal(like) => model
            .refusals
            .get(&like)
            .map_or_else(nothing, |(like, burst)| {
                let lines = vec![
                    format!("who      {}", like.who),
                    format!("process  {}", like.process),
                    format!("way      {}", like.way),
                    format!("why      {}", like.why),
                    format!("what     {}", like.what),
                    format!("times    {}", burst.count),
                    format!("first    {} UTC", clock_ms(burst.first_unix_ns)),
                    format!(
                        "last     {} UTC, record {}",
                        clock_ms(burst.last_unix_ns),
                        burst.seq
                    ),
                    burst.sentence.clone(),
                ];
                ("refusals of one kind".to_owned(), lines)
            }),
        Row::Agent(name) => {
            agent_lines(model, &name).map_or_else(nothing, |lines| (format!("agent {name}"), lines))
        }
        Row::Health(what, nth) => super::health_line(model, (&what, nth))
            .map_or_else(nothing, |line| (line.what, vec![line.said])),
    }
}

/// Everything about a window, and how it and its agent use it, a line each, unwrapped.
pub(crate) fn window_lines(model: &Model, grant: &GrantView) -> Vec<String> {
    let mut lines = grant_lines(model, grant);
    let rates = model.rates.get(&grant.grant).map(|rate| &rate.each);
    if let Some((rates, last)) = rates.and_then(|rates| Some((rates, rates.last()?))) {
        lines.push(format!(
            "rate     {} {last} queries in the last second",
            sparkline(rates)
        ));
    }
    let share = share(model, &grant.agent);
    if !share.is_empty() {
        lines.push(format!(
            "24 h     {} held windows for {share} of it",
            grant.agent
        ));
    }
    lines
}

/// A query in a line.
pub(crate) fn query_line(query: &Query) -> String {
    let sql = query.sql.as_deref().unwrap_or(&query.method);
    let sql: String = sql.chars().take(120).collect();
    format!(
        "{}  {}  {}: {sql}",
        query.query,
        state_of(query),
        size::short(query.bytes)
    )
}

/// Everything about a query, a line each, unwrapped.
pub(crate) fn query_lines(query: &Query) -> Vec<String> {
    let dry = if query.is_dry_run { " (a dry run)" } else { "" };
    let mut lines = vec![
        format!(
            "window   {} of {}, {}",
            query.grant, query.agent, query.session
        ),
        format!("process  {}", query.process),
        format!("method   {}{dry}", query.method),
        format!(
            "asked    {} UTC, record {}",
            clock_ms(query.asked_unix_ns),
            query.seq
        ),
        format!("status   {}", state_of(query)),
        format!(
            "bytes    {}, and {} sent to the agent",
            size::whole(query.bytes),
            size::whole(query.body_bytes)
        ),
    ];
    lines.extend(
        query
            .duration_us
            .map(|us| format!("took     {}.{:03} ms", us / 1000, us % 1000)),
    );
    lines.extend(query.job.as_ref().map(|job| format!("job      {job}")));
    lines.extend(query.resource.as_ref().map(|of| format!("of       {of}")));
    lines.extend(query.tables.iter().map(|table| format!("reads    {table}")));
    lines.extend(query.writes.iter().map(|table| format!("writes   {table}")));
    lines.extend(
        query
            .read_outside
            .as_ref()
            .map(|table| format!("READ OUTSIDE ITS WINDOW: {table}")),
    );
    if let Some(sql) = &query.sql {
        // One text: whatever lines it is made of, they are all its own.
        lines.push(format!("SQL\n{}", super::sql::pretty(sql)));
    }
    lines
}

/// Everything about an agent, a line each, unwrapped.
pub(crate) fn agent_lines(
    model: &Model,
    name: &enforcer_proto::principal::AgentName,
) -> Option<Vec<String>> {
    let agent = model.agent(name)?;
    let mut lines = vec![
        format!("workload {}", agent.workload),
        format!(
            "windows  for {} min of the last 24 h ({} %)",
            agent.held_in_day_s.div_ceil(60),
            super::list::share_of_day(agent.held_in_day_s)
        ),
        format!(
            "requests {} approved, {} denied, {} left undecided, of those that are remembered",
            agent.approved, agent.denied, agent.undecided
        ),
        format!(
            "refused  {} times since {}, when the daemon started, requests, queries and connections together",
            agent.refused,
            started(model)
        ),
        format!("live     {} processes", agent.processes),
    ];
    lines.extend(agent.some.iter().map(|process| {
        format!(
            "         pid {} ({}, uid {})",
            process.pid, process.comm, process.uid
        )
    }));
    lines.extend(agent.locked.as_ref().map(|lock| {
        format!(
            "LOCKED   by {} since {} UTC: {}",
            lock.by,
            clock_ms(lock.since_unix_ns),
            lock.reason
        )
    }));
    let open = model.open().filter(|grant| grant.agent == *name);
    let open: Vec<_> = open
        .map(|grant| format!("open     {}  {}", grant.grant, grant.scope))
        .collect();
    let more = model.open_left_out_max();
    if open.is_empty() && more > 0 {
        lines.push(format!(
            "open     not known: {more} windows find no room here"
        ));
    }
    lines.extend(open);
    Some(lines)
}
