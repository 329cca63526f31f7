//! Statements of the battery, changed by chance in what should not matter and in what might: whatever the product then lets on, the oracle
//! finds nothing outside of the scope in it.

use std::fmt::Write;

use super::battery::{Battery, Statement, Window};
use super::product::{self, Reading};
use super::zetasql::Oracle;
use crate::chance::{Chance, number};

/// How often each statement is changed; `ORACLE_ROUNDS` says otherwise, for a longer search, and `ORACLE_SEED` for another one.
const ROUNDS: u64 = 10;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// The most changes that one text gets.
const CHANGES_MAX: usize = 3;
/// The share of changed texts that must still be texts for ZetaSQL, one in so many: else nothing is shown.
const PARSED_MIN: usize = 4;

const BLANKS: [&str; 10] = [
    "\n",
    "\t",
    "/**/",
    " /* ) */ ",
    "-- (\n",
    "# '\n",
    "\r\n",
    "\u{a0}",
    "\u{2003}",
    "\u{b}",
];
/// Where strings, names and comments begin, end, or seem to.
const NOISE: [&str; 30] = [
    "'", "\"", "'''", "\"\"\"", "`", "\\", "r'", "b\"", "rb'''", "--", "#", "/*", "*/", "\n", "\r",
    ";", "@", "(", ")", ",", ".", "-", "1.", "$", "|>", "''", "\"\"", "\\'", "\\\"", "[",
];
/// What a statement is put into; `?` is its place.
const AROUND: [&str; 18] = [
    "(?)",
    "SELECT * FROM (?)",
    "SELECT * FROM (?) AS hr",
    "SELECT (?) AS x FROM finance.daily AS hr",
    "SELECT * FROM finance.daily AS hr, (?)",
    "SELECT * FROM finance.daily AS hr JOIN (?) AS s ON TRUE",
    "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (?)",
    "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (SELECT 1 FROM (?))",
    "SELECT 1 FROM finance.daily AS hr WHERE 1 IN (SELECT 1 FROM finance.accounts WHERE EXISTS (?))",
    "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (WITH w AS (?) SELECT * FROM w)",
    "WITH w AS (?) SELECT * FROM w",
    "WITH hr AS (SELECT 1 AS salaries) ?",
    "SELECT 1 FROM finance.daily AS hr UNION ALL ?",
    "SELECT 1 FROM finance.daily AS hr, UNNEST(ARRAY(?)) AS u",
    "FROM finance.daily AS hr |> WHERE EXISTS (?)",
    "FROM finance.daily |> CROSS JOIN finance.accounts AS hr |> SELECT amount |> WHERE EXISTS (?)",
    "SELECT 1 FROM finance.daily WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr) AND EXISTS (?)",
    "SELECT 1 FROM finance.daily AS hr QUALIFY EXISTS (?)",
];
/// What a name is written as instead.
const NAMES: [(&str, &str); 16] = [
    ("hr.salaries", "`hr.salaries`"),
    ("hr.salaries", "`hr`.salaries"),
    ("hr.salaries", "hr.`salaries`"),
    ("hr.salaries", "demo-project.hr.salaries"),
    ("hr.salaries", "`demo-project`.hr.salaries"),
    ("hr.salaries", "hr.salaries AS hr"),
    ("hr.salaries", "hr.salaries.parts"),
    ("hr.salaries", "finance.hr AS hr, hr.salaries"),
    (
        "hr.salaries",
        "(hr.salaries CROSS JOIN finance.daily AS hr)",
    ),
    ("finance.daily", "finance.daily AS hr"),
    ("finance.daily", "`finance.hr`"),
    ("finance.daily", "finance.hr"),
    ("finance.daily", "finance.daily AS hr, hr.salaries"),
    ("finance.daily", "(SELECT 1 AS x) AS hr, hr.salaries"),
    ("finance.daily", "finance.daily AS vault, vault.keys"),
    ("AS hr", "AS `hr`"),
];

