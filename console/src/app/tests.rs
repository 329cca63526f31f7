//! What keys do: each script with the effects that come of it.

mod keys;

use std::sync::LazyLock;

use enforcer_proto::wire::{LockView, Status};
use ratatui::layout::Rect;

use super::key::Key;
use super::popup::{Approval, Deed, Popup};
use super::standing::{APART_MS, STANDS_MS};
use super::*;
use crate::demo;

fn busy(mode: Mode) -> Model {
    static STORY: LazyLock<Vec<Msg>> = LazyLock::new(|| demo::story().expect("it is well made"));
    let mut model = Model::new(mode);
    for msg in STORY.iter().cloned() {
        model.update(0, msg);
    }
    model
}

fn key_of(c: char) -> Key {
    match c {
        '⏎' => Key::Enter,
        '⎋' => Key::Esc,
        '⇥' => Key::Tab,
        '⌫' => Key::Delete,
        '⇲' => Key::End,
        c => Key::Char(c),
    }
}

fn typed(model: &mut Model, keys: &str) -> Vec<Effect> {
    let press = |c| {
        let effects = model.update(0, Msg::Key(key_of(c)));
        draws(model, (80, 24));
        effects
    };
    keys.chars().flat_map(press).collect()
}

/// What the loop does when it has drawn such a screen.
fn draws(model: &mut Model, (width, height): (u16, u16)) {
    looks(model, (width, height));
    stands(model, (width, height));
}

/// The same for one screen alone.
fn looks(model: &mut Model, (width, height): (u16, u16)) {
    crate::view::fit(model, Rect::new(0, 0, width, height));
    if let Some(shown) = crate::view::shown(model) {
        model.update(0, Msg::Shown(shown));
    }
}

/// A question on such a screen stands there until it takes an answer; the daemon says the same meanwhile.
pub(crate) fn stands(model: &mut Model, size: (u16, u16)) {
    if model.question().is_none() {
        return;
    }
    let later = model.at_ms.saturating_add(STANDS_MS);
    let same = model.status().filter(|_| model.link == Link::Up);
    let same = same.map_or(Msg::Tick, |status| Msg::Status(Box::new(status.clone())));
    model.update(later, same);
    looks(model, size);
}

fn deeds(keys: &str) -> Vec<Deed> {
    let effects = typed(&mut busy(Mode::Full), keys);
    let deed = |effect| match effect {
        Effect::Do(deed) => Some(deed),
        Effect::Find { .. } | Effect::Prove(_) | Effect::Explain(_) | Effect::Quit => None,
    };
    effects.into_iter().filter_map(deed).collect()
}

fn changed(model: &mut Model, change: impl FnOnce(&mut Status)) {
    let mut status = model.status().expect("one came").clone();
    change(&mut status);
    model.update(0, Msg::Status(Box::new(status)));
}

fn digest() -> String {
    let model = busy(Mode::Full);
    model.waiting().next().expect("one waits").digest.clone()
}

#[test]
fn an_approval_names_what_was_shown_and_only_y_gives_it() {
    assert_eq!(
        deeds("2ay"),
        [Deed::Approve(Approval {
            request: "r-7".parse().expect("an id"),
            seen: digest(),
            ttl: None,
            scope: None,
            bytes_max: None,
            queries_max: None,
        })]
    );
    for keys in ["2a", "2a⏎", "2an", "2a⎋y", "2a ", "1a", "ay"] {
        assert_eq!(deeds(keys), [], "{keys}");
    }
}

/// The agents that are unlocked.
fn unlocked(keys: &str) -> Vec<String> {
    let agent = |deed| match deed {
        Deed::Unlock { agent, shown } => {
            assert!(shown.is_some(), "it is bound to the lock that was shown");
            Some(agent.to_string())
        }
        Deed::Approve(_)
        | Deed::Deny { .. }
        | Deed::Revoke(_)
        | Deed::Lock { .. }
        | Deed::CloseAll => None,
    };
    deeds(keys).into_iter().filter_map(agent).collect()
}

