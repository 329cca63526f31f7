//! Which functions are called: those of GoogleSQL's own that have been looked at, and none that nobody has.

use serde_json::json;

use super::battery::Window;
use super::product::{self, Reading};
use super::zetasql::Oracle;

/// GoogleSQL's own that BigQuery has not, or that reach a key service: none of them is called.
const LEFT_OUT: &str = include_str!("../../oracle/functions_left_out.txt");
/// The fewest that show something.
const FUNCTIONS_MIN: usize = 400;

/// Whether the product lets a call of a function on, as far as its name goes.
fn is_called(function: &str) -> bool {
    let sql = format!("SELECT {function}(amount) FROM finance.daily");
    let body = json!({"configuration": {"query": {"query": sql, "useLegacySql": false}}});
    match product::read(&body, Window::Reads) {
        Reading::LetOn => true,
        Reading::Outside(_) => false,
        // A function with a syntax of its own is not called so.
        Reading::Refused(why) => {
            !why.contains("known to reach nothing") && !why.contains("does not vouch for")
        }
    }
}

#[test]
fn every_function_of_googlesqls_own_is_called_or_left_out_by_name() {
    let names = Oracle::start().builtins();
    let names = names.iter().filter(|name| !name.starts_with('$'));
    let left_out: Vec<&str> = LEFT_OUT
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for name in names {
        asked += 1;
        if is_called(name) == left_out.contains(&name.as_str()) {
            wrong.push(name.as_str());
        }
    }
    assert!(asked >= FUNCTIONS_MIN, "only {asked}");
    assert!(
        wrong.is_empty(),
        "called, or not, though it says otherwise: {}",
        wrong.join(" ")
    );
}

#[test]
fn a_function_that_nobody_has_looked_at_is_not_called() {
    for function in [
        "ST_REGIONSTATS",
        "LOAD_FILE",
        "HTTP_GET",
        "own",
        "SAFE.own",
        "`st_regionstats`",
    ] {
        assert!(!is_called(function), "{function}");
    }
}
