//! Whole screens: what each view shows, in each state, at each size; what carries danger looks like it; no size and no text breaks anything.

use enforcer_proto::wire::{CheckState, Status};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::app::key::Key;
use crate::app::tail::Entry;
use crate::app::{Link, Mode, Msg, View};
use crate::demo;
use crate::sheet::text_of;

mod evidence;
mod numbers;
mod reading;
mod strip;

const SIZES: [(u16, u16); 4] = [(60, 12), (80, 24), (120, 40), (200, 60)];

/// What there is to show.
#[derive(Debug, Clone, Copy)]
enum State {
    Empty,
    Busy,
    Disconnected,
    Unhealthy,
}

const STATES: [(State, &str); 4] = [
    (State::Empty, "empty"),
    (State::Busy, "busy"),
    (State::Disconnected, "disconnected"),
    (State::Unhealthy, "unhealthy"),
];

fn status_of(model: &Model) -> Status {
    model.status().expect("one came").clone()
}

fn model(state: State) -> Model {
    let mut model = Model::new(Mode::Full);
    for msg in demo::story().expect("it is well made") {
        model.update(0, msg);
    }
    match state {
        State::Busy => {}
        State::Empty => {
            let mut status = status_of(&model);
            status.requests.clear();
            status.grants.clear();
            status.agents.clear();
            model = Model::new(Mode::Full);
            model.update(0, Msg::Status(Box::new(status)));
        }
        State::Disconnected => {
            let lost = Msg::Lost {
                why: "the daemon did not answer: Connection refused (os error 111)".to_owned(),
                retry_ms: 4_000,
                tries: 3,
            };
            model.update(5_000, lost);
        }
        State::Unhealthy => {
            let mut status = status_of(&model);
            status.unhealthy = vec![
                "the program connect4 is not attached any more".to_owned(),
                "the audit log cannot be written, so nothing is allowed: No space left on device".to_owned(),
                "window g-6 of agent loader was opened in an emergency by uid 5003, and nobody else has looked at it yet".to_owned(),
                "the file system of the audit log has 4096 bytes left".to_owned(),
            ];
            model.update(0, Msg::Status(Box::new(status)));
        }
    }
    model
}

fn drawn(model: &mut Model, (width, height): (u16, u16), theme: Theme) -> Buffer {
    fits(model, (width, height));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| draw(frame, model, theme))
        .expect("draws");
    terminal.backend().buffer().clone()
}

/// What the loop does around a screen.
fn fits(model: &mut Model, (width, height): (u16, u16)) {
    fit(model, Rect::new(0, 0, width, height));
    if let Some(shown) = super::shown(model) {
        model.update(0, Msg::Shown(shown));
    }
    crate::app::tests::stands(model, (width, height));
}

fn shown(model: &mut Model, size: (u16, u16)) -> String {
    text_of(&drawn(model, size, Theme::Dark))
}

fn types(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        let key = match key {
            '⏎' => Key::Enter,
            '⎋' => Key::Esc,
            key => Key::Char(key),
        };
        model.update(0, Msg::Key(key));
        fits(model, (80, 24));
    }
}

#[track_caller]
fn check(name: &str, said: &str) {
    let path = format!(
        "{}/src/view/tests/screens/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("WRITE_TABLES").is_some() {
        std::fs::write(&path, said).expect("writes");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        kept, said,
        "{path} is another screen; run this test with WRITE_TABLES=1, and look at what changed"
    );
}

#[test]
fn every_view_in_every_state_at_every_size_is_the_screen_that_was_looked_at() {
    for (state, name) in STATES {
        for size in SIZES {
            let mut said = String::new();
            for view in View::ALL {
                let mut model = model(state);
                model.view = view;
                said.push_str(&format!(
                    "── {} ──\n{}",
                    view.name(),
                    shown(&mut model, size)
                ));
            }
            check(&format!("{name}-{}x{}", size.0, size.1), &said);
        }
    }
}

