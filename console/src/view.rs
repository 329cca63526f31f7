//! One screen, drawn from what the daemon said. Pure: the same model and size give the same cells.

use enforcer_proto::text::safe_line;
use enforcer_proto::wire::{GrantView, RequestView, Status};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

/// The smallest screen on which something is shown.
const SMALLEST: (u16, u16) = (60, 12);

/// What is known.
#[derive(Debug)]
pub(crate) enum Model {
    /// As of now.
    Live(Status),
    /// The last that was known, and why there is nothing newer.
    Stale(Status, String),
}

/// Draws the screen.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("terminal too small (need {}×{})", SMALLEST.0, SMALLEST.1);
        return frame.render_widget(Paragraph::new(text), area);
    }
    let (status, fault) = match model {
        Model::Live(status) => (status, None),
        Model::Stale(status, why) => (status, Some(why)),
    };
    let health = health(status, fault);
    let rows = u16::try_from(health.len())
        .unwrap_or(4)
        .min(area.height / 3);
    let [top, requests, windows, bottom] = Layout::vertical([
        Constraint::Length(rows),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(health), top);
    panel(frame, requests, "Requests", request_lines(status));
    panel(frame, windows, "Windows", window_lines(status));
    frame.render_widget(
        Paragraph::new("q end · decide with: enforcer approve | deny | revoke"),
        bottom,
    );
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'static>>) {
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(title.to_owned())),
        area,
    );
}

fn health(status: &Status, fault: Option<&String>) -> Vec<Line<'static>> {
    let loud = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
    let mut lines = vec![Line::from(format!(
        "{} · {} addresses protected · {} records · kernel: {} led, {} refused",
        status.host,
        status.endpoints,
        status.log.records,
        status.kernel.redirected,
        status
            .kernel
            .denied
            .saturating_add(status.kernel.egress_dropped)
    ))];
    if let Some(why) = fault {
        lines.push(Line::styled(
            format!(
                "NOT CONNECTED, below is what was last known: {}",
                safe_line(why, 120)
            ),
            loud,
        ));
    }
    let warning = status.enforce.warning();
    lines.extend(warning.map(|warning| Line::styled(format!("NOTE: {warning}"), loud)));
    lines.extend(
        status
            .unhealthy
            .iter()
            .map(|fault| Line::styled(format!("UNHEALTHY: {}", safe_line(fault, 160)), loud)),
    );
    lines
}

fn request_lines(status: &Status) -> Vec<Line<'static>> {
    let waiting: Vec<&RequestView> = status
        .requests
        .iter()
        .filter(|request| request.state == "pending")
        .collect();
    if waiting.is_empty() {
        return vec![Line::from("No request is waiting.")];
    }
    let lines = waiting.iter().flat_map(|request| {
        [
            Line::from(format!(
                "? {}  {}  {} for {}  (waits {} more)",
                request.request,
                request.agent,
                request.ask.scope,
                request.ask.ttl,
                seconds(request.expires_in_ns)
            )),
            Line::from(format!("    {}", safe_line(&request.ask.reason, 200))),
        ]
    });
    lines.collect()
}

fn window_lines(status: &Status) -> Vec<Line<'static>> {
    let open: Vec<&GrantView> = status.grants.iter().filter(|grant| grant.open).collect();
    if open.is_empty() {
        return vec![Line::from(
            "No window is open. All BigQuery egress is denied.",
        )];
    }
    let line = |grant: &&GrantView| {
        Line::from(format!(
            "● {}  {}  {}  closes in {}  {}/{} queries  {}/{} bytes  by {}",
            grant.grant,
            grant.agent,
            grant.scope,
            seconds(grant.closes_in_ns),
            grant.queries,
            grant.queries_max,
            grant.bytes,
            grant.bytes_max,
            grant.approver
        ))
    };
    open.iter().map(line).collect()
}

fn seconds(ns: u64) -> String {
    let all = ns.div_ceil(1_000_000_000);
    format!("{}:{:02}", all / 60, all % 60)
}

#[cfg(test)]
mod tests {
    use enforcer_proto::time::Now;
    use proptest::prelude::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn status(reason: &str) -> Status {
        let request = RequestView {
            request: "r-1".parse().expect("an id"),
            agent: "finance-bot".parse().expect("a name"),
            uid: 2001,
            pid: 7,
            ask: enforcer_proto::policy::Ask {
                scope: "demo-project.finance:read".parse().expect("a scope"),
                ttl: "15m".parse().expect("a ttl"),
                reason: reason.to_owned(),
                bytes_max: None,
                queries_max: None,
            },
            digest: String::new(),
            rule: 1,
            state: "pending".into(),
            grant: None,
            reason: None,
            expires_in_ns: 61_000_000_000,
        };
        Status {
            now: Now {
                boot_ns: 1,
                unix_ns: 1,
            },
            host: "host-a".into(),
            version: "0".into(),
            unhealthy: Vec::new(),
            endpoints: 2,
            guards: Vec::new(),
            enforce: enforcer_proto::wire::Enforce::Host,
            kernel: enforcer_proto::wire::KernelCounters::default(),
            log: enforcer_proto::wire::LogView::default(),
            requests: vec![request],
            requests_left_out: 0,
            grants: Vec::new(),
            grants_left_out: 0,
        }
    }

    fn shown(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, model)).expect("draws");
        terminal.backend().to_string()
    }

    #[test]
    fn what_waits_and_what_is_open_is_said_in_sentences() {
        let text = shown(&Model::Live(status("month end")), 80, 24);
        assert!(
            text.contains(
                "? r-1  finance-bot  demo-project.finance:read for 15m  (waits 1:01 more)"
            ),
            "{text}"
        );
        assert!(
            text.contains("month end")
                && text.contains("No window is open. All BigQuery egress is denied."),
            "{text}"
        );
    }

    #[test]
    fn an_agents_text_cannot_reorder_the_screen() {
        let text = shown(&Model::Live(status("a\u{202e}b\u{1b}[2J")), 80, 24);
        assert!(text.contains("a\\u{202e}b\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn a_lost_connection_is_loud_and_keeps_what_was_known() {
        let text = shown(&Model::Stale(status("x"), "gone".into()), 120, 40);
        assert!(
            text.contains("NOT CONNECTED") && text.contains("r-1"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn no_size_makes_it_panic(width in 1_u16..200, height in 1_u16..60, reason in any::<String>()) {
            shown(&Model::Live(status(&reason)), width, height);
        }
    }
}
