//! What may stand where a sentence's shape leaves room. Decides purely; what it is not sure of does not fit.

use super::known::Known;

/// Words for parts of a query.
const CLAUSES: [&str; 48] = [
    "...",
    "AGGREGATE",
    "ALL",
    "ARRAY",
    "AS",
    "BY",
    "CREATE",
    "CROSS",
    "DELETE",
    "DISTINCT",
    "EXCEPT",
    "EXISTS",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "JOIN",
    "LEFT",
    "LIMIT",
    "MERGE",
    "OFFSET",
    "ON",
    "ORDER",
    "OUTER",
    "PARTITION",
    "QUALIFY",
    "REPLACE",
    "RANGE",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SET",
    "TABLE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "WHERE",
    "WINDOW",
    "WITH",
    "Window",
    "clause",
    "list",
];
/// BigQuery's types, as they are written, and what stands for several.
const TYPES: [&str; 21] = [
    "ANY",
    "ARRAY",
    "BIGNUMERIC",
    "BOOL",
    "BYTES",
    "DATE",
    "DATETIME",
    "FLOAT64",
    "GEOGRAPHY",
    "INT64",
    "INTERVAL",
    "JSON",
    "NULL",
    "NUMERIC",
    "RANGE",
    "STRING",
    "STRUCT",
    "TIME",
    "TIMESTAMP",
    "UINT64",
    "UUID",
];
/// What a thing of BigQuery's is called.
const KINDS: [&str; 6] = [
    "Table", "Dataset", "Project", "Routine", "Model", "Function",
];
/// Small words that tell one case of a sentence from another.
const WORDS: [&str; 11] = [
    "left", "right", "dataset", "project", "table", "model", "routine", "on", "query", "column",
    "columns",
];
/// What a sentence on the syntax says besides keywords, signs and names.
const SYNTAX: [&str; 24] = [
    "Expected",
    "Unexpected",
    "end",
    "of",
    "input",
    "but",
    "got",
    "keyword",
    "identifier",
    "string",
    "literal",
    "integer",
    "floating",
    "point",
    "or",
    "for",
    "hint",
    "list",
    "must",
    "not",
    "be",
    "empty",
    "Unclosed",
    "script",
];
/// The most words that one slot takes; a sentence with more is not told.
const WORDS_MAX: usize = 64;
/// The longest word that is read for a permission or a location, bytes.
const WORD_BYTES_MAX: usize = 64;

/// Whether a sentence, as its words, has this shape.
pub(super) fn fits(shape: &[&str], said: &[&str], known: &Known<'_>, place: Option<&str>) -> bool {
    let Some((wanted, rest)) = shape.split_first() else {
        return said.is_empty();
    };
    let goes_on = |words: usize| {
        said.get(words..)
            .is_some_and(|said| fits(rest, said, known, place))
    };
    let Some((before, slot, after)) = parts(wanted) else {
        return said.first() == Some(wanted) && goes_on(1);
    };
    for words in 1..=WORDS_MAX.min(said.len()) {
        let Some(([filling @ .., last], _)) = said.split_at_checked(words) else {
            return false;
        };
        // What does not go on does not do so with more words either.
        let is_middle = |word: &&str| slot.goes_over(word, known);
        if filling.last().is_some_and(|word| !is_middle(word)) {
            return false;
        }
        let filling = [filling, &[*last]].concat().join(" ");
        let filling = filling
            .strip_prefix(before)
            .and_then(|filling| filling.strip_suffix(after));
        if filling.is_some_and(|filling| slot.takes(filling, known, place)) && goes_on(words) {
            return true;
        }
    }
    false
}

/// What stands before a slot in a word of a shape, the slot, and what stands behind it.
fn parts(word: &str) -> Option<(&str, Slot, &str)> {
    let (before, rest) = word.split_once('{')?;
    let (slot, after) = rest.split_once('}')?;
    Some((before, Slot::called(slot)?, after))
}

/// A place in a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// A name of the text's, or a part of one.
    Name,
    /// Several, with commas.
    Names,
    /// A table or a routine of the text's, or what one is in: an alias is none, for a text could be full of guesses.
    Thing,
    /// What the thing is called.
    Kind,
    /// Parts of a query.
    Clause,
    /// Types, without the fields of rows.
    Types,
    /// What a sentence on the syntax says.
    Syntax,
    /// An operator.
    Sign,
    /// A literal of the text's, at the place that is said.
    Literal,
    Number,
    Word,
    Permission,
    Location,
}