#[test]
fn every_popup_is_the_screen_that_was_looked_at() {
    let cases = [
        ("help", "?"),
        ("approve", "2a"),
        ("approve-less", "2e"),
        ("deny", "2dmonth is closed"),
        ("deny-confirmed", "2dmonth is closed⏎"),
        ("revoke", "1jr"),
        ("lock", "6Lasks at night⏎"),
        ("unlock", "6jjjUunl"),
        ("close-all", "Xclose"),
        ("proof", "1jry"),
        ("why-refused", "5jw"),
        ("why-kernel", "5w"),
        ("found", "1:find agent=finance-bot kind=query_admitted⏎"),
        ("find-wrong", "1Fnonsense⏎"),
        ("story", "1js"),
        ("detail-window", "1j⏎"),
        ("detail-request", "2⏎"),
        ("detail-query", "3k⏎"),
        ("detail-record", "4⏎"),
        ("detail-refusal", "5j⏎"),
        ("detail-agent", "6⏎"),
        ("search", "4/finance"),
        ("command", "1:revoke g-5⏎"),
        ("command-wrong", "1:nonsense⏎"),
    ];
    for (name, keys) in cases {
        let mut model = model(State::Busy);
        types(&mut model, keys);
        let said = [(80, 24), (60, 12)]
            .map(|size| shown(&mut model, size))
            .concat();
        check(&format!("popup-{name}"), &said);
    }
}