/// The same, of what is written.
const WRITTEN: [(&str, &str); 24] = [
    ("scratch.notes", "`scratch.notes`"),
    ("scratch.notes", "`scratch`.notes"),
    ("scratch.notes", "scratch.`notes`"),
    ("scratch.notes", "demo-project.scratch.notes"),
    ("scratch.notes", "`demo-project`.scratch.notes"),
    ("scratch.notes", "scratch . notes"),
    ("scratch.notes", "scratch.notes AS hr"),
    ("scratch.notes", "hr.salaries"),
    ("scratch.notes", "finance.daily"),
    ("scratch.notes", "scratch.notes.parts"),
    ("scratch.notes", "notes"),
    ("finance.accounts", "hr.salaries"),
    ("finance.daily", "hr.salaries"),
    ("finance.daily", "finance.daily AS hr, hr.salaries"),
    ("FROM ", "FROM hr.salaries, "),
    (
        "VALUES",
        "VALUES ((SELECT MAX(salary) FROM hr.salaries), 'x'),",
    ),
    ("WHERE TRUE", "WHERE EXISTS (SELECT 1 FROM hr.salaries)"),
    ("gs://demo-exports/", "gs://elsewhere/"),
    ("gs://demo-exports/", "gs://demo-exports/../elsewhere/"),
    ("gs://demo-exports/", "gs://demo-exports' '/../elsewhere/"),
    ("'gs:", "r'gs:"),
    ("uri =", "`uri` ="),
    ("uri =", "uri = 'gs://elsewhere/*', uri ="),
    ("format", "uri = 'gs://elsewhere/*', format"),
];

/// What is changed, by chance.
struct Changes(Chance);

impl Changes {
    fn below(&mut self, most: usize) -> usize {
        self.0.below(most)
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        self.0.of(all)
    }

    /// A place in the text, between two characters.
    fn place(&mut self, sql: &str) -> usize {
        let places: Vec<usize> = sql.char_indices().map(|(at, _)| at).collect();
        places
            .get(self.below(places.len().max(1)))
            .copied()
            .unwrap_or(0)
    }

    fn changed(&mut self, sql: &str, window: Window) -> String {
        let names: &[(&str, &str)] = match window {
            Window::Reads => &NAMES,
            Window::Writes => &WRITTEN,
        };
        let mut sql = sql.to_owned();
        for _ in 0..=self.below(CHANGES_MAX) {
            sql = match self.below(6) {
                0 => self.other_case(&sql),
                1 => self.other_blanks(&sql),
                2 => self.of(&AROUND).replacen('?', &sql, 1),
                3 => {
                    let at = self.place(&sql);
                    format!("{}{}{}", &sql[..at], self.of(&NOISE), &sql[at..])
                }
                _ => {
                    let (from, to) = names[self.below(names.len())];
                    sql.replacen(from, to, 1)
                }
            };
        }
        sql
    }

    fn other_case(&mut self, sql: &str) -> String {
        let mut other = |c: char| match self.below(3) {
            0 => c.to_ascii_uppercase(),
            1 => c.to_ascii_lowercase(),
            _ => c,
        };
        sql.chars().map(&mut other).collect()
    }

    fn other_blanks(&mut self, sql: &str) -> String {
        let mut other = String::with_capacity(sql.len());
        for c in sql.chars() {
            if c == ' ' && self.below(2) == 0 {
                other.push_str(self.of(&BLANKS));
            } else {
                other.push(c);
            }
        }
        other
    }
}

/// What of a text does not hold, and whether it is one for ZetaSQL.
fn judge(
    oracle: &mut Oracle,
    (window, statement): (Window, &Statement),
    sql: &str,
) -> (Option<String>, bool) {
    let default = statement.default_dataset();
    let answer = oracle.ask(sql, default.map(|(_, dataset)| dataset), window, false);
    let is_text = answer.error.is_none();
    let (reading, deeds) = product::deeds(&statement.body_of(sql), window);
    if reading != Reading::LetOn {
        return (None, is_text);
    }
    let outside = answer.outside(default, window);
    let otherwise = match window {
        Window::Reads => None,
        Window::Writes => answer.does_otherwise(&deeds, default),
    };
    let is_wrong = !outside.is_empty() || otherwise.is_some();
    let wrong = is_wrong.then(|| format!("{sql:?}\n    {outside:?} {otherwise:?}\n"));
    (wrong, is_text)
}

#[test]
fn no_change_to_a_statement_makes_the_product_laxer_than_zetasql() {
    let rounds = number("ORACLE_ROUNDS", ROUNDS);
    let battery = Battery::load();
    let mut oracle = Oracle::start();
    let mut changes = Changes(Chance::new("ORACLE_SEED", SEED));
    let (mut failures, mut texts, mut parsed) = (String::new(), 0, 0);
    for _ in 0..rounds {
        for (window, statement) in battery.statements() {
            let sql = changes.changed(&statement.sql, window);
            let (wrong, is_text) = judge(&mut oracle, (window, statement), &sql);
            texts += 1;
            parsed += usize::from(is_text);
            let _ = write!(failures, "{}", wrong.unwrap_or_default());
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(
        parsed * PARSED_MIN >= texts,
        "{parsed} of {texts} are texts"
    );
}