#[test]
fn a_lock_is_never_lifted_by_the_key_that_locks() {
    let lock = |model: &mut Model, by: &str| {
        changed(model, |status| {
            let lock = status.agents[3].locked.clone();
            status.agents[0].locked = lock.map(|lock| LockView {
                by: by.to_owned(),
                ..lock
            });
        });
    };
    let said = |model: &Model| model.notice.as_ref().map(|notice| notice.text.clone());
    // Somebody else was faster: before the key, and between it and the yes.
    let mut model = busy(Mode::Full);
    typed(&mut model, "6");
    lock(&mut model, "uid 5002");
    assert_eq!(typed(&mut model, "Lsuspicious activity⏎y"), []);
    let mut model = busy(Mode::Full);
    typed(&mut model, "6L");
    assert_eq!(typed(&mut model, "odd⏎"), []);
    lock(&mut model, "uid 5002");
    assert_eq!(typed(&mut model, "y"), []);
    assert!(
        said(&model).is_some_and(|said| said.contains("locked by now, by uid 5002: asks for hr")),
        "{:?}",
        model.notice
    );
    // What is locked is said to be, by whom and why.
    let mut model = busy(Mode::Full);
    assert_eq!(typed(&mut model, "6jjjL"), []);
    assert!(model.popup.is_none());
    assert!(
        said(&model).is_some_and(
            |said| said.contains("locked already, by uid 5002") && said.contains("asks for hr")
        ),
        "{:?}",
        model.notice
    );
    // Another lock than was shown is not lifted.
    let mut model = busy(Mode::Full);
    typed(&mut model, "6");
    lock(&mut model, "uid 5002");
    typed(&mut model, "Uunlock");
    lock(&mut model, "uid 5003");
    assert_eq!(typed(&mut model, "⏎"), []);
    assert!(said(&model).is_some_and(|said| said.contains("another lock")));
}

#[test]
fn what_is_typed_ahead_of_a_question_agrees_to_nothing() {
    for keys in [
        "2ay",
        "2jdmonth is closed⏎y",
        "1ry",
        "3ry",
        "6Lodd⏎y",
        "6jjjUunlock⏎",
        "Xclose all⏎",
        "2e⌫5m⏎y",
    ] {
        let mut model = busy(Mode::Full);
        let effects: Vec<Effect> = keys
            .chars()
            .flat_map(|c| model.update(0, Msg::Key(key_of(c))))
            .collect();
        assert_eq!(effects, [], "{keys}");
        assert!(matches!(model.popup, Some(Popup::Confirm(_))), "{keys}");
        // Nor what was on a screen of another question.
        let other = crate::view::shown(&model).map(|shown| Shown {
            question: shown.question - 1,
            ..shown
        });
        model.update(0, Msg::Shown(other.expect("a question is up")));
        let again = keys.chars().last().map(key_of).expect("a key");
        assert_eq!(model.update(0, Msg::Key(again)), [], "{keys}");
    }
}

/// Presses keys so many milliseconds apart, each with the screen drawn behind it as the loop does.
fn poured(model: &mut Model, keys: &str, apart_ms: u64, size: (u16, u16)) -> Vec<Effect> {
    let press = |c| {
        let effects = model.update(model.at_ms + apart_ms, Msg::Key(key_of(c)));
        looks(model, size);
        looks(model, size);
        effects
    };
    keys.chars().flat_map(press).collect()
}

#[test]
fn what_is_poured_in_agrees_to_nothing_however_much_of_it_there_is() {
    let flood = format!("2a{}y", "x".repeat(300));
    let blanks = format!("2a{}y", " ".repeat(100));
    let cases = [
        (&flood[..], 1, (100, 40)),
        (&blanks[..], 16, (60, 12)),
        ("2a    y", 60, (60, 12)),
        ("2ay", 499, (100, 40)),
        ("2axy", 490, (100, 40)),
        ("1ry", 100, (100, 40)),
        ("Xclose all⏎", 20, (100, 40)),
    ];
    for (keys, apart_ms, size) in cases {
        let mut model = busy(Mode::Full);
        let effects = poured(&mut model, keys, apart_ms, size);
        assert_eq!(effects, [], "{apart_ms} ms apart");
        assert!(model.question().is_some(), "{apart_ms} ms apart");
    }
}

