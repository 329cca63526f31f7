//! What keys say that cannot act: none of the table is ever silent, in any view, whatever stands against it.

use ratatui::buffer::Buffer;

use super::*;
use crate::app::key::BINDINGS;

/// What is on screen, with its styles.
fn screen(model: &mut Model) -> Buffer {
    let (width, height) = (80, 24);
    let backend = ratatui::backend::TestBackend::new(width, height);
    let mut terminal = ratatui::Terminal::new(backend).expect("a terminal");
    crate::view::fit(model, Rect::new(0, 0, width, height));
    terminal
        .draw(|frame| crate::view::draw(frame, model, crate::theme::Theme::Plain))
        .expect("draws");
    terminal.backend().buffer().clone()
}

fn lost(model: &mut Model) {
    let lost = Msg::Lost {
        why: "gone".to_owned(),
        retry_ms: 1,
        tries: 1,
    };
    model.update(0, lost);
}

fn nothing(model: &mut Model) {
    changed(model, |status| {
        status.grants.clear();
        status.requests.clear();
        status.agents.clear();
    });
    model.tail = Tail::default();
    model.queries = Queries::default();
    model.refusals = Refusals::default();
    model.records += 1;
}

/// A state of the console that keys are pressed in.
type Situation = (&'static str, fn() -> Model);

const SITUATIONS: [Situation; 10] = [
    ("nothing was heard", || Model::new(Mode::Full)),
    ("there is nothing", || {
        let mut model = busy(Mode::Full);
        nothing(&mut model);
        model
    }),
    ("busy", || busy(Mode::Full)),
    ("read only", || busy(Mode::ReadOnly)),
    ("read only, and there is nothing", || {
        let mut model = busy(Mode::ReadOnly);
        nothing(&mut model);
        model
    }),
    ("a demonstration", || busy(Mode::Demo)),
    ("disconnected", || {
        let mut model = busy(Mode::Full);
        lost(&mut model);
        model
    }),
    ("all of it is shown", || {
        let mut model = busy(Mode::Full);
        model.detail = Some(0);
        model
    }),
    ("nothing has the text", || {
        let mut model = busy(Mode::Full);
        for place in &mut model.places {
            "no such text".clone_into(&mut place.search);
        }
        model
    }),
    ("the daemon has not told of the windows yet", || {
        let mut model = busy(Mode::Full);
        changed(&mut model, |status| status.grants.clear());
        model
    }),
];

#[test]
fn no_key_of_the_table_is_silent_in_any_view() {
    let mut silent = Vec::new();
    for (situation, model) in SITUATIONS {
        for view in View::ALL {
            let begin = || {
                let mut model = model();
                model.view = view;
                model
            };
            let before = screen(&mut begin());
            for key in BINDINGS.iter().flat_map(|binding| binding.keys) {
                let mut model = begin();
                crate::view::fit(&mut model, Rect::new(0, 0, 80, 24));
                let effects = model.update(0, Msg::Key(*key));
                // What is drawn is looked at only where nothing is said.
                let is_said = !effects.is_empty() || model.notice.is_some();
                if !is_said && screen(&mut model) == before {
                    silent.push(format!("{situation}: {} in {view:?}", key.name()));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

/// Keys that put up each popup, those that put up a question among them; the keys of the table are then pressed in it.
const POPUPS: [(&str, &str); 12] = [
    ("help", "?"),
    ("the proof", "1p"),
    ("the proof of a revocation", "1jry"),
    ("a story", "1js"),
    ("why", "5w"),
    ("what was found wrong", "1Fnonsense⏎"),
    ("an approval", "2a"),
    ("a word to be typed", "X"),
    ("a wrong word", "Xnonsense"),
    ("a reason", "2d"),
    ("less", "2e"),
    ("wrong terms", "2e⌫never⏎"),
];

#[test]
fn no_key_of_the_table_is_silent_in_any_popup() {
    let mut silent = Vec::new();
    for (popup, keys) in POPUPS {
        for view in [View::Windows, View::Log] {
            let begin = || {
                let mut model = busy(Mode::Full);
                typed(&mut model, keys);
                assert!(model.popup.is_some(), "{popup}");
                model.view = view;
                model.notice = None;
                model
            };
            let mut model = begin();
            let (over, before) = (model.popup.clone(), screen(&mut model));
            for key in BINDINGS.iter().flat_map(|binding| binding.keys) {
                model.notice = None;
                let effects = model.update(0, Msg::Key(*key));
                let is_said = !effects.is_empty() || model.notice.is_some();
                if !is_said && screen(&mut model) == before {
                    silent.push(format!("{popup}: {} over {view:?}", key.name()));
                }
                if model.popup != over {
                    model = begin();
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn what_ends_windows_does_so_from_whatever_only_shows() {
    for (popup, keys) in &POPUPS[..6] {
        let over = |key: &str| {
            let mut model = busy(Mode::Full);
            typed(&mut model, keys);
            model.view = View::Windows;
            typed(&mut model, key);
            model
        };
        let model = over("X");
        let asked = model.question().map(|question| &question.deed);
        assert_eq!(asked, Some(&Deed::CloseAll), "{popup}");
        let model = over("r");
        let asked = model.question().map(|question| &question.deed);
        assert!(matches!(asked, Some(Deed::Revoke(_))), "{popup}: {asked:?}");
        let model = over("L");
        assert!(matches!(model.popup, Some(Popup::Reason(_))), "{popup}");
    }
    // Where it cannot be, it is said, and what is looked at stays.
    let mut model = busy(Mode::ReadOnly);
    typed(&mut model, "1pX");
    assert_eq!(model.popup, Some(Popup::Proof(0)));
    assert!(
        model
            .notice
            .is_some_and(|notice| notice.text.contains("--read-only"))
    );
    let mut model = busy(Mode::Full);
    typed(&mut model, "4?r");
    let text = model.notice.expect("it is said").text;
    assert!(text.contains("r (revoke) is a key of: windows"), "{text}");
    let mut model = busy(Mode::Full);
    typed(&mut model, "1p3");
    let text = model.notice.expect("it is said").text;
    assert_eq!(text, "3 (sessions): esc closes this first");
}

/// What is said of a key pressed in a view.
fn said(model: &mut Model, view: View, key: char) -> String {
    model.view = view;
    model.notice = None;
    assert_eq!(model.update(0, Msg::Key(Key::Char(key))), []);
    let notice = model.notice.as_ref().expect("it is said");
    assert!(notice.is_bad, "{notice:?}");
    notice.text.clone()
}

#[test]
fn what_stands_against_an_action_is_said_in_words() {
    let actions = [
        (View::Windows, 'r'),
        (View::Sessions, 'r'),
        (View::Requests, 'a'),
        (View::Requests, 'e'),
        (View::Requests, 'd'),
        (View::Windows, 'L'),
        (View::Requests, 'L'),
        (View::Agents, 'L'),
        (View::Agents, 'U'),
        (View::Log, 'X'),
    ];
    for (view, key) in actions {
        let text = said(&mut busy(Mode::ReadOnly), view, key);
        assert!(text.contains("--read-only"), "{view:?} {key}: {text}");
        let mut model = busy(Mode::Full);
        lost(&mut model);
        let text = said(&mut model, view, key);
        assert!(text.contains("not connected"), "{view:?} {key}: {text}");
    }
    for (view, key, why) in [
        (View::Windows, 'r', "no window is known here"),
        (View::Windows, 's', "no window is known here"),
        (View::Windows, 'L', "no window is known here"),
        (View::Sessions, 'r', "No window was asked anything yet"),
        (View::Requests, 'a', "No request is waiting"),
        (View::Requests, 'd', "No request is waiting"),
        (View::Agents, 'U', "No agent is configured"),
        (View::Log, 'w', "No record has come yet"),
        (View::Log, 's', "No record has come yet"),
        (
            View::Requests,
            'r',
            "r (revoke) is a key of: windows, sessions",
        ),
        (View::Windows, 'a', "a (approve) is a key of: requests"),
        (View::Windows, 'z', "z is no key here; ? lists all"),
    ] {
        let mut model = busy(Mode::Full);
        nothing(&mut model);
        let text = said(&mut model, view, key);
        assert!(text.contains(why), "{view:?} {key}: {text}");
    }
}

#[test]
fn of_a_window_that_cannot_be_ended_it_is_said_whether_it_is_closed_or_not_told_of_yet() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "1jj");
    let text = said(&mut model, View::Windows, 'r');
    assert!(
        text.contains("g-3 is not open any more: given back"),
        "{text}"
    );
    let mut model = busy(Mode::Full);
    changed(&mut model, |status| status.grants.clear());
    let text = said(&mut model, View::Sessions, 'r');
    assert!(text.contains("has not told of g-5"), "{text}");
    let closed = r#"{"kind":"closed","grant":"g-5","agent":"finance-bot","reason":"revoked","by":null,"queries":1,"bytes":1}"#;
    model.update(0, told(20, closed));
    let text = said(&mut model, View::Sessions, 'r');
    assert!(
        text.contains("g-5 is not open any more: it was revoked"),
        "{text}"
    );
}

#[test]
fn what_comes_of_an_approval_does_not_take_away_what_a_key_was_told_meanwhile() {
    let mut model = busy(Mode::Full);
    changed(&mut model, |status| status.grants.clear());
    let text = said(&mut model, View::Windows, 'r');
    let opened = || Msg::Answered {
        of: "approve r-7".to_owned(),
        is_done: true,
        said: "approve r-7: g-9 of report-bot is open".to_owned(),
        ended: None,
    };
    let notice = |model: &Model| model.notice.clone().expect("it is said").text;
    model.update(300, opened());
    assert_eq!(
        notice(&model),
        format!("{text}; approve r-7: g-9 of report-bot is open")
    );
    // Once, and not when there was time to read it.
    model.update(400, opened());
    assert_eq!(notice(&model), "approve r-7: g-9 of report-bot is open");
    said(&mut model, View::Windows, 'r');
    model.update(5_000, opened());
    assert_eq!(notice(&model), "approve r-7: g-9 of report-bot is open");
}

#[test]
fn what_came_of_a_deed_is_not_overwritten_by_a_key_held_down_at_an_end() {
    let mut model = busy(Mode::Full);
    model.notice("revoke g-5: done", false);
    typed(&mut model, "kkk");
    assert_eq!(
        model.notice.map(|notice| notice.text).as_deref(),
        Some("revoke g-5: done")
    );
}
