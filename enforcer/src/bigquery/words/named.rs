//! Which of BigQuery's words on a query that failed may be told: sentences of known shapes, in which nothing is named that the text itself does
//! not name. Behind a view or in a function there are other tables and columns, and BigQuery's words tell of them. Reads texts only, and keeps
//! back what it does not know.

use super::known::Known;
use super::shapes::SHAPES;
use super::slots::fits;
use crate::bigquery::relations::Reading;

/// The longest sentence that is looked at, bytes.
const SENTENCE_BYTES_MAX: usize = 2048;
/// Where the rest of a sentence proposes names of BigQuery's own, or says what is possible instead: that is cut off.
const ENDS: [&str; 5] = [
    "; Did you mean ",
    ". Supported signature",
    ". You may need ",
    "; all ",
    "\n",
];
/// What the type of a row begins with, before its fields.
const ROW: &str = "STRUCT<";

/// As much of a sentence of BigQuery's as may be told of `sql` that failed. None where that is not sure.
#[must_use]
pub(super) fn told(said: &str, sql: &str, reading: &Reading) -> Option<String> {
    let said = said.trim();
    if said.len() > SENTENCE_BYTES_MAX || reading.may_name_more {
        return None;
    }
    let known = Known::of(sql, reading)?;
    let (whole, place) = match placed(said) {
        Some((whole, place)) => (whole, Some(place)),
        None => (said, None),
    };
    let there = match place {
        // One that the text has not is another text's.
        Some(place) => Some(known.from(place.line, place.column)?),
        None => None,
    };
    let end = ENDS.iter().filter_map(|end| whole.find(end)).min();
    let sentence = whole.get(..end.unwrap_or(whole.len()))?;
    let sentence = without_fields(sentence.trim_end_matches(['.', ' ']))?;
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let has = |shape: &&str| {
        let shape: Vec<&str> = shape.split(' ').collect();
        fits(&shape, &words, &known, there)
    };
    let place = place.map_or_else(String::new, |place| {
        format!(" at [{}:{}]", place.line, place.column)
    });
    SHAPES.iter().any(has).then(|| format!("{sentence}{place}"))
}

