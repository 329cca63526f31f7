//! Of ordinary mistakes BigQuery's own words are told, though what may name something outside is kept back.

use enforcer::bigquery::words;
use serde_json::json;

use super::battery::Window;
use super::product;
use super::zetasql::Oracle;

const MISTAKES: &str = include_str!("../../oracle/mistakes.sql");
/// The fewest that show something.
const MISTAKES_MIN: usize = 80;
/// What is never told: what the analyser proposes instead.
const PROPOSAL: &str = "Did you mean";

#[test]
fn of_an_ordinary_mistake_the_analysers_words_are_told() {
    let mut oracle = Oracle::start();
    let mistakes = MISTAKES.lines().filter(|line| !line.starts_with("--"));
    let mut kept_back = Vec::new();
    let mut asked = 0;
    for sql in mistakes {
        let said = oracle.ask(sql, None, Window::Writes, false).said;
        let said = said.unwrap_or_else(|| panic!("it is no mistake: {sql}"));
        let body = json!({"configuration": {"query": {"query": sql, "useLegacySql": false}}});
        // What the product cannot read itself is never asked about.
        let Ok(reading) = product::relations(&body, Window::Writes) else {
            continue;
        };
        asked += 1;
        let told = words::of_dry_run(&said, sql, &reading);
        assert!(!told.contains(PROPOSAL), "{told}");
        let sentence = said.lines().next().unwrap_or_default();
        let beginning: String = sentence.chars().take(12).collect();
        if !told.starts_with(&beginning) {
            kept_back.push(format!("{sql}\n    {said}\n    {told}"));
        }
    }
    assert!(asked >= MISTAKES_MIN, "only {asked} were asked about");
    assert!(
        kept_back.is_empty(),
        "{} of {asked} are kept back:\n{}",
        kept_back.len(),
        kept_back.join("\n")
    );
}