#[test]
fn a_question_takes_its_answer_once_it_says_so_on_screen() {
    let size = (100, 40);
    let mut model = busy(Mode::Full);
    assert_eq!(poured(&mut model, "2a", 10, size), []);
    let put_ms = model.at_ms;
    let is_said = |model: &mut Model| shown(model).contains("y  yes");
    model.update(put_ms + STANDS_MS - 1, Msg::Tick);
    assert!(!is_said(&mut model));
    model.is_dirty = false;
    // Only by being drawn: a yes between that it is due and that it is said is none, and has it stand anew.
    model.update(put_ms + STANDS_MS, Msg::Tick);
    assert!(model.is_dirty && is_said(&mut model));
    assert_eq!(model.update(0, Msg::Key(Key::Char('y'))), []);
    assert!(!is_said(&mut model));
    draws(&mut model, size);
    // What scrolls has it wait for a moment only; what is pasted, and another size, for all of it.
    let at_ms = model.at_ms;
    model.update(at_ms, Msg::Key(Key::Down));
    assert!(!is_said(&mut model));
    model.update(at_ms + APART_MS, Msg::Tick);
    assert!(is_said(&mut model));
    for msg in [Msg::Paste("y".to_owned()), Msg::Resize] {
        model.update(0, msg);
        looks(&mut model, size);
        assert!(!is_said(&mut model));
        draws(&mut model, size);
        assert!(is_said(&mut model));
    }
    let effects = model.update(0, Msg::Key(Key::Char('y')));
    assert!(
        matches!(&effects[..], [Effect::Do(Deed::Approve(_))]),
        "{effects:?}"
    );
}

#[test]
fn a_word_is_typed_at_any_persons_speed_and_not_pasted() {
    let size = (100, 40);
    for (keys, word) in [("X", "close all⏎"), ("6jjjU", "unlock⏎")] {
        let mut model = busy(Mode::Full);
        typed(&mut model, keys);
        assert_eq!(poured(&mut model, word, 1, size), []);
        let said = model.notice.as_ref().map(|notice| notice.text.clone());
        assert!(said.is_some_and(|said| said.contains("faster than anybody types")));
        assert_eq!(poured(&mut model, word, 1, size), [], "{keys}");
        draws(&mut model, size);
        assert_eq!(poured(&mut model, word, 60, size).len(), 1, "{keys}");
    }
}

#[test]
fn an_approval_is_of_the_quorum_that_was_shown() {
    let changes: [fn(&mut Status); 4] = [
        |status| status.requests[0].agreed.push(5002),
        |status| status.requests[0].wanting = Some("1 more person".to_owned()),
        |status| status.requests[0].joined.push(2002),
        |status| status.rules[0].said.push_str(", and at night"),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        for keys in ["2a", "2e⌫5m⏎  "] {
            let mut model = busy(Mode::Full);
            typed(&mut model, keys);
            changed(&mut model, change);
            assert_eq!(typed(&mut model, "y"), [], "{nth} {keys}");
            assert!(shown(&mut model).contains("changed since this was shown"));
            // Looked at again, it is agreed to.
            assert_eq!(typed(&mut model, "⎋a  y").len(), 1, "{nth} {keys}");
        }
    }
    // What moves with time, and how often its agent tries, keeps nobody from answering.
    let mut model = busy(Mode::Full);
    typed(&mut model, "2a");
    changed(&mut model, |status| {
        status.requests[0].expires_in_ns -= 1;
        status.requests[0].held_in_day_s += 1;
        status.requests[0].queries += 1;
    });
    assert_eq!(typed(&mut model, "y").len(), 1);
}

#[test]
fn nobody_agrees_to_what_was_not_on_screen_to_its_end() {
    // A reason of more lines than the screen holds.
    let long = "because of the month end ".repeat(100);
    let mut model = busy(Mode::Full);
    changed(&mut model, |status| {
        status.requests[0].ask.reason.clone_from(&long);
    });
    assert_eq!(typed(&mut model, "2ay"), []);
    let said = |model: &Model| model.notice.as_ref().map(|notice| notice.text.clone());
    assert!(said(&model).is_some_and(|said| said.contains("space shows the rest")));
    let effects = typed(&mut model, "   y");
    assert!(
        matches!(&effects[..], [Effect::Do(Deed::Approve(_))]),
        "{effects:?}"
    );
}