/// A sentence in which a row's type is told without the fields of the row: they may be those of what is behind a view. None where its brackets
/// do not match.
fn without_fields(sentence: &str) -> Option<String> {
    let mut kept = String::new();
    let mut rest = sentence;
    while let Some(start) = rest.find(ROW) {
        let (before, row) = rest.split_at(start);
        kept.push_str(before);
        kept.push_str(ROW.trim_end_matches('<'));
        let mut depth = 0_usize;
        let end = row.char_indices().find_map(|(at, c)| {
            match c {
                '<' => depth = depth.saturating_add(1),
                '>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (c == '>' && depth == 0).then_some(at)
        });
        rest = row.get(end?.saturating_add(1)..)?;
    }
    kept.push_str(rest);
    Some(kept)
}

/// A place in a text; both are counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

/// A sentence without the place at its end: BigQuery writes ` at [1:8]`, and the analyser alone ` [at 1:8]`.
fn placed(said: &str) -> Option<(&str, Place)> {
    let (before, inside) = said.strip_suffix(']')?.rsplit_once('[')?;
    let (sentence, inside) = match (before.strip_suffix(" at "), inside.strip_prefix("at ")) {
        (Some(sentence), None) => (sentence, inside),
        (None, Some(inside)) => (before.strip_suffix(' ')?, inside),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let (line, column) = inside.split_once(':')?;
    let place = Place {
        line: line.parse().ok()?,
        column: column.parse().ok()?,
    };
    Some((sentence, place))
}

#[cfg(test)]
mod tests {
    use enforcer_proto::scope::Scope;
    use proptest::prelude::*;

    use super::*;

    const SQL: &str = "SELECT 1 AS `p-one.hr.guess`, p-one.hr.guess, 2 AS hr, d.amountt, COUNT(x) FROM `finance.daily` AS d, finance.v, p-one.finance.other, lone -- p-one.hr.bonus\nWHERE x = 'p-one.hr.pay' AND day > DATE '2026-13-40'";

    fn tell(said: &str) -> Option<String> {
        let scope: Scope = "p-one.finance:read,p-one.scratch:write"
            .parse()
            .expect("a scope");
        let reading = Reading::of(SQL, 60, &scope, "p-one", None);
        assert!(!reading.named.is_empty());
        told(said, SQL, &reading)
    }

    #[test]
    fn what_the_text_names_is_told() {
        for said in [
            "Name amountt not found inside d at [1:10]",
            "Unrecognized name: amountt at [1:8]",
            "Not found: Table p-one:finance.daily was not found in location US",
            "Not found: Dataset p-one:finance was not found",
            "Not found: Table p-one.finance.other",
            "Access Denied: Table p-one:finance.v: User does not have permission to query table p-one:finance.v, or perhaps it does not exist",
            "Access Denied: Project p-one: User does not have bigquery.jobs.create permission in project p-one",
            "Table \"lone\" must be qualified with a dataset (e.g. dataset.table)",
            "No matching signature for aggregate function COUNT for argument types: ARRAY<STRUCT>, DATE",
            "Syntax error: Expected end of input but got keyword SELECT at [1:5]",
            "Column name x is ambiguous at [1:20]",
            "SELECT list expression references column amountt which is neither grouped nor aggregated at [1:8]",
            "Could not cast literal \"2026-13-40\" to type DATE at [2:36]",
        ] {
            assert_eq!(tell(said).as_deref(), Some(said));
        }
    }

    #[test]
    fn nothing_is_told_of_a_text_that_may_name_a_table_where_a_column_may_stand() {
        let scope: Scope = "p-one.finance:read".parse().expect("a scope");
        let of = |sql: &str| {
            let reading = Reading::of(sql, 20, &scope, "p-one", None);
            told("Unrecognized name: hr at [1:36]", sql, &reading)
        };
        assert!(of("SELECT * FROM finance.daily WHERE ( hr.salaries )").is_some());
        assert_eq!(of("SELECT * FROM finance.daily, UNNEST(hr.salaries)"), None);
    }

    #[test]
    fn what_bigquery_proposes_instead_is_cut_off() {
        let said = tell("Unrecognized name: amountt; Did you mean salary? at [1:8]");
        assert_eq!(said.as_deref(), Some("Unrecognized name: amountt at [1:8]"));
        let said = tell(
            "No matching signature for function COUNT for argument types: INT64. Supported signatures: COUNT(salary) at [1:8]",
        );
        assert_eq!(
            said.as_deref(),
            Some("No matching signature for function COUNT for argument types: INT64 at [1:8]")
        );
    }

    #[test]
    fn the_fields_of_a_row_are_not_told() {
        let said = tell(
            "Cannot access field x on a value with type ARRAY<STRUCT<salary INT64, s STRUCT<pay INT64>>> at [1:8]",
        );
        assert_eq!(
            said.as_deref(),
            Some("Cannot access field x on a value with type ARRAY<STRUCT> at [1:8]")
        );
    }

    #[test]
    fn what_the_text_does_not_name_is_kept_back() {
        for said in [
            "",
            "Not found: Table p-one:hr.salaries was not found in location US",
            "Access Denied: Table p-one.hr.salaries: User does not have permission",
            "Not found: Dataset p-one:hr",
            "Not found: Project other-proj",
            "Invalid view p-one.finance.v: Unrecognized name: pay",
            "Invalid view p-one.finance.v: Unrecognized name: amountt",
            "Unrecognized name: pay at [1:8]",
            "Name salary not found inside d",
            "Unrecognized name: secret_rate",
            "Unrecognized name: amountt at [1:8] in hr",
            "Candidate bindings: \"name\" FROM \"hr\".\"salaries\"",
            "in `hr`.`salaries`",
            "LINE 1: SELECT name FROM \"p-one__hr...",
            "no permission on projects/other/datasets/hr/tables/salaries",
            "no permission on projects/p-one/datasets/hr/tables/salaries",
            "SELECT list expression references salary, amountt which is neither grouped nor aggregated",
            "Cannot access field x on a value with type STRUCT<salary INT64",
            "Cannot access field x on a value with type ARRAY<salary INT64>",
            "Syntax error: Unexpected identifier \"salary\"",
            "Syntax error: salary",
            // Nor is an alias or a path the name of a table.
            "Not found: Table p-one:hr.guess was not found",
            "Access Denied: Table p-one.hr.guess",
            "Not found: Dataset p-one:hr",
            "Not found: Dataset hr",
            "Dataset(s) hr not found",
            "Not found: Dataset for hr",
            "Error in view(s) payroll",
            "Row access policies hidden of hr deny this",
            "Failed to connect to PostgreSQL database payroll",
            // A comment or a text in quotes is no name: it would be a dictionary.
            "Not found: Table p-one:hr.bonus",
            "Not found: Table p-one:hr.pay",
            "Could not parse 'salary'",
            "Could not cast literal \"p-one.hr.pay\" to type DATE",
            "Could not cast literal \"p-one.hr.pay\" to type DATE at [1:8]",
            // A sentence of which it is not known what stands where, though all of it is the text's.
            "Names day, x and finance.daily are wrong",
            // A place that the text has not is another text's.
            "Unrecognized name: amountt at [1:9000]",
            "Unrecognized name: amountt at [3:1]",
            "Unrecognized name: amountt at [0:1]",
        ] {
            assert_eq!(tell(said), None, "{said}");
        }
    }

    proptest! {
        /// Whatever the sentence: a word that is neither a shape's nor the text's is never told.
        #[test]
        fn a_word_that_nobody_here_has_said_is_never_told(
            shape in proptest::sample::select(SHAPES.to_vec()),
            fillings in proptest::collection::vec(
                proptest::sample::select(vec!["zebra", "d", "Zebra9", "finance.daily", "p-one:finance.v", "INT64", "zebra.daily", "`zebra`", "STRUCT<zebra INT64>", "Table", "7", "WHERE", "\"zebra\"", "US"]),
                8,
            ),
            before in "(zebra |Error: |)",
            after in "( at \\[1:8\\]| \\[at 1:8\\]|; Did you mean zebra\\?| zebra| at zebra|)",
        ) {
            let mut fillings = fillings.iter();
            let words = shape.split(' ').map(|word| match (word.split_once('{'), word.split_once('}')) {
                (Some((before, _)), Some((_, after))) => {
                    format!("{before}{}{after}", fillings.next().expect("as many"))
                }
                _ => word.to_owned(),
            });
            let said = words.collect::<Vec<_>>().join(" ");
            if let Some(told) = tell(&format!("{before}{said}{after}")) {
                prop_assert!(!told.to_lowercase().contains("zebra"), "{told}");
            }
        }
    }
}
