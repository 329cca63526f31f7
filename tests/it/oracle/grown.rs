//! Texts grown from a small grammar, of what the reader respells and what stands near it: whatever the product lets on of them, the oracle finds nothing
//! outside of the scope in it. A battery's statements have no such shapes, and changes by chance do not come to them.

use std::fmt::Write;

use serde_json::json;

use super::battery::Window;
use super::product::{self, Reading};
use super::zetasql::Oracle;
use crate::chance::{Chance, number};

/// How many texts are grown; `ORACLE_TEXTS` says otherwise, for a longer search, and `ORACLE_SEED` for another one.
const TEXTS: u64 = 12_000;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;
/// How deep one part stands in another before the shortest of its kind is taken.
const DEPTH_MAX: usize = 5;
/// The longest text, bytes.
const BYTES_MAX: usize = 600;
/// How many of them must be let on and be texts for ZetaSQL, one in so many at least: else nothing is shown.
const LET_ON_MIN: u64 = 60;

/// A kind of part: the letter that stands for one in others, its shortest, and all. A letter stands for a part where no other word is beside it.
struct Kind {
    letter: char,
    shortest: &'static str,
    all: &'static [&'static str],
}

const KINDS: [Kind; 7] = [
    Kind {
        letter: 'Q',
        shortest: "SELECT 1 FROM hr.salaries",
        all: &[
            "SELECT E FROM T",
            "SELECT E, E FROM T J",
            "SELECT E FROM T J S (Q)",
            "SELECT E FROM T S SELECT E FROM T",
            "SELECT a << 2 FROM T S (Q)",
            "SELECT E FROM T J J WHERE E",
            "SELECT E AS a FROM T S (FROM T)",
            "SELECT * EXCEPT (a) FROM T J S Q",
            "FROM T P",
            "FROM T J P P",
            "FROM hr.salaries",
            "(Q) S (Q)",
            "WITH hr AS (Q) Q",
            "WITH hr AS (SELECT 1 AS a) SELECT E FROM hr J",
            "WITH hr AS (SELECT 1 AS a) SELECT E FROM hr K J",
        ],
    },
    Kind {
        letter: 'E',
        shortest: "1 << 2",
        all: &[
            "1 << 2",
            "a >> 1",
            "d.K",
            "d.K.K",
            "x.K (x)",
            "d.K + x",
            "CURRENT_TIMESTAMP()",
            "STRUCT(1 AS `K`).K",
            "CAST(x AS ARRAY<STRUCT<INT64>>)",
            "SAFE.SUBSTR('a', 1)",
            "(SELECT 1)",
            "(Q)",
            "EXISTS (FROM hr.salaries)",
            "ARRAY(SELECT 1 FROM hr.salaries)",
        ],
    },
    Kind {
        letter: 'T',
        shortest: "finance.daily",
        all: &[
            "finance.daily",
            "finance.daily AS d",
            "finance.daily AS hr",
            "finance.K",
            "finance.K AS d",
            "finance.daily AS d, d.K",
            "d.K AS hr",
            "hr.salaries",
            "hr.K",
            "finance.daily AS d FOR SYSTEM_TIME AS OF E",
            "finance.daily d FOR SYSTEM_TIME AS OF E",
            "finance.hr AS d FOR SYSTEM_TIME AS OF E",
            "finance.K hr FOR SYSTEM_TIME AS OF E",
            "UNNEST([STRUCT([1] AS `K`)]) AS d, d.K",
            "(Q)",
        ],
    },
    Kind {
        letter: 'S',
        shortest: "UNION ALL",
        all: &[
            "UNION ALL",
            "UNION DISTINCT",
            "EXCEPT DISTINCT",
            "INTERSECT DISTINCT",
            "LEFT UNION ALL BY NAME",
            "FULL OUTER UNION ALL BY NAME",
            "INNER UNION ALL BY NAME",
            "LEFT EXCEPT DISTINCT BY NAME",
            "FULL UNION ALL CORRESPONDING",
        ],
    },
    Kind {
        letter: 'J',
        shortest: ", hr.salaries",
        all: &[
            ", T",
            "CROSS JOIN T",
            "JOIN T ON E",
            "LEFT JOIN T ON E",
            "FULL OUTER JOIN T USING (a)",
            "INNER JOIN T ON TRUE",
            "TABLESAMPLE SYSTEM (1 PERCENT)",
            "HASH JOIN T ON E",
            "K JOIN T ON E",
            "JOIN @5 T ON E",
            "K, hr.salaries",
            "PIVOT (SUM(E) FOR a IN (1)) AS hr",
            "UNPIVOT (a FOR b IN (c)) AS hr, T",
        ],
    },
    Kind {
        letter: 'P',
        shortest: "|> DISTINCT",
        all: &[
            "|> DISTINCT",
            "|> WINDOW SUM(a) OVER () AS K",
            "|> WHERE E",
            "|> SELECT E AS x",
            "|> EXTEND E AS `K`",
            "|> AGGREGATE COUNT(*) GROUP AND ORDER BY a",
            "|> UNION ALL (Q)",
            "|> LEFT UNION ALL BY NAME (Q), (Q)",
            "|> CROSS JOIN T",
            "|> LEFT JOIN T ON E",
            "|> AS hr",
        ],
    },
    Kind {
        letter: 'K',
        shortest: "left",
        all: &[
            "left",
            "full",
            "inner",
            "outer",
            "union",
            "except",
            "intersect",
            "on",
            "with",
            "where",
            "limit",
            "select",
            "from",
            "group",
            "order",
            "pivot",
            "unpivot",
            "window",
            "tablesample",
            "qualify",
            "using",
            "join",
            "cross",
            "for",
            "as",
            "distinct",
            "all",
            "having",
            "case",
            "safe",
            "struct",
            "array",
            "by",
        ],
    },
];

fn grown(chance: &mut Chance, part: &str, depth: usize) -> String {
    let mut text = String::with_capacity(part.len());
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut before = None;
    let mut chars = part.chars().peekable();
    while let Some(c) = chars.next() {
        let is_alone = !is_word(before) && !is_word(chars.peek().copied());
        before = Some(c);
        match KINDS.iter().find(|kind| is_alone && kind.letter == c) {
            Some(kind) if depth > DEPTH_MAX => text.push_str(kind.shortest),
            Some(kind) => {
                let part = chance.of(kind.all);
                text.push_str(&grown(chance, part, depth + 1));
            }
            None => text.push(c),
        }
    }
    text
}

#[test]
fn no_text_that_is_grown_makes_the_product_laxer_than_zetasql() {
    let texts = number("ORACLE_TEXTS", TEXTS);
    let mut chance = Chance::new("ORACLE_SEED", SEED);
    let mut oracle = Oracle::start();
    let (mut failures, mut let_on) = (String::new(), 0_u64);
    for _ in 0..texts {
        let sql = grown(&mut chance, "Q", 0);
        let query = json!({"query": sql, "useLegacySql": false});
        let body = json!({"configuration": {"query": query}});
        if sql.len() > BYTES_MAX || product::deeds(&body, Window::Reads).0 != Reading::LetOn {
            continue;
        }
        let answer = oracle.ask(&sql, None, Window::Reads, false);
        let_on += u64::from(answer.error.is_none());
        let outside = answer.outside(None, Window::Reads);
        if !outside.is_empty() {
            let _ = writeln!(failures, "{sql:?}\n    {outside:?}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(
        let_on * LET_ON_MIN >= texts,
        "{let_on} of {texts} are let on"
    );
}
