//! Why a text cannot be judged, and what its agent is told. BigQuery is not asked about such a text: its answer, or only that it has one, would tell
//! what there is outside of the window.

use enforcer_proto::refusal::{Code, Refusal};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::words;

/// Why a text cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// The reader stops at something in it, and says so in these words.
    Syntax(String),
    /// It is a statement of this kind, which no window lets through.
    Kind(String),
    /// It is a statement of a kind that is let through, and says more than is judged.
    Form(String),
    /// It is no statement, or several.
    NotOne(usize),
    /// It calls this function, of which it is not known that it reaches nothing.
    Function(String),
    /// It names tables in a way that is not followed, or there was no room to read it.
    Hidden,
}

/// Statements that are let through in some of their forms, by the words they begin with.
const JUDGED: [&str; 12] = [
    "(",
    "CREATE TABLE",
    "DELETE",
    "DROP TABLE",
    "FROM",
    "INSERT",
    "MERGE",
    "SELECT",
    "TRUNCATE TABLE",
    "UPDATE",
    "VALUES",
    "WITH",
];
/// Words that say what a statement does, of which the next says to what.
const WITH_OBJECT: [&str; 7] = [
    "ALTER", "CREATE", "DROP", "EXECUTE", "EXPORT", "LOAD", "TRUNCATE",
];
/// What says of an object which one of its kind it is.
const OF_OBJECT: [&str; 7] = [
    "AGGREGATE",
    "EXTERNAL",
    "MATERIALIZED",
    "ROW",
    "SEARCH",
    "SNAPSHOT",
    "VECTOR",
];
/// What may stand between those two words, and is no part of the kind.
const BETWEEN: [&str; 4] = ["OR", "REPLACE", "TEMP", "TEMPORARY"];

impl Unread {
    /// Of a text that the reader stopped at.
    pub(super) fn stopped(sql: &str, error: &ParserError) -> Self {
        let said = match error {
            ParserError::TokenizerError(said) | ParserError::ParserError(said) => said.as_str(),
            ParserError::RecursionLimitExceeded => "it is nested too deep",
        };
        let kind = kind_of(sql);
        if kind.as_ref().is_none_or(|kind| is_judged(kind)) {
            Self::Syntax(words::cut(said))
        } else {
            Self::of_kind(kind)
        }
    }

    /// Of a text that was read, and is one statement of none of the forms that are judged.
    pub(super) fn statement(sql: &str) -> Self {
        Self::of_kind(kind_of(sql))
    }

    fn of_kind(kind: Option<String>) -> Self {
        match kind {
            Some(kind) if is_judged(&kind) => Self::Form(words::cut(&kind)),
            Some(kind) => Self::Kind(words::cut(&kind)),
            None => Self::Hidden,
        }
    }

    /// What is told of it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let not_vouched = |what: String| Refusal::new(Code::NotVouched, what);
        match self {
            Self::Syntax(said) => not_vouched(format!(
                "The text is no query that can be read here, so BigQuery is not asked about it: {said}"
            )),
            Self::Kind(kind) => Refusal::new(
                Code::StatementKind,
                format!("Access Denied: a {kind} statement is let through by no window"),
            ),
            Self::Form(kind) => not_vouched(format!(
                "This {kind} statement says more than is judged here, so BigQuery is not asked about it"
            )),
            Self::NotOne(count) => Refusal::new(
                Code::StatementKind,
                format!("Access Denied: the text has {count} statements, and one at a time is let through"),
            ),
            Self::Function(name) => not_vouched(format!(
                "{} is none of BigQuery's functions that are known to reach nothing, so BigQuery is not asked about it; a routine is called with its dataset's name",
                words::cut(name)
            )),
            Self::Hidden => not_vouched(
                "The text names tables in a way that is not read here, so BigQuery is not asked about it".to_owned(),
            ),
        }
    }
}