#[test]
fn less_than_was_asked_for_is_typed_and_more_is_not_taken() {
    let less = deeds("2e⌫5m⏎  y");
    assert!(
        matches!(&less[..], [Deed::Approve(Approval { ttl: Some(ttl), scope: None, bytes_max: None, .. })] if ttl.to_string() == "5m"),
        "{less:?}"
    );
    let narrow = deeds("2e⇥⇥⌫1000⇥⌫1⏎  y");
    assert!(
        matches!(
            &narrow[..],
            [Deed::Approve(Approval {
                ttl: None,
                bytes_max: Some(1000),
                queries_max: Some(1),
                ..
            })]
        ),
        "{narrow:?}"
    );
    for keys in ["2e⌫1h⏎y", "2e⌫never⏎y", "2e⇥⌫*⏎y", "2e⇥⇥⌫99999999999999⏎y"]
    {
        assert_eq!(deeds(keys), [], "{keys}");
    }
}

#[test]
fn a_denial_and_a_lock_need_a_reason_and_a_yes() {
    assert_eq!(
        deeds("2jdmonth is closed⏎y"),
        [Deed::Deny {
            request: "r-8".parse().expect("an id"),
            reason: "month is closed".to_owned(),
        }]
    );
    assert_eq!(
        deeds("6Lodd⏎y"),
        [Deed::Lock {
            agent: "finance-bot".parse().expect("a name"),
            reason: "odd".to_owned(),
        }]
    );
    assert_eq!(unlocked("6jjjUunlock⏎"), ["support-bot"], "with a word");
    for keys in [
        "2d⏎y",
        "2d  ⏎y",
        "6L⏎y",
        "2dno⏎n",
        "6jjjUy",
        "6jjjU⏎",
        "6jjjUunlock",
        "6jjjUunloc⏎",
        "6Uunlock⏎",
    ] {
        assert_eq!(deeds(keys), [], "{keys}");
    }
}

#[test]
fn every_window_ends_by_a_typed_word_alone() {
    assert_eq!(deeds("Xclose all⏎"), [Deed::CloseAll]);
    for keys in ["Xy", "X⏎", "Xclose⏎", "Xclose all", "Xclose all⎋⏎"] {
        assert_eq!(deeds(keys), [], "{keys}");
    }
}

#[test]
fn a_revocation_is_of_what_is_selected_and_shows_its_proof() {
    let grant = |text: &str| Deed::Revoke(text.parse().expect("an id"));
    assert_eq!(
        deeds("1ry"),
        [grant("g-6")],
        "the first to close stands first"
    );
    assert_eq!(deeds("1jry"), [grant("g-5")]);
    assert_eq!(deeds("1:revoke g-5⏎y"), [grant("g-5")]);
    assert_eq!(deeds("3ry"), [grant("g-5")], "the window of the query");
    assert_eq!(deeds("1jjry"), [], "it is closed");
    let mut model = busy(Mode::Full);
    typed(&mut model, "1ry");
    assert!(matches!(model.popup, Some(Popup::Proof(_))));
    assert_eq!(model.proofs.deeds().count(), 1);
}

#[test]
fn what_is_selected_stays_selected_while_the_list_moves() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "1j");
    changed(&mut model, |status| {
        for grant in &mut status.grants {
            grant.closes_in_ns = if grant.grant.to_string() == "g-5" {
                1
            } else {
                900_000_000_000
            };
        }
    });
    let effects = typed(&mut model, "ry");
    assert!(
        matches!(&effects[..], [Effect::Do(Deed::Revoke(grant))] if grant.to_string() == "g-5"),
        "{effects:?}"
    );
}

#[test]
fn what_has_changed_since_it_was_shown_cannot_be_approved() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "2a");
    changed(&mut model, |status| {
        status.requests[0].digest = "another".to_owned()
    });
    assert_eq!(typed(&mut model, "y"), []);
    assert!(
        model
            .notice
            .as_ref()
            .is_some_and(|notice| notice.text.contains("changed"))
    );
    let mut model = busy(Mode::Full);
    typed(&mut model, "2a");
    changed(&mut model, |status| {
        status.requests[0].state = "denied".to_owned()
    });
    assert_eq!(typed(&mut model, "y"), []);
}

