//! Spellings of GoogleSQL that the parser does not know, put into ones that it knows. What is read then names the same tables, calls the same
//! routines and gives rows the same names; what it would compute is not looked at. Nothing is left out that could name something.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

/// The functions whose arguments have a grammar of their own: behind `SAFE.` the parser takes none of them for a function.
const OWN_GRAMMAR: [Keyword; 10] = [
    Keyword::CEIL,
    Keyword::CEILING,
    Keyword::EXTRACT,
    Keyword::FLOOR,
    Keyword::LEFT,
    Keyword::POSITION,
    Keyword::RIGHT,
    Keyword::SUBSTR,
    Keyword::SUBSTRING,
    Keyword::TRIM,
];
/// Where one of these words stands in no parentheses, the time that a table is read as of has ended.
const BEHIND_TIME: [&str; 24] = [
    "CROSS",
    "EXCEPT",
    "FULL",
    "GROUP",
    "HAVING",
    "INNER",
    "INTERSECT",
    "JOIN",
    "LEFT",
    "LIMIT",
    "ON",
    "ORDER",
    "PIVOT",
    "QUALIFY",
    "RIGHT",
    "SELECT",
    "TABLESAMPLE",
    "UNION",
    "UNPIVOT",
    "USING",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// The text's tokens, blanks and comments aside, with those spellings replaced.
pub(super) fn respell(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    // Before anything looks for a word: behind a dot none has a meaning of its own.
    let tokens = names_quoted(without_safe(tokens));
    let tokens = shifts_as_sums(tokens);
    let tokens = words_replaced(&tokens);
    time_before_alias(tokens)
}

/// `SAFE.` before such functions changes what they do where they fail, and nothing that is looked for.
fn without_safe(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let [first, behind @ ..] = rest {
        let is_within_name = kept
            .last()
            .is_some_and(|before| before.token == Token::Period);
        rest = match behind {
            [dot, function, paren, ..]
                if is_word(first, "SAFE")
                    && dot.token == Token::Period
                    && has_own_grammar(function)
                    && paren.token == Token::LParen
                    && !is_within_name =>
            {
                &behind[1..]
            }
            _ => {
                kept.push(first.clone());
                behind
            }
        };
    }
    kept
}

/// A part of a name behind a dot is a name and no keyword, whichever word it is: `d.left` has nothing to do with a `UNION` behind it.
fn names_quoted(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut is_behind_dot = false;
    for token in &mut tokens {
        if let Token::Word(word) = &mut token.token
            && word.quote_style.is_none()
            && is_behind_dot
        {
            word.quote_style = Some('`');
            word.keyword = Keyword::NoKeyword;
        }
        is_behind_dot = token.token == Token::Period;
    }
    tokens
}

/// `a << 2` and `a >> 2` combine two values, as `a + 2` does. Two signs that end types, one within the other, look like the second.
fn shifts_as_sums(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let opens_type = |pair: &[TokenWithSpan]| {
        pair[1].token == Token::Lt
            && ["ARRAY", "STRUCT", "RANGE", "TABLE"]
                .iter()
                .any(|kind| is_word(&pair[0], kind))
    };
    let has_types = tokens.windows(2).any(opens_type);
    for token in &mut tokens {
        let is_shift =
            token.token == Token::ShiftLeft || (token.token == Token::ShiftRight && !has_types);
        if is_shift {
            token.token = Token::Plus;
        }
    }
    tokens
}

/// What is said in words: a pipe that leaves out what is there twice, or adds columns over a window; groups in an order; a set operation over
/// columns that only one side has.
fn words_replaced(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut made = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let [first, behind @ ..] = rest {
        let is_pipe = first.token == Token::VerticalBarRightAngleBracket;
        rest = match behind {
            [distinct, after @ ..] if is_pipe && is_word(distinct, "DISTINCT") => {
                made.push(first.clone());
                made.extend(["WHERE", "TRUE"].map(|text| said(text, distinct.span)));
                after
            }
            [window, after @ ..] if is_pipe && is_word(window, "WINDOW") => {
                made.extend([first.clone(), said("EXTEND", window.span)]);
                after
            }
            [and, order, by, after @ ..]
                if is_word(first, "GROUP")
                    && is_word(and, "AND")
                    && is_word(order, "ORDER")
                    && is_word(by, "BY") =>
            {
                made.extend([first.clone(), by.clone()]);
                after
            }
            [outer, set, ..]
                if is_side(first) && is_word(outer, "OUTER") && is_set_operation(set) =>
            {
                &behind[1..]
            }
            [set, ..] if is_side(first) && is_set_operation(set) => behind,
            _ => {
                made.push(first.clone());
                behind
            }
        };
    }
    made
}

fn is_side(token: &TokenWithSpan) -> bool {
    ["FULL", "INNER", "LEFT"]
        .iter()
        .any(|side| is_word(token, side))
}

fn is_set_operation(token: &TokenWithSpan) -> bool {
    ["EXCEPT", "INTERSECT", "UNION"]
        .iter()
        .any(|operation| is_word(token, operation))
}

/// `t AS d FOR SYSTEM_TIME AS OF time` as `t FOR SYSTEM_TIME AS OF time AS d`. The name stays that of the same table: no other begins before the
/// time has ended.
fn time_before_alias(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut made: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        let alias = is_time(rest).then(|| take_alias(&mut made)).flatten();
        let Some(alias) = alias else {
            made.push(first.clone());
            rest = behind;
            continue;
        };
        let (time, after) = rest.split_at(TIME.len() + time_len(&rest[TIME.len()..]));
        made.extend_from_slice(time);
        made.extend([said("AS", alias.span), alias]);
        rest = after;
    }
    made
}