fn is_judged(kind: &str) -> bool {
    JUDGED.contains(&kind)
}

/// The kind of a statement, as its first words say it; none where it begins with no word.
fn kind_of(sql: &str) -> Option<String> {
    let tokens = Tokenizer::new(&BigQueryDialect, sql).tokenize().ok()?;
    let mut tokens = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)));
    let mut next_word = || tokens.next().map(word);
    let first = next_word()?;
    if !WITH_OBJECT.contains(&first.as_str()) {
        return (!first.is_empty()).then_some(first);
    }
    let mut kind = vec![first];
    while let Some(next) = next_word().filter(|word| !word.is_empty()) {
        if BETWEEN.contains(&next.as_str()) {
            continue;
        }
        let is_of_object = OF_OBJECT.contains(&next.as_str());
        kind.push(next);
        if !is_of_object {
            break;
        }
    }
    // `TABLE FUNCTION` is no table.
    let is_function = kind.last().is_some_and(|last| last == "TABLE")
        && next_word().is_some_and(|next| next == "FUNCTION");
    kind.extend(is_function.then(|| "FUNCTION".to_owned()));
    Some(kind.join(" "))
}

/// A word without quotes, in upper case, or the parenthesis that a query may begin with; empty for anything else.
fn word(token: &Token) -> String {
    if let Token::Word(word) = token
        && word.quote_style.is_none()
    {
        return word.value.to_ascii_uppercase();
    }
    let is_parenthesis = *token == Token::LParen;
    if is_parenthesis { "(" } else { "" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_by_its_first_words_what_it_does() {
        for (sql, wanted) in [
            ("SELECT 1", Some("SELECT")),
            (
                " /* x */ create or replace temp table d.t AS SELECT 1",
                Some("CREATE TABLE"),
            ),
            (
                "CREATE TABLE FUNCTION d.f() AS SELECT 1",
                Some("CREATE TABLE FUNCTION"),
            ),
            (
                "CREATE MATERIALIZED VIEW d.v AS SELECT 1",
                Some("CREATE MATERIALIZED VIEW"),
            ),
            ("EXECUTE IMMEDIATE 'x'", Some("EXECUTE IMMEDIATE")),
            ("BEGIN SELECT 1; END", Some("BEGIN")),
            ("BEGIN", Some("BEGIN")),
            ("DECLARE x INT64", Some("DECLARE")),
            ("((SELECT 1))", Some("(")),
            ("`SELECT` 1", None),
            ("", None),
            ("1", None),
        ] {
            assert_eq!(kind_of(sql).as_deref(), wanted, "{sql}");
        }
    }

    #[test]
    fn what_is_told_names_the_cause_and_has_a_code_of_its_own() {
        for (unread, code, part) in [
            (
                Unread::Syntax("Expected: x".to_owned()),
                Code::NotVouched,
                "asked about it: Expected: x",
            ),
            (
                Unread::statement("CALL d.p()"),
                Code::StatementKind,
                "a CALL statement",
            ),
            (
                Unread::statement("CREATE TABLE d.t LIKE d.u"),
                Code::NotVouched,
                "This CREATE TABLE statement says more",
            ),
            (Unread::NotOne(2), Code::StatementKind, "has 2 statements"),
            (
                Unread::Hidden,
                Code::NotVouched,
                "in a way that is not read",
            ),
        ] {
            let refusal = unread.refusal();
            assert!(
                refusal.code == code && refusal.what.contains(part),
                "{refusal:?}"
            );
        }
        let error = ParserError::ParserError("y".repeat(10_000));
        let Unread::Syntax(said) = Unread::stopped("SELECT", &error) else {
            panic!("a query");
        };
        assert!(said.len() < 1000, "it is cut");
        let of_script = Unread::stopped("DECLARE x INT64 DEFAULT (SELECT", &error);
        assert_eq!(of_script, Unread::Kind("DECLARE".to_owned()));
    }
}
