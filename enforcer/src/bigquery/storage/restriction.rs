//! The condition on the rows of a read session: SQL text over one table's columns. What could be a query of its own in it, or calls what is
//! not built in, is refused: no dry run vouches for it.

use enforcer_proto::refusal::{Code, Refusal};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use crate::bigquery::text;

/// Words that belong to queries and not to conditions.
const OF_QUERIES: [&str; 9] = [
    "SELECT",
    "WITH",
    "TABLE",
    "EXISTS",
    "JOIN",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "GRAPH",
];

/// A function whose argument, which may be a row's, becomes the words of a failure.
const SAYING: &str = "ERROR";

/// Judges a condition.
///
/// # Errors
/// [`Code::NotVouched`].
pub fn judge(condition: &str) -> Result<(), Refusal> {
    // Read as a query's would be, which refuses what can be read in two ways.
    if !text::read(condition)?.is_plain() {
        return Err(refused("calls what is not built in"));
    }
    let tokens = Tokenizer::new(&BigQueryDialect, condition).tokenize();
    let tokens = tokens.map_err(|_| refused("cannot be read"))?;
    if says_what_it_likes(&tokens) {
        return Err(refused("makes the words of a failure (ERROR)"));
    }
    let mut depth = 0_usize;
    let mut before = None;
    for token in &tokens {
        if let Token::Whitespace(blank) = token {
            match blank {
                Whitespace::Space | Whitespace::Newline | Whitespace::Tab => continue,
                Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_) => {
                    return Err(refused("holds a comment"));
                }
            }
        }
        if *token == Token::LParen {
            depth += 1;
        } else if *token == Token::RParen {
            let closed = depth.checked_sub(1);
            depth = closed.ok_or_else(|| refused("closes what it did not open"))?;
        }
        if is_of_a_query(token, before) {
            return Err(refused("holds more than a condition over its own columns"));
        }
        before = Some(token);
    }
    if depth == 0 {
        Ok(())
    } else {
        Err(refused("does not close what it opened"))
    }
}

/// Whether [`SAYING`] is called, however it is written: behind `SAFE.`, quoted, or in a chain.
fn says_what_it_likes(tokens: &[Token]) -> bool {
    let mut signs = tokens.iter();
    let mut signs =
        std::iter::from_fn(|| signs.find(|token| !matches!(token, Token::Whitespace(_))))
            .peekable();
    while let Some(sign) = signs.next() {
        let Token::Word(word) = sign else { continue };
        let last = word.value.rsplit('.').next().unwrap_or_default();
        let is_called = matches!(signs.peek(), Some(Token::LParen | Token::RParen));
        if last.eq_ignore_ascii_case(SAYING) && is_called {
            // A column of that name at the end of brackets cannot be told from a chain at a glance, and is quoted no differently.
            let is_chain = matches!(signs.peek(), Some(Token::RParen));
            if !is_chain {
                return true;
            }
            signs.next();
            if matches!(signs.peek(), Some(Token::LParen)) {
                return true;
            }
        }
    }
    false
}

/// `FROM` stands in conditions too, behind a word: `EXTRACT(YEAR FROM day)`, `a IS DISTINCT FROM b`. A query would begin with it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the tokenizer's kinds of tokens, of which three are looked at"
)]
fn is_of_a_query(token: &Token, before: Option<&Token>) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_none() => {
            let is = |known: &str| word.value.eq_ignore_ascii_case(known);
            OF_QUERIES.iter().any(|known| is(known))
                || is("FROM") && !matches!(before, Some(Token::Word(_) | Token::RParen))
        }
        Token::SemiColon | Token::VerticalBarRightAngleBracket => true,
        _ => false,
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::new(Code::NotVouched, format!("The row restriction {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_over_columns_pass() {
        for condition in [
            "amount > 7 AND name LIKE 'a%'",
            "EXTRACT(YEAR FROM day) = 2026",
            "EXTRACT(WEEK(MONDAY) FROM day) = 3",
            "a IS DISTINCT FROM b",
            "`select` = 'SELECT 1 FROM x' OR day IN (DATE '2026-01-01', DATE '2026-01-02')",
            "ST_INTERSECTS(place, ST_GEOGPOINT(1, 2)) AND part.of.it IS NOT NULL",
            "SAFE.SUBSTR(name, 1) = 'x' OR NET.HOST(url) = 'h'",
            "IFERROR(amount, 0) = 1 AND error IS NULL AND (error) IN ('ERROR(x)')",
        ] {
            assert_eq!(judge(condition), Ok(()), "{condition}");
        }
    }

    #[test]
    fn what_could_reach_elsewhere_is_refused() {
        for condition in [
            "id IN (SELECT id FROM hr.salaries)",
            "id IN ( /* */ FROM hr.salaries)",
            "EXISTS(FROM hr.salaries)",
            "id IN (TABLE hr.salaries)",
            "TRUE) UNION ALL (SELECT 1",
            "(id = 1",
            "id = 1; DROP TABLE x",
            "id = 1 -- and",
            "id = 1 # and",
            "(WITH x AS (SELECT 1) SELECT * FROM x) = 1",
            "hr.look(id) = 1",
            "`p.hr.look`(id) = 1",
            "ML.PREDICT(id) = 1",
            "EXTERNAL_QUERY('c', 'q') = 1",
            "FROM hr.salaries |> AGGREGATE COUNT(*)",
            "id IN (hr.INFORMATION_SCHEMA.TABLES)",
            "IF(amount > 7, ERROR(CAST(amount AS STRING)), TRUE)",
            "amount = 1 OR `error` (name) = 1",
            "SAFE.ERROR(name) IS NULL",
            "(name).(ERROR)() = 1",
            "name = 'open",
            "name = r'\\' OR TRUE --'",
        ] {
            let judged = judge(condition).map_err(|refusal| refusal.code);
            assert_eq!(judged, Err(Code::NotVouched), "{condition}");
        }
    }
}
