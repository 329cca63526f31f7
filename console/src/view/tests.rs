//! Whole screens: what each view shows, in each state, at each size; what carries danger looks like it; no size and no text breaks anything.

use enforcer_proto::wire::Status;
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

mod numbers;
mod reading;

const SIZES: [(u16, u16); 3] = [(60, 12), (80, 24), (120, 40)];

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
        assert_eq!(style_at(&lost, "NOT CONNECTED, this").1, alarm, "{theme:?}");
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
        Msg::Records(vec![Entry::read(&line).expect("a record")], 0),
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