#[test]
fn of_a_story_that_is_longer_than_is_shown_it_is_said_and_its_beginning_is_there() {
    let mut model = model(State::Busy);
    types(&mut model, "1js");
    let of = |seqs: std::ops::Range<usize>| model.tail.iter().take(seqs.end).skip(seqs.start);
    let found =
        crate::app::find::Found::ends(of(0..2).cloned().collect(), of(6..9).cloned().collect());
    let answer = Msg::Found {
        title: "the story of g-5".to_owned(),
        found: Ok(found),
    };
    model.update(0, answer);
    for size in [(80, 24), (60, 24)] {
        let said = shown(&mut model, size).replace('│', " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "the first 2 and the newest 3 of more records,",
            "enforcer-console story g-5",
            "open g-5",
            "more between, which are not shown here",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn every_view_has_its_place_among_all_however_much_is_counted() {
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    let open = status.grants.iter().find(|grant| grant.open).cloned();
    status.grants = vec![open.expect("one is open"); 1_024];
    let waits = status.requests[0].clone();
    status.requests = vec![waits; 1_024];
    model.update(0, Msg::Status(Box::new(status)));
    let line = r#"{"seq":99,"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{"kind":"kernel_refused","agent":null,"process":{"pid":1,"start_boot_ns":1,"uid":1,"comm":"x"},"verdict":"udp","destination":"192.0.2.1:443","count":9000000000},"prev":"x"}"#;
    let entry = Entry::read(line).expect("a record");
    model.update(0, Msg::Records(vec![entry], Vec::new()));
    for width in 60..=200 {
        for view in View::ALL {
            model.view = view;
            let said = shown(&mut model, (width, 24));
            let tabs = said.lines().find(|line| line.starts_with(" 1 win"));
            let tabs = tabs.unwrap_or_default();
            let names = View::ALL.map(|view| format!("{} {}", view.place() + 1, &view.name()[..3]));
            assert!(
                names.iter().all(|name| tabs.contains(name)),
                "{width}: {tabs}"
            );
            assert!(tabs.contains(view.name()), "{width}: {tabs}");
            assert!(
                tabs.contains("1024") || (width < 80 && tabs.contains("99+")),
                "{width}: {tabs}"
            );
        }
    }
}

/// The style of the first cell of a text on screen.
fn style_at(buffer: &Buffer, text: &str) -> (Color, Modifier) {
    let width = usize::from(buffer.area.width);
    let first: String = text.chars().take(1).collect();
    let at = (0..buffer.content.len()).find(|at| {
        let row = &buffer.content[*at..(at / width + 1) * width];
        let said: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        row[0].symbol() == first && said.starts_with(text)
    });
    let cell = &buffer.content[at.unwrap_or_else(|| panic!("{text} is not shown"))];
    (cell.fg, cell.modifier)
}

#[test]
fn what_is_wrong_stands_out_with_colours_and_without() {
    for theme in [Theme::Dark, Theme::Light, Theme::Plain] {
        let alarm = Modifier::BOLD | Modifier::REVERSED;
        let unwell = drawn(&mut model(State::Unhealthy), (80, 24), theme);
        assert_eq!(
            style_at(&unwell, "UNHEALTHY: the program").1,
            alarm,
            "{theme:?}"
        );
        let lost = drawn(&mut model(State::Disconnected), (80, 24), theme);
        assert_eq!(
            style_at(&lost, "NOT CONNECTED, again").1,
            alarm,
            "{theme:?}"
        );
        let mut ending = model(State::Busy);
        types(&mut ending, "Xclose");
        let ending = drawn(&mut ending, (80, 24), theme);
        assert_eq!(style_at(&ending, "type “close all”").1, alarm, "{theme:?}");
        assert_eq!(
            style_at(&unwell, "UNHEALTHY").0 == Color::Reset,
            theme == Theme::Plain
        );
    }
}

#[test]
fn without_colour_nothing_is_coloured() {
    for (state, _) in STATES {
        let buffer = drawn(&mut model(state), (120, 40), Theme::Plain);
        let is_bare =
            |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        assert!(buffer.content.iter().all(is_bare));
    }
}

/// Every text that an agent chose, made this one.
fn hostile(text: &str) -> Model {
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    for request in &mut status.requests {
        text.clone_into(&mut request.ask.reason);
    }
    for agent in &mut status.agents {
        agent
            .some
            .iter_mut()
            .for_each(|process| text.clone_into(&mut process.comm));
    }
    model.update(0, Msg::Status(Box::new(status)));
    let sql = serde_json::to_string(text).expect("a text");
    let line = format!(
        r#"{{"seq":99,"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{{"kind":"query_admitted","query":"q-99","grant":"g-5","agent":"finance-bot","session":"s-9","process":{{"pid":1,"start_boot_ns":1,"uid":1,"comm":{sql}}},"method":"jobs.query","sql":{sql},"tables":[],"bytes":1}},"prev":"x"}}"#
    );
    model.update(
        0,
        Msg::Records(vec![Entry::read(&line).expect("a record")], Vec::new()),
    );
    model
}

#[test]
fn hostile_text_is_shown_as_what_it_is_everywhere() {
    let text = "a\u{202e}b\u{1b}[2J\u{200b}\u{7}c";
    for keys in ["2", "2⏎", "2a", "3", "3⏎", "4", "4⏎", "6⏎"] {
        let mut model = hostile(text);
        types(&mut model, keys);
        let said = shown(&mut model, (120, 40));
        let is_safe = !said.contains(['\u{202e}', '\u{1b}', '\u{200b}', '\u{7}']);
        assert!(is_safe, "{keys}: {said}");
        assert!(said.contains("\\u{202e}") || keys == "6⏎", "{keys}: {said}");
    }
}

#[test]
fn ten_million_bytes_of_text_are_drawn_like_any_other() {
    let text = "SELECT \u{202e} ".repeat(1_000_000);
    for keys in ["2", "2⏎", "2a", "3⏎", "4⏎"] {
        let mut model = hostile(&text);
        types(&mut model, keys);
        shown(&mut model, (120, 40));
    }
}

#[test]
fn a_countdown_goes_on_by_the_consoles_own_clock() {
    let mut model = model(State::Busy);
    assert!(shown(&mut model, (80, 24)).contains("10:11"));
    model.update(11_000, Msg::Tick);
    let said = shown(&mut model, (80, 24));
    assert!(
        said.contains("10:00") && said.contains("STALE: as of 11 s ago"),
        "{said}"
    );
    // Past its end it is not said to be open, whatever was heard last.
    model.update(700_000, Msg::Tick);
    assert!(shown(&mut model, (80, 24)).contains("ending"));
}

#[test]
fn a_daemon_that_says_nothing_more_is_seen_within_seconds_though_nothing_else_moves() {
    let mut model = model(State::Empty);
    // Of its log nothing is missing here.
    let mut status = status_of(&model);
    status.log.records = 0;
    model.update(0, Msg::Status(Box::new(status)));
    drawn(&mut model, (80, 24), Theme::Dark);
    model.is_dirty = false;
    model.update(2_900, Msg::Tick);
    assert!(!model.is_dirty, "what is a moment old is not drawn again");
    model.update(3_000, Msg::Tick);
    assert!(model.is_dirty);
    let stale = drawn(&mut model, (80, 24), Theme::Dark);
    let said = text_of(&stale);
    assert!(
        said.contains("○ STALE: as of 3 s ago") && !said.contains("healthy"),
        "{said}"
    );
    assert_eq!(
        style_at(&stale, "○ STALE").1,
        Modifier::BOLD | Modifier::REVERSED
    );
    model.is_dirty = false;
    model.update(3_500, Msg::Tick);
    assert!(!model.is_dirty, "its age is the same in whole seconds");
    model.update(4_000, Msg::Tick);
    assert!(model.is_dirty);
    // Every view says of when it is.
    for view in View::ALL {
        model.view = view;
        let said = shown(&mut model, (80, 24));
        assert!(said.contains(", as of 14:13:20"), "{said}");
    }
    // The next word takes it all away.
    let status = status_of(&model);
    model.update(4_500, Msg::Status(Box::new(status)));
    assert!(shown(&mut model, (80, 24)).contains("✓ healthy  ● connected"));
}

#[test]
fn nothing_looks_well_that_is_not_known_to_be() {
    for theme in [Theme::Dark, Theme::Light, Theme::Plain] {
        let mut lost = model(State::Disconnected);
        for view in View::ALL {
            lost.view = view;
            let buffer = drawn(&mut lost, (120, 40), theme);
            let said = text_of(&buffer);
            assert!(!said.contains("healthy"), "{said}");
            assert!(said.contains("? health unknown since 14:13:20"), "{said}");
            // The body, down to the last line, is of less weight.
            let body = &buffer.content[120 * 4..120 * 39];
            assert!(
                body.iter()
                    .all(|cell| cell.modifier.contains(Modifier::DIM)),
                "{view:?} {theme:?}"
            );
        }
        lost.view = View::Health;
        let said = shown(&mut lost, (120, 40));
        assert!(!said.contains('✓'), "{said}");
        assert!(
            said.contains("? daemon         unknown since 14:13:20 UTC; before: "),
            "{said}"
        );
    }
}

#[test]
fn the_age_of_the_checkpoint_goes_on_while_nothing_else_does() {
    let mut model = model(State::Empty);
    model.view = View::Health;
    assert!(shown(&mut model, (80, 24)).contains("record 8, 30 s old"));
    let later = |model: &mut Model, seconds: u64| {
        let mut status = status_of(model);
        status.now.unix_ns = (1_790_000_000 + seconds) * 1_000_000_000;
        // Of records that do not come it is said for how long they do not.
        status.log.records = 0;
        model.is_dirty = false;
        model.update(seconds * 1000, Msg::Status(Box::new(status)));
        model.is_dirty
    };
    assert!(later(&mut model, 1));
    assert!(later(&mut model, 7_200));
    assert!(shown(&mut model, (80, 24)).contains("record 8, 2 h 00 min old"));
    assert!(
        !later(&mut model, 7_210),
        "minutes are as fine as it is said"
    );
    model.view = View::Agents;
    later(&mut model, 7_220);
    assert!(!later(&mut model, 9_000), "elsewhere it is not shown");
}

#[test]
fn what_kind_of_console_it_is_and_whether_it_is_connected_is_whole_at_every_size() {
    let banners = [
        (
            Mode::Replay {
                is_read_only: false,
            },
            "RECORDING",
        ),
        (Mode::ReadOnly, "READ ONLY"),
        (Mode::Demo, "DEMO: NOT REAL"),
    ];
    for (mode, banner) in banners {
        for (state, _) in STATES {
            for width in [60, 80, 120] {
                let mut model = model(state);
                model.mode = mode;
                let mut status = status_of(&model);
                "ip-10-0-12-113.eu-central-1.compute.internal".clone_into(&mut status.host);
                let link = model.link.clone();
                model.update(model.at_ms, Msg::Status(Box::new(status)));
                model.link = link;
                for late_ms in [0, 4_000] {
                    model.update(model.at_ms + late_ms, Msg::Tick);
                    let said = shown(&mut model, (width, 12));
                    let first = said.lines().next().unwrap_or_default();
                    assert!(first.contains(banner), "{first}");
                    let link = ["● connected", "○ NOT CONNECTED", "○ STALE"];
                    assert!(link.iter().any(|link| first.contains(link)), "{first}");
                }
            }
        }
    }
}

#[test]
fn the_field_that_is_typed_and_what_is_wrong_with_it_stay_on_screen() {
    let dataset = |nth| format!("a-rather-long-project-name.dataset_of_department_{nth}:read");
    let scope: Vec<String> = (0..16).map(dataset).collect();
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    status.requests[0].scope = scope.join(",").parse().expect("a scope");
    model.update(0, Msg::Status(Box::new(status)));
    types(&mut model, "2e");
    let size = (60, 12);
    let press = |model: &mut Model, key| {
        model.update(0, Msg::Key(key));
        fits(model, size);
        shown(model, size)
    };
    let mut seen = vec![shown(&mut model, size)];
    seen.extend((0..3).map(|_| press(&mut model, Key::Tab)));
    for (said, field) in seen
        .iter()
        .zip(["for ", "department", "bytes ", "queries "])
    {
        let typed = said.lines().find(|line| line.contains('▏'));
        let typed = typed.unwrap_or_else(|| panic!("no field is typed: {said}"));
        assert!(typed.contains(field) || field == "department", "{said}");
        assert!(said.contains("tab next, del empties"), "{said}");
    }
    // What is typed there is seen, and what is wrong with it.
    press(&mut model, Key::BackTab);
    press(&mut model, Key::BackTab);
    press(&mut model, Key::Char('?'));
    let said = press(&mut model, Key::Enter);
    assert!(said.contains("?▏") && said.contains("scope: "), "{said}");
    press(&mut model, Key::Tab);
    press(&mut model, Key::Tab);
    press(&mut model, Key::Delete);
    let said = press(&mut model, Key::Char('x'));
    assert!(
        said.contains("queries  x▏") && said.contains("scope: "),
        "{said}"
    );
}

#[test]
fn windows_that_find_no_room_are_said_wherever_windows_are_counted() {
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    status.grants_left_out = 5;
    model.update(0, Msg::Status(Box::new(status.clone())));
    // Open ones find room first: these have ended.
    let said = shown(&mut model, (80, 24));
    assert!(
        said.contains("2 open, 5 more that have ended find no room here"),
        "{said}"
    );
    model.view = View::Agents;
    assert!(shown(&mut model, (80, 24)).contains(" none"));
    status.grants.retain(|grant| grant.open);
    model.update(0, Msg::Status(Box::new(status.clone())));
    let said = shown(&mut model, (80, 24));
    assert!(
        !said.contains(" none") && said.contains(" unsure"),
        "{said}"
    );
    model.view = View::Windows;
    for size in SIZES {
        let said = shown(&mut model, size);
        assert!(said.contains("2 open, 5 more find no room here"), "{said}");
    }
    types(&mut model, "X");
    let said = shown(&mut model, (80, 24));
    let asked = "2 windows end now, these and 5 more that may be open (no room here):";
    assert!(said.contains(asked), "{said}");
    // Also where none is told of.
    types(&mut model, "⎋");
    status.grants.clear();
    model.update(0, Msg::Status(Box::new(status)));
    let said = shown(&mut model, (80, 24));
    assert!(!said.contains("No window is open"), "{said}");
    types(&mut model, "X");
    assert!(model.question().is_some());
}

#[test]
fn nothing_is_said_of_refusals_in_records_that_did_not_come() {
    let mut model = model(State::Empty);
    model.view = View::Refusals;
    let said = shown(&mut model, (80, 24));
    assert!(
        said.contains("it is not known whether anything was refused"),
        "{said}"
    );
    let line = r#"{"seq":7,"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{"kind":"opened","grant":"g-5","agent":"finance-bot"},"prev":"x"}"#;
    let entry = Entry::read(line).expect("a record");
    model.update(0, Msg::Records(vec![entry], Vec::new()));
    let said = shown(&mut model, (80, 24));
    assert!(
        said.contains("Nothing was refused in records 7 to 7"),
        "{said}"
    );
}

#[test]
fn each_check_of_the_daemon_has_its_line_and_its_mark() {
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    let pins = status.checks.iter_mut().find(|check| check.what == "pins");
    let pins = pins.expect("it is looked at");
    pins.state = CheckState::Bad;
    "the pin of the kernel's map WINDOWS is lost".clone_into(&mut pins.said);
    let mut checks = status.checks.iter_mut();
    let connections = checks.find(|check| check.what == "connections");
    connections.expect("it is looked at").state = CheckState::Warning;
    model.update(0, Msg::Status(Box::new(status)));
    model.view = View::Health;
    let said = shown(&mut model, (120, 40));
    for line in [
        "✓ programs ",
        "✗ pins           the pin of",
        "✓ map use ",
        "✓ probes ",
        "? not probed ",
        "✓ DNS ",
        "✓ DNS marks ",
        "! connections ",
        "✓ token endpoint ",
        "✓ console ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_request_says_what_was_refused_to_its_agent_and_what_its_rule_says() {
    let mut model = model(State::Busy);
    types(&mut model, "2⏎");
    let said = shown(&mut model, (120, 40));
    assert!(
        said.contains("2 undecided; 3 refused since 09:13 UTC"),
        "{said}"
    );
    // Of another day than today's, the day as well.
    let mut status = status_of(&model);
    status.started_unix_ns -= 24 * 3_600_000_000_000;
    model.update(0, Msg::Status(Box::new(status)));
    let said = shown(&mut model, (120, 40));
    assert!(
        said.contains("3 refused since 2026-09-20 09:13 UTC"),
        "{said}"
    );
    assert!(said.contains("rule 1   agents report-bot"), "{said}");
}

#[test]
fn what_a_glyph_says_a_word_says_at_every_width() {
    for size in SIZES {
        let mut model = model(State::Busy);
        let mut status = status_of(&model);
        let open = status.grants.iter_mut().find(|grant| grant.open);
        open.expect("one is open").break_glass = Some("the others sleep".to_owned());
        model.update(0, Msg::Status(Box::new(status)));
        let said = shown(&mut model, size);
        assert!(said.contains("EMERG"), "{said}");
        assert!(said.contains("soon "), "{said}");
        model.view = View::Sessions;
        let said = shown(&mut model, size);
        assert!(
            said.contains("running") && said.contains("ok 200"),
            "{said}"
        );
        model.view = View::Agents;
        let said = shown(&mut model, size);
        assert!(said.contains("LOCKED") && said.contains("open"), "{said}");
    }
}

#[test]
fn a_windows_detail_has_its_rate_and_its_agents_share_of_the_day() {
    let mut model = model(State::Busy);
    for (second, more) in [(1, 3), (2, 7), (3, 1)] {
        let mut status = status_of(&model);
        for grant in &mut status.grants {
            grant.queries += more;
        }
        model.update(second * 1000, Msg::Status(Box::new(status)));
    }
    types(&mut model, "1j⏎");
    let said = shown(&mut model, (80, 24));
    assert!(
        said.contains("rate     ▄█▂ 1 queries in the last second"),
        "{said}"
    );
    assert!(
        said.contains("24 h     finance-bot held windows for 10 % of it"),
        "{said}"
    );
}

#[test]
fn the_log_says_what_was_checked_here_and_what_is_the_daemons_word() {
    let mut model = model(State::Busy);
    model.view = View::Log;
    let said = shown(&mut model, (120, 40));
    assert!(
        said.contains("hashes hold from 4 to 12 · daemon: signed to 8"),
        "{said}"
    );
    assert!(said.contains("12✓"), "{said}");
    // One that was never sealed, in the next one's place.
    let line = r#"{"seq":13,"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{"kind":"opened","grant":"g-5","agent":"finance-bot"},"prev":"x"}"#;
    let entry = Entry::read(line).expect("a record");
    model.update(0, Msg::Records(vec![entry], Vec::new()));
    let buffer = drawn(&mut model, (80, 24), Theme::Dark);
    assert_eq!(
        style_at(&buffer, "RECORD 13 IS NOT WHAT WAS WRITTEN").1,
        Modifier::BOLD | Modifier::REVERSED
    );
}

#[test]
fn what_a_check_says_moves_nothing_where_it_is_not_shown() {
    let mut model = model(State::Empty);
    let mut later = |view, said: &str| {
        model.view = view;
        let mut status = status_of(&model);
        said.clone_into(&mut status.checks[0].said);
        model.update(0, Msg::Tick);
        model.is_dirty = false;
        model.update(0, Msg::Status(Box::new(status)));
        model.is_dirty
    };
    assert!(!later(View::Windows, "the last minted 1 s ago"));
    assert!(later(View::Health, "the last minted 2 s ago"));
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        8 => prop::sample::select("1234567aedrpLUfswXg/:?jkGnyq ⏎".chars().collect::<Vec<_>>()).prop_map(Key::Char),
        4 => prop::sample::select(vec![Key::Enter, Key::Esc, Key::Tab, Key::BackTab, Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Home, Key::End, Key::Backspace, Key::Delete]),
        1 => any::<char>().prop_map(Key::Char),
    ]
}

proptest! {
    #[test]
    fn no_size_no_text_and_no_keys_make_it_panic(
        width in 0_u16..220, height in 0_u16..70, text in any::<String>(), state in prop::sample::select(STATES.to_vec()),
        keys in prop::collection::vec(key(), 0..40), theme in prop::sample::select(vec![Theme::Dark, Theme::Light, Theme::Plain]),
    ) {
        let mut model = match state.0 {
            State::Busy => hostile(&text),
            State::Empty | State::Disconnected | State::Unhealthy => model(state.0),
        };
        for key in keys {
            model.update(0, Msg::Key(key));
            drawn(&mut model, (width, height), theme);
        }
        model.update(1, Msg::Paste(text));
        model.link = Link::Never;
        model.known = None;
        drawn(&mut model, (width, height), theme);
    }
}
