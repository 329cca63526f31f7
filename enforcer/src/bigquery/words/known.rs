//! What a text names, as the words on it are compared with it. Reads texts only.

use std::collections::HashSet;

use enforcer_proto::scope::TableRef;
use sqlparser::dialect::BigQueryDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::bigquery::relations::Reading;

/// The most parts of a name that are looked for: a longer one is not known.
const PARTS_MAX: usize = 8;

/// The names that a text has, in lower case.
pub(super) struct Known<'a> {
    sql: &'a str,
    /// Each with all that it has parts of.
    names: HashSet<String>,
    /// Those of them that are tables and routines, likewise.
    things: HashSet<String>,
}

impl<'a> Known<'a> {
    /// None where the text has no words.
    pub(super) fn of(sql: &'a str, reading: &Reading) -> Option<Self> {
        let tables = reading.named.iter().chain(&reading.called);
        let tables = tables
            .filter_map(|table| table.as_ref().ok())
            .chain(&reading.target);
        let parts = |table: &TableRef| parts_of(&table.to_string());
        let things: Vec<Vec<String>> = tables.map(parts).collect();
        let things = with_parts(&things);
        let mut names = with_parts(&names_in(sql)?);
        names.extend(things.iter().cloned());
        Some(Self { sql, names, things })
    }

    /// Whether a word is one of the names, or a part of one.
    pub(super) fn has(&self, word: &str) -> bool {
        self.names.contains(&parts_of(word).join("."))
    }

    /// Whether a word is a table or a routine of the text's, or what one is in.
    pub(super) fn has_thing(&self, word: &str) -> bool {
        self.things.contains(&parts_of(word).join("."))
    }

    /// What the text has from this place on; lines and columns are counted from one. None where it has no such place.
    pub(super) fn from(&self, line: usize, column: usize) -> Option<&'a str> {
        let line = self.sql.lines().nth(line.checked_sub(1)?)?;
        let before = column.checked_sub(1)?;
        let start = match line.char_indices().nth(before) {
            Some((start, _)) => start,
            // Right behind the last one.
            None if line.chars().count() == before => line.len(),
            None => return None,
        };
        line.get(start..)
    }
}

/// Names, and each run of their parts, of so many at most. No word is none.
fn with_parts(names: &[Vec<String>]) -> HashSet<String> {
    let mut all = HashSet::new();
    for name in names {
        for length in 1..=name.len().min(PARTS_MAX) {
            all.extend(name.windows(length).map(|parts| parts.join(".")));
        }
    }
    all.remove("");
    all
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
