//! BigQuery's own functions of one name that reach nothing but what they are given, as data. What is not here is not called: a function that
//! nobody has looked at may read objects in Cloud Storage, ask a model, or be somebody's own. Decides nothing.

use std::collections::HashSet;
use std::sync::LazyLock;

/// By name. They are GoogleSQL's own (an oracle's test holds that all of its are here or are left out by name), and those that BigQuery
/// adds by its documentation. `ST_REGIONSTATS` reads rasters wherever they lie, and is not among them.
static FUNCTIONS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("functions.txt").split_whitespace().collect());
/// Words before a bracket that call nothing: keywords, and types with a size.
const KEYWORDS: &str = "AGGREGATE ALL AND ANY ARRAY AS ASSERT BETWEEN BIGDECIMAL BIGNUMERIC BY BYTES CASE CAST CHECK COLUMNS CORRESPONDING CUBE DECIMAL DEFAULT \
    DISTINCT ELSE ESCAPE EXCEPT EXISTS EXTEND EXTRACT FOR FROM GROUP HAVING IF IGNORE IN INSERT INTERSECT INTERVAL IS JOIN KEY LATERAL LIKE \
    LIMIT NAME NOT NULLS NUMERIC OF OFFSET ON OPTIONS OR ORDER ORDINAL OUTER OVER PARTITION PIVOT QUALIFY RANGE RENAME REPLACE ROLLUP SAFE_CAST \
    SAFE_OFFSET SAFE_ORDINAL SELECT SET SETS SOME STRING STRUCT SYSTEM THEN UNION UNNEST UNPIVOT UPDATE USING VALUES WEEK WHEN WHERE WINDOW WITH \
    ZONE";
/// Words behind which a table's name stands, before the bracket with its columns.
const BEFORE_TABLES: [&str; 3] = ["INSERT", "INTO", "REFERENCES"];
/// The same, in a statement that makes one: elsewhere a table function may stand behind the last.
const BEFORE_MADE: [&str; 2] = ["EXISTS", "TABLE"];

/// Whether a function of this name is BigQuery's own and reaches nothing.
pub(super) fn reaches_nothing(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    FUNCTIONS.contains(name.as_str())
}

/// Whether a word that is in no quotes is a keyword, and calls nothing.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .split_whitespace()
        .any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// Whether what stands behind this word, and before a bracket, is a table.
/// `makes` says that the statement makes one.
pub(super) fn is_before_table(word: &str, makes: bool) -> bool {
    let is_in = |words: &[&str]| words.iter().any(|before| before.eq_ignore_ascii_case(word));
    is_in(&BEFORE_TABLES) || (makes && is_in(&BEFORE_MADE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_taken_for_harmless() {
        for known in ["sum", "ST_Distance", "COUNT"] {
            assert!(reaches_nothing(known), "{known}");
        }
        for unknown in [
            "ST_REGIONSTATS",
            "LOAD_FILE",
            "HTTP_GET",
            "EXTERNAL_QUERY",
            "VECTOR_SEARCH",
            "f",
            "",
        ] {
            assert!(!reaches_nothing(unknown), "{unknown}");
        }
    }
}
