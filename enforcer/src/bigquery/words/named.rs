//! Which of BigQuery's words on a dry run that failed may be told: those that name nothing which the text itself does not name. Behind a view or in
//! a function there are other tables and columns, and BigQuery's words tell of them. Reads texts only, and keeps back what it is not sure of.

use enforcer_proto::scope::TableRef;
use sqlparser::dialect::BigQueryDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::bigquery::relations::Reading;

/// Behind these words comes a name.
const BEFORE_NAMES: [&str; 14] = [
    "name",
    "names",
    "table",
    "dataset",
    "project",
    "connection",
    "column",
    "columns",
    "field",
    "function",
    "inside",
    "model",
    "alias",
    "schema",
];
/// Behind these comes the name of a thing of BigQuery's, which no column or alias of the text is: a text could be full of guesses.
const BEFORE_THINGS: [&str; 4] = ["table", "dataset", "project", "model"];
/// What may come there and is none.
const NO_NAMES: [&str; 32] = [
    "a",
    "an",
    "and",
    "are",
    "argument",
    "at",
    "be",
    "by",
    "does",
    "expression",
    "for",
    "has",
    "have",
    "in",
    "is",
    "list",
    "missing",
    "must",
    "not",
    "of",
    "on",
    "or",
    "references",
    "signature",
    "that",
    "the",
    "to",
    "used",
    "was",
    "which",
    "with",
    "without",
];
/// Where a word begins with one of these, the failure is of what the text does not show.
const ELSEWHERE: [&str; 19] = [
    "bucket",
    "body",
    "candidate",
    "connect",
    "credential",
    "database",
    "drive",
    "file",
    "instance",
    "policies",
    "policy",
    "procedure",
    "reservation",
    "routine",
    "snapshot",
    "storage",
    "udf",
    "user",
    "view",
];
/// Shapes of words with dots that are no names.
const DOTTED: [&str; 2] = ["e.g", "i.e"];
/// Where BigQuery points people to, as a word looks that is compared.
const MANUAL: &str = "https.//cloud.google.com";
/// Behind this BigQuery proposes names of its own.
const PROPOSAL: &str = "did you mean";

/// As much of a sentence of BigQuery's as may be told of a dry run of `sql` that failed. None where that is not sure.
#[must_use]
pub(super) fn told<'a>(said: &'a str, sql: &str, reading: &Reading) -> Option<&'a str> {
    let end = said.to_ascii_lowercase().find(PROPOSAL);
    let said = end.map_or(said, |end| &said[..end]);
    let said = said.trim_end_matches([' ', ';', '.', '(']);
    let known = Known::of(sql, reading)?;
    let mut before = String::new();
    for raw in said.split_whitespace() {
        let is_quoted = raw.contains(['`', '"', '\'']);
        let word = plain(raw);
        if ELSEWHERE
            .iter()
            .any(|elsewhere| word.starts_with(elsewhere))
        {
            return None;
        }
        let is_no_name = NO_NAMES.contains(&word.as_str()) || BEFORE_NAMES.contains(&word.as_str());
        let is_named_here = BEFORE_NAMES.contains(&before.as_str()) && !is_no_name;
        let is_shaped = word.contains(['.', '/', '_']) || known.has_project(&word);
        let is_name = is_quoted || is_named_here || is_shaped;
        // A table without a dataset is one of the text's alone.
        let is_thing = is_named_here && BEFORE_THINGS.contains(&before.as_str());
        let is_thing = (is_thing && (word.contains('.') || before != "table"))
            || known.has_project(&word)
            || (raw.contains(':') && word.contains('.') && !is_number(&word));
        let is_known = if is_thing {
            known.has_thing(&word)
        } else {
            known.has(&word)
        };
        if is_name && !is_known {
            return None;
        }
        // Between the word for a thing and its name others may stand.
        let goes_on = BEFORE_THINGS.contains(&before.as_str()) && is_no_name;
        if !word.is_empty() && !goes_on {
            before = singular(word);
        }
    }
    Some(said)
}

/// A word without its quotes and what stands around it, as names are compared.
fn plain(word: &str) -> String {
    let word = word
        .to_lowercase()
        .replace(['`', '"', '\''], "")
        .replace(':', ".");
    let is_around = |c: char| !c.is_alphanumeric() && c != '_' && c != '*';
    word.trim_matches(is_around).to_owned()
}

/// The names that a text has, each as its parts, in lower case.
struct Known {
    names: Vec<Vec<String>>,
    /// Those of them that are tables and routines, whole.
    things: Vec<Vec<String>>,
    projects: Vec<String>,
}

impl Known {
    fn of(sql: &str, reading: &Reading) -> Option<Self> {
        let tables = reading.named.iter().chain(&reading.called);
        let tables = tables
            .filter_map(|table| table.as_ref().ok())
            .chain(&reading.target);
        let tables: Vec<&TableRef> = tables.collect();
        let parts = |table: &&TableRef| parts_of(&table.to_string());
        let things: Vec<Vec<String>> = tables.iter().map(parts).collect();
        let mut names = names_in(sql)?;
        names.extend(things.iter().cloned());
        let project =
            |table: &&TableRef| table.dataset().project().to_lowercase().replace(':', ".");
        Some(Self {
            names,
            things,
            projects: tables.iter().map(project).collect(),
        })
    }

    /// Whether a word has a project's name in it.
    fn has_project(&self, word: &str) -> bool {
        self.projects
            .iter()
            .any(|project| word.contains(project.as_str()))
    }