#[test]
fn nothing_is_asked_for_without_a_connection_or_a_right() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "2a");
    let lost = Msg::Lost {
        why: "gone".to_owned(),
        retry_ms: 1,
        tries: 1,
    };
    model.update(0, lost);
    assert_eq!(typed(&mut model, "y"), []);
    for mode in [Mode::ReadOnly, Mode::Demo] {
        for keys in ["2ay", "2dno⏎y", "1ry", "6Lno⏎y", "XX"] {
            assert_eq!(typed(&mut busy(mode), keys), [], "{mode:?} {keys}");
        }
    }
    // Who may look, and not decide, is shown no digest.
    let mut model = busy(Mode::Full);
    changed(&mut model, |status| status.requests[0].digest.clear());
    assert_eq!(typed(&mut model, "2ay"), []);
}

#[test]
fn pasted_text_presses_no_key() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "2a");
    assert_eq!(model.update(0, Msg::Paste("y\ny".to_owned())), []);
    typed(&mut model, "⎋d");
    assert_eq!(
        model.update(0, Msg::Paste("no\r\nand\u{1b}y".to_owned())),
        []
    );
    let Some(Popup::Reason(reason)) = &model.popup else {
        panic!("it is still being typed");
    };
    assert_eq!(reason.field.text, "no  and y");
}

#[test]
fn records_that_were_let_go_are_counted_and_those_that_come_twice_change_nothing() {
    let mut model = busy(Mode::Full);
    let mut entry = model.tail.iter().next_back().expect("some").clone();
    model.update(0, Msg::Records(vec![entry.clone()], Vec::new()));
    assert_eq!((model.tail.skipped, model.tail.iter().count()), (0, 9));
    entry.record.seq += 11;
    model.update(0, Msg::Records(vec![entry], Vec::new()));
    assert_eq!((model.tail.skipped, model.tail.iter().count()), (10, 10));
}

#[test]
fn nothing_is_drawn_while_nothing_changes() {
    let mut model = busy(Mode::Full);
    changed(&mut model, |status| {
        status.grants.clear();
        status.requests.clear();
    });
    model.is_dirty = false;
    for second in 1..5 {
        let status = model.status().expect("one came").clone();
        model.update(second * 100, Msg::Status(Box::new(status)));
        model.update(second * 100, Msg::Tick);
    }
    assert!(!model.is_dirty);
}

fn told(seq: u64, event: &str) -> Msg {
    let line = format!(
        r#"{{"seq":{seq},"boot_id":"b","boot_ns":1,"unix_ns":{},"event":{event},"prev":"x"}}"#,
        1_790_000_000_000_000_000 + seq
    );
    let entry = crate::app::tail::Entry::read(&line);
    Msg::Records(vec![entry.expect("a record")], Vec::new())
}

fn shown(model: &mut Model) -> String {
    let mut sheet = String::new();
    let mut terminal =
        ratatui::Terminal::new(ratatui::backend::TestBackend::new(80, 24)).expect("a terminal");
    crate::view::fit(model, Rect::new(0, 0, 80, 24));
    terminal
        .draw(|frame| crate::view::draw(frame, model, crate::theme::Theme::Plain))
        .expect("draws");
    sheet.push_str(&crate::sheet::text_of(terminal.backend().buffer()));
    sheet
}

#[test]
fn what_has_been_shown_to_have_ended_stays_shown() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "1jry");
    let closed = r#"{"kind":"closed","grant":"g-5","agent":"finance-bot","reason":"revoked","by":null,"queries":1,"bytes":1}"#;
    model.update(0, told(20, closed));
    let said = shown(&mut model);
    assert!(said.contains("g-5 of finance-bot: closed at"), "{said}");
    assert!(
        said.contains("the last answer ended at"),
        "from before: {said}"
    );
    // More records come than are kept here.
    let other = r#"{"kind":"query_finished","query":"q-13","grant":"g-6","status":200,"job":null,"destination":null,"bytes":1,"body_bytes":1,"duration_us":1,"trouble":null}"#;
    for seq in 21..5_200 {
        model.update(0, told(seq, other));
    }
    assert_eq!(shown(&mut model), said);
}

