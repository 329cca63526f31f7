//! The strip of an agent's last day: it ends with now, at every width, however much of a day the daemon tells.

use super::*;

/// The strip of every agent that is shown, `day` being what the daemon tells of each.
fn strips(day: &[u8], width: u16, is_detailed: bool) -> Vec<String> {
    let mut model = model(State::Busy);
    let mut status = status_of(&model);
    for agent in &mut status.agents {
        agent.day = day.to_vec();
    }
    model.update(0, Msg::Status(Box::new(status)));
    types(&mut model, if is_detailed { "6⏎" } else { "6" });
    let said = shown(&mut model, (width, 24));
    let is_cell = |c: &char| "·░▒▓█".contains(*c);
    let rows = said.lines().map(|line| {
        line.chars()
            .skip_while(|c| !is_cell(c))
            .take_while(is_cell)
            .collect()
    });
    // The heading has a dot of its own.
    rows.filter(|strip: &String| strip.chars().count() > 2)
        .collect()
}

#[test]
fn the_last_cell_is_of_now_at_every_width_and_the_strip_is_of_a_whole_day() {
    let mut day = vec![0; 96];
    day[95] = 100;
    for width in 60..=200 {
        let is_beside = width >= 150;
        for is_detailed in [false, true].into_iter().take(1 + usize::from(is_beside)) {
            let strips = strips(&day, width, is_detailed);
            assert_eq!(strips.len(), 4, "{width}");
            for strip in strips {
                let cells = strip.chars().count();
                assert!([24, 48].contains(&cells), "{width}: {strip}");
                assert!(strip.ends_with("·█"), "{width}: {strip}");
            }
        }
    }
}

#[test]
fn of_a_hosts_first_day_what_was_before_lies_before_and_more_than_a_day_is_of_its_end() {
    for (day, end) in [(vec![8], "·░"), (vec![100; 4], "·█"), (vec![], "··")] {
        let strips = strips(&day, 80, false);
        let is_whole = |strip: &String| strip.chars().count() == 24 && strip.ends_with(end);
        assert!(strips.iter().all(is_whole), "{day:?}: {strips:?}");
    }
    let mut days = vec![100; 1_000];
    days.extend([0; 96]);
    assert!(
        strips(&days, 80, false)
            .iter()
            .all(|strip| !strip.contains('█'))
    );
}
