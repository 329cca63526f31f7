//! Nobody agrees to what was not on screen: each way around that, and a model of it over all keys, sizes and texts.

use std::collections::BTreeSet;

use super::*;
use crate::app::Effect;
use crate::app::popup::{Deed, Popup};

/// One request, with this reason.
fn asks(reason: &str) -> Model {
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    status.requests.truncate(1);
    reason.clone_into(&mut status.requests[0].ask.reason);
    model.update(0, Msg::Status(Box::new(status)));
    model
}

fn press(model: &mut Model, keys: &str, size: (u16, u16)) -> Vec<Effect> {
    let mut effects = Vec::new();
    for key in keys.chars() {
        let key = match key {
            '⎋' => Key::Esc,
            '⇲' => Key::End,
            key => Key::Char(key),
        };
        effects.extend(model.update(0, Msg::Key(key)));
        drawn(model, size, Theme::Plain);
    }
    effects
}

fn approves(effects: &[Effect]) -> bool {
    let mut effects = effects.iter();
    effects.any(|effect| matches!(effect, Effect::Do(Deed::Approve(_))))
}

fn lines(count: usize) -> String {
    (0..count).map(|nth| format!("l{nth:03}\n")).collect()
}

#[test]
fn a_screen_that_is_too_small_shows_no_question() {
    for size in [(58, 40), (80, 11)] {
        let mut model = model(State::Busy);
        assert_eq!(press(&mut model, "2a", size), []);
        assert!(shown(&mut model, size).contains("too small"));
        assert_eq!(press(&mut model, "y", size), []);
        // Once there is room, it is read and agreed to.
        drawn(&mut model, (80, 40), Theme::Plain);
        assert!(approves(&press(&mut model, "y", (80, 40))));
    }
}

#[test]
fn the_middle_is_not_skipped_by_going_to_the_end() {
    let size = (80, 24);
    let mut model = asks(&lines(120));
    press(&mut model, "2a", size);
    let mut seen = shown(&mut model, size);
    assert_eq!(press(&mut model, "⇲y", size), []);
    seen.push_str(&shown(&mut model, size));
    // Space goes to what is left, wherever one is.
    let mut is_approved = false;
    for _ in 0..20 {
        press(&mut model, " ", size);
        seen.push_str(&shown(&mut model, size));
        is_approved = approves(&press(&mut model, "y", size));
        if is_approved {
            break;
        }
    }
    assert!(is_approved);
    assert!(
        (0..120).all(|nth| seen.contains(&format!("l{nth:03}"))),
        "{seen}"
    );
}

#[test]
fn space_passes_over_no_line() {
    for size in [(80, 24), (60, 12), (120, 40)] {
        let mut model = asks(&lines(120));
        press(&mut model, "2a", size);
        let mut seen = shown(&mut model, size);
        for _ in 0..40 {
            press(&mut model, " ", size);
            seen.push_str(&shown(&mut model, size));
        }
        assert!((0..120).all(|nth| seen.contains(&format!("l{nth:03}"))));
        assert!(approves(&press(&mut model, "y", size)));
    }
}

#[test]
fn wide_characters_do_not_run_off_the_screen() {
    let size = (80, 40);
    let reason = format!("{}HIDDEN{}", "会".repeat(60), "会".repeat(80));
    let mut model = asks(&reason);
    press(&mut model, "2a", size);
    let said = within_box(&shown(&mut model, size));
    assert_eq!(said.matches('会').count(), 140, "{said}");
    assert!(said.contains("HIDDEN"), "{said}");
}

#[test]
fn what_is_too_long_to_be_shown_whole_is_not_agreed_to() {
    let size = (220, 70);
    let mut model = asks(&"a ".repeat(150_000));
    press(&mut model, "2a", size);
    assert_eq!(press(&mut model, &" y".repeat(80), size), []);
    assert!(shown(&mut model, size).contains("too long to be shown whole here"));
}