#[test]
fn what_the_daemon_refuses_is_said_with_the_proof_and_stays() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "1jry");
    assert!(shown(&mut model).contains("revoke g-5: asked, not answered yet"));
    let no = Msg::Answered {
        of: "revoke g-5".to_owned(),
        is_done: false,
        said: "[role.missing] You may not".to_owned(),
        ended: None,
    };
    let effects = model.update(0, no);
    assert!(
        matches!(&effects[..], [Effect::Prove(grants)] if grants.len() == 1),
        "{effects:?}"
    );
    model.update(60_000, Msg::Tick);
    let said = shown(&mut model);
    assert!(
        said.contains("NOT DONE, revoke g-5: [role.missing] You may not"),
        "{said}"
    );
}

#[test]
fn of_all_windows_it_is_said_how_many_have_their_close_on_record() {
    let mut model = busy(Mode::Full);
    changed(&mut model, |status| {
        let open = status.grants[1].clone();
        let numbered = |nth: u64| {
            let mut grant = open.clone();
            grant.grant = format!("g-{nth}").parse().expect("an id");
            grant
        };
        status.grants = (100..1_100).map(numbered).collect();
    });
    typed(&mut model, "Xclose all⏎");
    for nth in 100..1_099 {
        let closed = format!(
            r#"{{"kind":"closed","grant":"g-{nth}","agent":"finance-bot","reason":"revoked","by":null,"queries":1,"bytes":1}}"#
        );
        model.update(0, told(nth, &closed));
    }
    let said = shown(&mut model);
    assert!(
        said.contains("999 of 1000 windows have their close on record"),
        "{said}"
    );
    assert!(
        said.contains("g-1099 of finance-bot: no record of its close"),
        "what is open stands first: {said}"
    );
}

#[test]
fn of_all_windows_that_were_ended_one_number_is_said() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "Xclose all⏎");
    // One opened between the last status and the word.
    let ended = ["g-5", "g-6", "g-7"].map(|grant| {
        let agent = "finance-bot".parse().expect("a name");
        (grant.parse().expect("an id"), agent)
    });
    let answer = Msg::Answered {
        of: "close every window".to_owned(),
        is_done: true,
        said: "close every window: 3 windows have ended".to_owned(),
        ended: Some(ended.to_vec()),
    };
    let effects = model.update(0, answer);
    assert!(
        matches!(&effects[..], [Effect::Prove(grants)] if grants.len() == 3),
        "{effects:?}"
    );
    let said = shown(&mut model);
    let wanted = [
        "3 windows have ended",
        "0 of 3 windows have their close on record",
    ];
    assert!(wanted.iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn what_the_kernel_refuses_after_a_revocation_is_counted_with_its_proof() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "1jry");
    let closed = r#"{"kind":"closed","grant":"g-5","agent":"finance-bot","reason":"revoked","by":null,"queries":1,"bytes":1}"#;
    model.update(0, told(20, closed));
    assert!(shown(&mut model).contains("no refusal since is among the records here"));
    let udp = r#"{"kind":"kernel_refused","agent":"finance-bot","process":{"pid":1,"start_boot_ns":1,"uid":1,"comm":"x"},"verdict":"udp","destination":"192.0.2.1:443","count":62}"#;
    model.update(0, told(21, udp));
    let more =
        r#"{"kind":"further_refused","by":"kernel","agent":"finance-bot","code":null,"count":238}"#;
    model.update(0, told(22, more));
    let said = shown(&mut model);
    assert!(said.contains("refused since: 300, the last at"), "{said}");
}

#[test]
fn records_that_are_missing_are_said_to_be_and_a_gap_has_the_log_asked_for_proof() {
    let mut model = busy(Mode::Full);
    typed(&mut model, "1jry");
    model.update(0, Msg::Dropped(3));
    assert!(shown(&mut model).contains("3 records missing, asked for again"));
    let other = r#"{"kind":"opened","grant":"g-9","agent":"loader"}"#;
    let effects = model.update(0, told(40, other));
    assert!(matches!(&effects[..], [Effect::Prove(_)]), "{effects:?}");
    let said = shown(&mut model);
    assert!(
        !said.contains("missing") && said.contains("records skipped here"),
        "{said}"
    );
}

