//! SQL set out for reading: broken into lines at its clauses, and nothing else of it changed. Where that is not sure, the text is shown as it was
//! asked.

use sqlformat::{FormatOptions, Indent, QueryParams, format};

/// The longest text that is set out, bytes: what a formatter takes over it grows with the square of it.
const BYTES_MAX: usize = 4 * 1024;
/// What a formatter may read otherwise than BigQuery does: comments, texts over several lines, escapes.
const UNSURE: [&str; 6] = ["--", "/*", "#", "'''", "\"\"\"", "\\"];

/// `sql` as people read it.
pub(super) fn pretty(sql: &str) -> String {
    let is_unsure = sql.len() > BYTES_MAX || UNSURE.iter().any(|sign| sql.contains(sign));
    if is_unsure {
        return sql.to_owned();
    }
    let options = FormatOptions {
        indent: Indent::Spaces(2),
        ..FormatOptions::default()
    };
    let set_out = format(sql, &QueryParams::None, &options);
    if without_space(sql).eq(without_space(&set_out)) {
        set_out
    } else {
        sql.to_owned()
    }
}

fn without_space(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clauses_begin_a_line() {
        assert_eq!(
            pretty("SELECT day, SUM(x) AS total FROM finance.daily WHERE day > '2026-10-01'"),
            "SELECT\n  day,\n  SUM(x) AS total\nFROM\n  finance.daily\nWHERE\n  day > '2026-10-01'"
        );
    }

    #[test]
    fn what_might_be_read_otherwise_is_shown_as_it_was_asked() {
        for sql in [
            "SELECT 1 -- FROM hr.salaries\n, 2",
            "SELECT '''a\n  b''' FROM t",
            r"SELECT 'it\'s  so' FROM t",
            "SELECT 1 # note\nFROM t",
        ] {
            assert_eq!(pretty(sql), sql);
        }
        let long = format!("SELECT {}", "1,".repeat(BYTES_MAX));
        assert_eq!(pretty(&long), long);
    }

    /// Texts in quotes keep the blanks in them.
    #[test]
    fn what_stands_in_quotes_is_not_touched() {
        let said = pretty("SELECT 'a  FROM  b', `p.d  x`.t, \"q  WHERE\" FROM t");
        for quoted in ["'a  FROM  b'", "`p.d  x`.t", "\"q  WHERE\""] {
            assert!(said.contains(quoted), "{said}");
        }
    }

    #[test]
    fn as_much_as_is_set_out_is_set_out_at_once() {
        for one in ["(", "a,", "CASE ", "'", "SELECT ", "[", ";"] {
            pretty(&one.repeat(BYTES_MAX / one.len()));
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "SELECT",
                "FROM",
                "WHERE",
                "(",
                ")",
                ",",
                "'",
                "\"",
                "`",
                "BEGIN",
                "END",
                "CASE",
                "WHEN",
                "[",
                "]",
                ";",
                "@p",
                "$1",
                "?",
                "{{",
                "}}",
                ":x",
                "0x1F",
                "1e5",
                "||",
                "DATE '2026-01-01'",
                "UNION ALL",
                "JOIN",
                "ON",
                "\n",
                "\u{202e}",
                "é",
            ])
            .prop_map(str::to_owned),
            ".{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_breaks_it_or_becomes_another(pieces in prop::collection::vec(piece(), 0..60)) {
            let sql = pieces.join(" ");
            let said = pretty(&sql);
            prop_assert!(without_space(&sql).eq(without_space(&said)));
        }
    }
}