#[test]
fn the_end_is_where_scrolling_stops() {
    for (keys, size) in [
        ("?⇲", (80, 24)),
        ("?jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj", (80, 24)),
        ("4⏎G", (80, 12)),
    ] {
        let mut model = model(State::Busy);
        for key in keys.chars() {
            let key = match key {
                '⏎' => Key::Enter,
                '⇲' => Key::End,
                key => Key::Char(key),
            };
            model.update(0, Msg::Key(key));
            drawn(&mut model, size, Theme::Plain);
        }
        let end = shown(&mut model, size);
        assert!(end.contains(" 0 more lines below "), "{end}");
        model.update(0, Msg::Key(Key::Char('k')));
        let above = shown(&mut model, size);
        assert!(above.contains(" 1 more lines below "), "{keys}: {above}");
    }
}

/// Characters of which each is there once, so that whoever finds them on a screen knows that their line was drawn; of one column, and of two.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => Just('n'),
        6 => Just('w'),
        1 => Just(' '),
        1 => Just('\n'),
        1 => Just('\u{301}'),
        1 => Just('\u{200b}'),
    ];
    prop::collection::vec(piece, 0..600).prop_map(|pieces| {
        let with = |(nth, piece): (usize, char)| {
            let nth = u32::try_from(nth).expect("few");
            match piece {
                'n' => char::from_u32(0x1401 + nth % 600).expect("a syllable"),
                'w' => char::from_u32(0x4e00 + nth).expect("an ideograph"),
                other => other,
            }
        };
        pieces.into_iter().enumerate().map(with).collect()
    })
}

/// What stands between the sides of a popup: the list behind it shows texts as well, cut off.
fn within_box(screen: &str) -> String {
    let between = |line: &str| Some(line.split_once('│')?.1.rsplit_once('│')?.0.to_owned());
    screen.lines().filter_map(between).collect()
}

fn unique(text: &str) -> BTreeSet<char> {
    let marks =
        |c: &char| ('\u{1401}'..='\u{1658}').contains(c) || ('\u{4e00}'..='\u{5100}').contains(c);
    text.chars().filter(marks).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Press(Key),
    /// Pressed before what was there last was drawn.
    Ahead(Key),
    Resize(u16, u16),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || {
        prop_oneof![
            6 => Just(Key::Char(' ')),
            6 => Just(Key::Char('y')),
            2 => prop::sample::select(vec![Key::Char('j'), Key::Char('k'), Key::End, Key::Home, Key::PageDown, Key::PageUp]),
            1 => prop::sample::select(vec![Key::Esc, Key::Char('a'), Key::Enter, Key::Char('n')]),
        ]
    };
    let size = prop_oneof![(56_u16..140, 9_u16..60), Just((80, 24)), Just((60, 12))];
    prop_oneof![
        12 => key().prop_map(Step::Press),
        2 => key().prop_map(Step::Ahead),
        1 => size.prop_map(|(width, height)| Step::Resize(width, height)),
        1 => Just(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_approval_means_that_each_line_of_it_was_drawn(
        text in text(), steps in prop::collection::vec(step(), 0..60), width in 56_u16..140, height in 9_u16..60,
    ) {
        let mut size = (width, height);
        let mut model = asks(&text);
        press(&mut model, "2", size);
        let mut seen: BTreeSet<char> = BTreeSet::new();
        let mut question = 0;
        for step in std::iter::once(Step::Press(Key::Char('a'))).chain(steps) {
            let (key, is_drawn) = match step {
                Step::Press(key) => (Some(key), true),
                Step::Ahead(key) => (Some(key), false),
                Step::Resize(width, height) => {
                    size = (width, height);
                    (None, true)
                }
                Step::Tick => (None, true),
            };
            let effects = key.map_or_else(Vec::new, |key| model.update(0, Msg::Key(key)));
            if approves(&effects) {
                let missing: String = unique(&text).difference(&seen).collect();
                prop_assert!(missing.is_empty(), "{missing} was never on screen");
                return Ok(());
            }
            // A question that is put anew is read anew.
            if let Some(Popup::Confirm(confirm)) = &model.popup && confirm.number != question {
                question = confirm.number;
                seen.clear();
            }
            if is_drawn && matches!(model.popup, Some(Popup::Confirm(_))) {
                seen.extend(unique(&within_box(&text_of(&drawn(&mut model, size, Theme::Plain)))));
            }
        }
    }
}
