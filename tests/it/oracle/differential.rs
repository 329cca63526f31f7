//! The product's reading of each statement, the oracle's, and the test world's, side by side.

use std::fmt::Write;

use super::battery::{Battery, Statement, Window};
use super::product::{self, Deeds, Reading};
use super::zetasql::{Answer, Oracle};

/// The most statements that may be refused though the oracle finds nothing outside: each has its reason in the battery.
const KNOWN_MAX: usize = 32;

/// What does not hold of a statement.
fn wrong(
    statement: &Statement,
    window: Window,
    (reading, deeds): &(Reading, Deeds),
    answer: &Answer,
) -> Vec<String> {
    let default = statement.default_dataset();
    let outside = answer.outside(default, window);
    // What may be let on at all.
    let is_known = match window {
        Window::Reads => answer.is_query(),
        Window::Writes => answer.error.is_none() && answer.deed.is_some(),
    };
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    let is_let_on = *reading == Reading::LetOn;
    must(
        !is_let_on || outside.is_empty(),
        format!("the product lets on what reads {outside:?}"),
    );
    must(
        !is_let_on || is_known || answer.error.is_some(),
        "the product lets on what is no query, nor does what a window may do".to_owned(),
    );
    let otherwise = answer.does_otherwise(deeds, default);
    must(
        !is_let_on || otherwise.is_none(),
        otherwise.unwrap_or_default(),
    );
    let must_be_listed = deeds.reads.as_ref();
    let is_all = must_be_listed.is_none_or(|listed| *listed == answer.names(default));
    must(
        !is_let_on || !is_known || is_all,
        format!("the dry run is held to other tables than are read: {must_be_listed:?}"),
    );
    must(
        !statement.is_served() || is_let_on,
        format!("what is to be served is {reading:?}"),
    );
    must(
        !statement.is_served() || is_known,
        format!(
            "what is to be served is nothing that a window may do: {:?}",
            answer.error
        ),
    );
    // What is no query is refused for what it is.
    let is_over_refusal = !is_let_on && is_known && outside.is_empty() && may_write(answer, window);
    must(
        is_over_refusal == statement.known.is_some(),
        format!(
            "`known` is for what is refused and reads nothing outside: {reading:?}, {answer:?}"
        ),
    );
    let world = answer.world.as_ref().expect("asked deeply");
    // What the world cannot read it says nothing of, and nothing is served.
    if let Some(mut said) = world.reads().filter(|_| is_known) {
        let (mut reads, target) = (answer.reads(default), answer.target(default));
        // Of some statements the written table is among those that are read, too, for one of the two.
        for table in target.iter() {
            said.remove(table);
            reads.remove(table);
        }
        let is_kind = answer.deed.as_deref().is_some_and(|deed| world.is_a(deed));
        must(
            (is_kind && said == reads && world.target() == target) == statement.world.is_none(),
            format!(
                "`world` is for what the world reads otherwise: {} {said:?}, and not {reads:?}",
                world.kind
            ),
        );
    }
    wrong
}

/// Whether what it writes, and where it exports to, is the window's: else it is refused for that.
fn may_write(answer: &Answer, window: Window) -> bool {
    match window {
        Window::Reads => true,
        Window::Writes => answer.writes_within(),
    }
}

#[test]
fn the_product_reads_nothing_less_than_zetasql_does() {
    let battery = Battery::load();
    let mut oracle = Oracle::start();
    let mut failures = String::new();
    for (window, statement) in battery.statements() {
        let dataset = statement.default_dataset().map(|(_, dataset)| dataset);
        let answer = oracle.ask(&statement.sql, dataset, window, true);
        let reading = product::deeds(&statement.body_of(&statement.sql), window);
        for what in wrong(statement, window, &reading, &answer) {
            let _ = writeln!(failures, "{:?}\n    {what}", statement.sql);
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn known_refusals_of_what_is_within_are_few_and_have_reasons() {
    let battery = Battery::load();
    let all = || battery.statements().map(|(_, one)| one);
    let known = || all().filter_map(|one| one.known.as_deref());
    assert!(known().count() <= KNOWN_MAX, "{}", known().count());
    let engine = all().filter_map(|one| one.engine.as_deref());
    let world = all().filter_map(|one| one.world.as_deref());
    assert!(
        known()
            .chain(engine)
            .chain(world)
            .all(|reason| !reason.trim().is_empty())
    );
}