#[test]
fn a_log_that_became_another_one_is_said_to_be_and_nothing_of_the_one_before_is_shown_as_its_own() {
    let mut model = busy(Mode::Full);
    let had = model.tail.last_seq();
    assert!(had > 1, "some have come");
    model.update(0, Msg::Replaced { had, has: 2 });
    let said = shown(&mut model);
    assert!(said.contains("THE LOG IS ANOTHER ONE"), "{said}");
    typed(&mut model, "4");
    let said = shown(&mut model);
    assert!(said.contains("none checked"), "{said}");
    let refused = r#"{"kind":"opened","grant":"g-9","agent":"loader"}"#;
    model.update(0, told(2, refused));
    assert_eq!(model.tail.last_seq(), 2, "the new one's records are taken");
    assert!(shown(&mut model).contains("THE LOG IS ANOTHER ONE"));
}

#[test]
fn a_log_that_has_stopped_coming_while_the_daemon_answers_is_said_to_be_behind() {
    let mut model = busy(Mode::Full);
    let mut status = model.status().expect("one came").clone();
    status.log.records = model.tail.last_seq() + 6;
    for at_ms in (10_000..13_000).step_by(500) {
        model.update(at_ms, Msg::Status(Box::new(status.clone())));
    }
    assert!(!shown(&mut model).contains("HAS STOPPED COMING"));
    model.update(13_000, Msg::Status(Box::new(status.clone())));
    model.update(13_000, Msg::Tick);
    let said = shown(&mut model);
    assert!(
        said.contains("THE LOG HAS STOPPED COMING: 6 records"),
        "{said}"
    );
    let other = r#"{"kind":"opened","grant":"g-9","agent":"loader"}"#;
    model.update(13_100, told(status.log.records, other));
    assert!(!shown(&mut model).contains("HAS STOPPED COMING"));
}

#[test]
fn what_stands_selected_stays_selected_when_rows_come_before_it_and_no_key_was_pressed() {
    let mut model = busy(Mode::Full);
    let before = model.chosen().expect("there are windows");
    let mut status = model.status().expect("one came").clone();
    let mut newer = status.grants[0].clone();
    newer.grant = enforcer_proto::id::GrantId(77);
    status.grants.insert(0, newer);
    model.update(1, Msg::Status(Box::new(status)));
    assert_eq!(model.chosen(), Some(before));
    model.view = View::Health;
    model.update(
        2,
        Msg::Status(Box::new(model.status().expect("one").clone())),
    );
    let before = model.chosen();
    let mut status = model.status().expect("one came").clone();
    status
        .unhealthy
        .push("the program connect4 is not attached any more".to_owned());
    model.update(3, Msg::Status(Box::new(status)));
    assert_eq!(model.chosen(), before);
}

#[test]
fn a_rate_that_was_seen_over_a_gap_is_the_mean_of_it_and_nobodys_second() {
    let mut model = busy(Mode::Full);
    let mut status = model.status().expect("one came").clone();
    let grant = status
        .grants
        .iter()
        .find(|grant| grant.open)
        .expect("one is open")
        .grant;
    let mut ask = |model: &mut Model, at_ms: u64, more: u64| {
        let mut grants = status.grants.iter_mut();
        grants
            .find(|held| held.grant == grant)
            .expect("it is there")
            .queries += more;
        model.update(at_ms, Msg::Status(Box::new(status.clone())));
        model.rates[&grant].each.last().copied()
    };
    ask(&mut model, 2_000, 0);
    assert_eq!(ask(&mut model, 3_000, 5), Some(5));
    assert_eq!(ask(&mut model, 603_000, 600), Some(1));
}

#[test]
fn a_recording_shows_nothing_as_checked_that_it_says_of_itself() {
    for (mode, is_marked) in [
        (Mode::Full, true),
        (
            Mode::Replay {
                is_read_only: false,
            },
            false,
        ),
    ] {
        let mut model = busy(mode);
        model.view = View::Log;
        let said = shown(&mut model);
        assert_eq!(
            said.contains('✓') && said.contains("hashes hold"),
            is_marked,
            "{said}"
        );
        assert_eq!(
            said.contains("as they were recorded, not checked"),
            !is_marked,
            "{said}"
        );
    }
}