const TIME: [&str; 4] = ["FOR", "SYSTEM_TIME", "AS", "OF"];

fn is_time(tokens: &[TokenWithSpan]) -> bool {
    tokens.len() > TIME.len()
        && tokens
            .iter()
            .zip(TIME)
            .all(|(token, word)| is_word(token, word))
}

/// Takes away the alias that stands last, where one does: a word behind `AS`, or right behind a name or a parenthesis.
fn take_alias(made: &mut Vec<TokenWithSpan>) -> Option<TokenWithSpan> {
    let [.., before, alias] = made.as_slice() else {
        return None;
    };
    let is_name = matches!(alias.token, Token::Word(_));
    let has_as = is_word(before, "AS");
    let is_behind_name = matches!(&before.token, Token::Word(word) if word.quote_style.is_some() || word.keyword == Keyword::NoKeyword);
    if !is_name || !(has_as || is_behind_name) {
        return None;
    }
    let alias = alias.clone();
    made.truncate(made.len() - if has_as { 2 } else { 1 });
    Some(alias)
}

/// How many tokens say the time.
fn time_len(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0_usize;
    let ends = |token: &TokenWithSpan| {
        if matches!(token.token, Token::LParen | Token::LBracket) {
            depth += 1;
            return false;
        }
        if matches!(token.token, Token::RParen | Token::RBracket) {
            let is_of_what_is_around = depth == 0;
            depth = depth.saturating_sub(1);
            return is_of_what_is_around;
        }
        let is_sign = matches!(
            token.token,
            Token::Comma | Token::SemiColon | Token::EOF | Token::VerticalBarRightAngleBracket
        );
        depth == 0 && (is_sign || BEHIND_TIME.iter().any(|word| is_word(token, word)))
    };
    tokens.iter().position(ends).unwrap_or(tokens.len())
}

/// A word where another stood.
fn said(text: &str, span: Span) -> TokenWithSpan {
    let token = Token::make_word(text, None);
    TokenWithSpan { token, span }
}

fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word))
}