impl Slot {
    fn called(name: &str) -> Option<Self> {
        match name {
            "name" => Some(Self::Name),
            "names" => Some(Self::Names),
            "thing" => Some(Self::Thing),
            "kind" => Some(Self::Kind),
            "clause" => Some(Self::Clause),
            "types" => Some(Self::Types),
            "syntax" => Some(Self::Syntax),
            "sign" => Some(Self::Sign),
            "literal" => Some(Self::Literal),
            "number" => Some(Self::Number),
            "word" => Some(Self::Word),
            "permission" => Some(Self::Permission),
            "location" => Some(Self::Location),
            _ => None,
        }
    }

    /// Whether it may have more words behind this one: what is of one word never does.
    fn goes_over(self, word: &str, known: &Known<'_>) -> bool {
        match self {
            Self::Names => word
                .strip_suffix(',')
                .is_some_and(|name| known.has(unquoted(name))),
            Self::Clause => CLAUSES.contains(&word),
            Self::Types => are_types(word),
            Self::Syntax => is_of_syntax(word, known),
            Self::Sign => is_sign(word),
            Self::Literal => true,
            Self::Name
            | Self::Thing
            | Self::Kind
            | Self::Number
            | Self::Word
            | Self::Permission
            | Self::Location => false,
        }
    }

    fn takes(self, said: &str, known: &Known<'_>, place: Option<&str>) -> bool {
        match self {
            Self::Name => known.has(unquoted(said)),
            Self::Names => said.split(", ").all(|name| known.has(unquoted(name))),
            Self::Thing => known.has_thing(unquoted(said)),
            Self::Kind => KINDS.contains(&said),
            Self::Clause => said.split(' ').all(|word| CLAUSES.contains(&word)),
            Self::Types => are_types(said),
            Self::Syntax => said.split(' ').all(|word| is_of_syntax(word, known)),
            Self::Sign => said.split(' ').all(is_sign),
            Self::Literal => place.is_some_and(|text| stands_at(text, said)),
            Self::Number => !said.is_empty() && said.chars().all(|c| c.is_ascii_digit()),
            Self::Word => WORDS.contains(&said),
            Self::Permission => said
                .strip_prefix("bigquery.")
                .is_some_and(|rest| is_plain(rest, '.')),
            Self::Location => is_plain(said, '-'),
        }
    }
}

/// A name without its quotes.
fn unquoted(name: &str) -> &str {
    name.trim_matches(['`', '"', '\''])
}

/// Types without the names in them.
fn are_types(said: &str) -> bool {
    let is_between = |c: char| " ,<>{}".contains(c);
    let mut words = said.split(is_between).filter(|word| !word.is_empty());
    words.clone().next().is_some() && words.all(|word| TYPES.contains(&word))
}

/// A word on the syntax: one of its own, a keyword in capitals, a sign, or a name of the text's.
fn is_of_syntax(word: &str, known: &Known<'_>) -> bool {
    SYNTAX.contains(&word) || is_sign(word) || known.has(unquoted(word))
}

/// Without letters and digits, or a keyword.
fn is_sign(word: &str) -> bool {
    let is_keyword = || sqlparser::keywords::ALL_KEYWORDS.contains(&word);
    !word.is_empty() && (word.chars().all(|c| c.is_ascii_punctuation()) || is_keyword())
}

/// Whether a literal is what the text has at its place, behind its type's name.
fn stands_at(text: &str, literal: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphabetic() || c == ' ';
    let plain = literal.trim_matches(['"', '\'']);
    let at = text.trim_start_matches(is_name);
    !plain.is_empty()
        && at.trim_start_matches(['"', '\'']).starts_with(plain)
        && at.starts_with(['"', '\''])
}

fn is_plain(word: &str, between: char) -> bool {
    let is_of_it = |c: char| c.is_ascii_alphanumeric() || c == between;
    !word.is_empty() && word.len() <= WORD_BYTES_MAX && word.chars().all(is_of_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::words::shapes::SHAPES;

    #[test]
    fn every_slot_of_every_shape_is_one_that_is_known() {
        for shape in SHAPES {
            for word in shape.split(' ').filter(|word| word.contains(['{', '}'])) {
                assert!(parts(word).is_some(), "{word} in {shape}");
            }
        }
    }
}