#[test]
fn everything_can_be_closed_where_it_is_not_known_whether_there_is_a_window() {
    let mut model = busy(Mode::Full);
    let mut status = model.status().expect("one came").clone();
    status.grants.clear();
    model.update(0, Msg::Status(Box::new(status)));
    typed(&mut model, "X");
    assert!(model.popup.is_none() && shown(&mut model).contains("no window is open"));
    model.update(60_000, Msg::Tick);
    typed(&mut model, "X");
    let said = shown(&mut model);
    assert!(
        said.contains("0 windows known of at") && said.contains("whatever was opened since"),
        "{said}"
    );
}

#[test]
fn the_log_is_asked_for_the_proof_of_each_deed_however_much_others_write() {
    let mut model = busy(Mode::Full);
    let other = r#"{"kind":"query_finished","query":"q-900","grant":"g-6","status":200,"job":null,"destination":null,"bytes":1,"body_bytes":1,"duration_us":1,"trouble":null}"#;
    for seq in 13..6_000 {
        model.update(0, told(seq, other));
    }
    typed(&mut model, "1jry");
    let closed = r#"{"kind":"closed","grant":"g-5","agent":"finance-bot","reason":"revoked","by":null,"queries":1,"bytes":1}"#;
    model.update(0, told(6_000, closed));
    let answer = Msg::Answered {
        of: "revoke g-5".to_owned(),
        is_done: true,
        said: "revoke g-5: done".to_owned(),
        ended: None,
    };
    let asked = [Effect::Prove(vec!["g-5".parse().expect("an id")])];
    assert_eq!(model.update(0, answer), asked);
    let last = r#"{"kind":"query_finished","query":"q-12","grant":"g-5","status":200,"job":null,"destination":null,"bytes":1,"body_bytes":1,"duration_us":1,"trouble":null}"#;
    let found = [(12, last), (6_000, closed)].map(|(seq, event)| {
        let Msg::Records(mut entries, _) = told(seq, event) else {
            panic!("it is of records");
        };
        entries.remove(0)
    });
    model.update(0, Msg::Proven(found.into()));
    let shown = model.proofs.of("g-5".parse().expect("an id"));
    assert!(
        shown.closed.is_some() && shown.last_byte.is_some(),
        "{shown:?}"
    );
    // What is known whole is not asked for again.
    assert_eq!(typed(&mut model, "⎋p"), []);
}

#[test]
fn a_record_that_this_release_cannot_read_is_counted_once_and_is_no_record_that_did_not_come() {
    let mut model = busy(Mode::Full);
    let mut status = model.status().expect("one came").clone();
    status.log.records = 14;
    model.update(100, Msg::Status(Box::new(status.clone())));
    model.update(200, Msg::Records(Vec::new(), vec![13, 14]));
    // As after a reconnection, from the newest that could be read.
    model.update(300, Msg::Records(Vec::new(), vec![13, 14]));
    for at_ms in (500..8_000).step_by(500) {
        model.update(at_ms, Msg::Status(Box::new(status.clone())));
    }
    assert_eq!((model.tail.unreadable, model.behind()), (2, None));
    let said = shown(&mut model);
    assert!(said.contains("✓ healthy"), "{said}");
    let opened = r#"{"kind":"opened","grant":"g-9","agent":"loader"}"#;
    model.update(8_000, told(15, opened));
    assert_eq!((model.tail.skipped, model.tail.last_seq()), (0, 15));
    // One that really did not come is told from it.
    model.update(8_000, told(17, opened));
    assert_eq!(model.tail.skipped, 1);
}

#[test]
fn a_click_selects_only_what_lies_under_it() {
    let clicked = |detail: &str, size: (u16, u16), column| {
        let mut model = busy(Mode::Full);
        typed(&mut model, &format!("1{detail}"));
        looks(&mut model, size);
        model.update(0, Msg::Click(column, 2));
        model.chosen()
    };
    let first = busy(Mode::Full).chosen();
    let third = clicked("", (80, 24), 3);
    assert!(third.is_some() && third != first);
    // All of it lies over the list, or half of it.
    assert_eq!(clicked("⏎", (80, 24), 3), first);
    assert_eq!(clicked("⏎", (160, 24), 3), third);
    assert_eq!(clicked("⏎", (160, 24), 100), first);
}