fn has_own_grammar(token: &TokenWithSpan) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && OWN_GRAMMAR.contains(&word.keyword))
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::BigQueryDialect;
    use sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn respelt(sql: &str) -> String {
        let tokens = Tokenizer::new(&BigQueryDialect, sql).tokenize_with_location();
        let tokens = respell(tokens.expect("tokens"));
        let texts = tokens.iter().map(|token| token.token.to_string());
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_the_parser_does_not_know_is_put_into_what_it_knows() {
        for (sql, wanted) in [
            ("SELECT SAFE.SUBSTR(a, 1)", "SELECT SUBSTR ( a , 1 )"),
            (
                "SELECT d.SAFE.SUBSTR(a)",
                "SELECT d . `SAFE` . `SUBSTR` ( a )",
            ),
            ("SELECT a << 2, a >> b", "SELECT a + 2 , a + b"),
            (
                "SELECT a << 2, CAST(x AS ARRAY<STRUCT<INT64>>)",
                "SELECT a + 2 , CAST ( x AS ARRAY < STRUCT < INT64 >> )",
            ),
            (
                "FROM t |> DISTINCT |> LIMIT 1",
                "FROM t |> WHERE TRUE |> LIMIT 1",
            ),
            (
                "FROM t |> WINDOW SUM(a) OVER () AS s",
                "FROM t |> EXTEND SUM ( a ) OVER ( ) AS s",
            ),
            (
                "FROM t |> AGGREGATE SUM(a) GROUP AND ORDER BY b",
                "FROM t |> AGGREGATE SUM ( a ) GROUP BY b",
            ),
            (
                "SELECT 1 LEFT OUTER UNION ALL BY NAME SELECT 2",
                "SELECT 1 UNION ALL BY NAME SELECT 2",
            ),
            (
                "SELECT 1 INNER UNION ALL BY NAME SELECT 2",
                "SELECT 1 UNION ALL BY NAME SELECT 2",
            ),
            ("SELECT * FROM a LEFT JOIN b", "SELECT * FROM a LEFT JOIN b"),
            (
                "SELECT 1 FROM d.left UNION ALL (FROM t)",
                "SELECT 1 FROM d . `left` UNION ALL ( FROM t )",
            ),
        ] {
            assert_eq!(respelt(sql), wanted, "{sql}");
        }
    }

    #[test]
    fn a_tables_alias_is_put_behind_the_time_it_is_read_as_of() {
        for (sql, wanted) in [
            (
                "FROM a.t AS d FOR SYSTEM_TIME AS OF f(x, (SELECT 1)) , b",
                "FROM a . `t` FOR SYSTEM_TIME AS OF f ( x , ( SELECT 1 ) ) AS d , b",
            ),
            (
                "FROM `a.t` d FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01' WHERE TRUE",
                "FROM `a.t` FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01' AS d WHERE TRUE",
            ),
            (
                "(SELECT 1 FROM t AS d FOR SYSTEM_TIME AS OF @t)",
                "( SELECT 1 FROM t FOR SYSTEM_TIME AS OF @t AS d )",
            ),
            (
                "FROM t AS d FOR SYSTEM_TIME AS OF x LEFT JOIN u AS e FOR SYSTEM_TIME AS OF y ON TRUE",
                "FROM t FOR SYSTEM_TIME AS OF x AS d LEFT JOIN u FOR SYSTEM_TIME AS OF y AS e ON TRUE",
            ),
            (
                "FROM a.t FOR SYSTEM_TIME AS OF x",
                "FROM a . `t` FOR SYSTEM_TIME AS OF x",
            ),
            (
                "FROM t FOR SYSTEM_TIME AS OF x",
                "FROM t FOR SYSTEM_TIME AS OF x",
            ),
            (
                "FROM t AS d FOR SYSTEM_TIME AS OF x.join UNION ALL (FROM u)",
                "FROM t FOR SYSTEM_TIME AS OF x . `join` AS d UNION ALL ( FROM u )",
            ),
        ] {
            assert_eq!(respelt(sql), wanted, "{sql}");
        }
    }
}