    /// Whether a word is one of the names, or a part of one.
    fn has(&self, word: &str) -> bool {
        let wanted = parts_of(word);
        let is_part_of = |name: &Vec<String>| name.windows(wanted.len()).any(|part| part == wanted);
        is_number(word)
            || DOTTED.contains(&word)
            || word.starts_with(MANUAL)
            || self.names.iter().any(is_part_of)
    }
}

/// A word for one thing, where it is for several: `tables`, `view(s)`.
fn singular(word: String) -> String {
    let one = word.strip_suffix("(s").or_else(|| word.strip_suffix('s'));
    match one {
        Some(one) if BEFORE_THINGS.contains(&one) || BEFORE_NAMES.contains(&one) => one.to_owned(),
        Some(_) | None => word,
    }
}

/// A number, or a place in a text.
fn is_number(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

impl Known {
    /// Whether a word is a table or a routine of the text's, or what one is in.
    fn has_thing(&self, word: &str) -> bool {
        let wanted = parts_of(word);
        let is_part_of =
            |thing: &Vec<String>| thing.windows(wanted.len()).any(|part| part == wanted);
        word.starts_with(MANUAL) || self.things.iter().any(is_part_of)
    }
}

fn parts_of(name: &str) -> Vec<String> {
    let name = name.to_lowercase().replace(':', ".");
    name.split('.').map(str::to_owned).collect()
}

/// The names in a text: words put together by dots, and by the dashes of a project's name. Comments and texts in quotes have none.
fn names_in(sql: &str) -> Option<Vec<Vec<String>>> {
    let tokens = Tokenizer::new(&BigQueryDialect, sql).tokenize().ok()?;
    let mut names = Vec::new();
    let mut name: Vec<String> = Vec::new();
    let mut sign = None;
    for token in tokens {
        let word = if let Token::Word(word) = &token {
            word.value.clone()
        } else if let Token::Number(number, _) = &token {
            number.clone()
        } else {
            sign = if token == Token::Period {
                Some('.')
            } else if token == Token::Minus {
                Some('-')
            } else {
                None
            };
            if sign.is_none() && !name.is_empty() {
                names.push(std::mem::take(&mut name));
            }
            continue;
        };
        let mut parts = parts_of(&word).into_iter();
        match (sign.take(), name.last_mut()) {
            (Some('-'), Some(last)) => {
                last.push_str(&format!("-{}", parts.next().unwrap_or_default()))
            }
            (Some('.'), Some(_)) => {}
            _ => names.extend((!name.is_empty()).then(|| std::mem::take(&mut name))),
        }
        name.extend(parts);
    }
    names.extend((!name.is_empty()).then_some(name));
    Some(names)
}

#[cfg(test)]
mod tests {
    use enforcer_proto::scope::Scope;

    use super::*;

    const SQL: &str = "SELECT 1 AS `p-one.hr.guess`, p-one.hr.guess, 2 AS hr, d.amountt, COUNT(x) FROM `finance.daily` AS d, finance.v, p-one.finance.other, lone -- p-one.hr.bonus\nWHERE x = 'p-one.hr.pay'";

    fn tell(said: &str) -> Option<String> {
        let scope: Scope = "p-one.finance:read,p-one.scratch:write"
            .parse()
            .expect("a scope");
        let reading = Reading::of(SQL, 60, &scope, "p-one", None);
        assert!(!reading.named.is_empty());
        told(said, SQL, &reading).map(str::to_owned)
    }

    #[test]
    fn what_the_text_names_is_told() {
        for said in [
            "Name amountt not found inside d at [1:10]",
            "Unrecognized name: amountt at [1:8]",
            "Not found: Table p-one:finance.daily was not found in location US",
            "Not found: Dataset p-one:finance was not found",
            "Not found: Table p-one.finance.other",
            "Table lone must be qualified with a dataset",
            "No matching signature for aggregate function COUNT for argument types",
            "Syntax error: Expected end of input but got keyword SELECT at [1:5]",
            "Column name x is ambiguous at [1:20]",
            "SELECT list expression references column amountt which is neither grouped nor aggregated at [1:8]",
            "See https://cloud.google.com for more, e.g. that 1.5 is no date",
        ] {
            assert_eq!(tell(said).as_deref(), Some(said));
        }
    }

    #[test]
    fn what_bigquery_proposes_instead_is_cut_off() {
        let said = tell("Unrecognized name: amountt; Did you mean salary? at [1:8]");
        assert_eq!(said.as_deref(), Some("Unrecognized name: amountt"));
    }

    #[test]
    fn what_the_text_does_not_name_is_kept_back() {
        for said in [
            "Not found: Table p-one:hr.salaries was not found in location US",
            "Access Denied: Table p-one.hr.salaries: User does not have permission",
            "Not found: Dataset p-one:hr",
            "Not found: Project other-proj",
            "Invalid view p-one.finance.v: Unrecognized name: pay",
            "Unrecognized name: pay at [1:8]",
            "Name salary not found inside d",
            "Unrecognized name: secret_rate",
            "Candidate bindings: \"name\" FROM \"hr\".\"salaries\"",
            "in `hr`.`salaries`",
            "LINE 1: SELECT name FROM \"p-one__hr...",
            "no permission on projects/other/datasets/hr/tables/salaries",
            "no permission on projects/p-one/datasets/hr/tables/salaries",
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
        ] {
            assert_eq!(tell(said), None, "{said}");
        }
    }
}
