//! What the text of a query names besides tables: routines it calls, schema views it reads, functions that reach past BigQuery's tables.
//!
//! BigQuery's dry run is the authority on tables; it is not known to name everything else. So the text is read as well, as a flat list of
//! tokens, which nothing can nest too deep for. Where a text can be read in two ways it is refused.

use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, Scope};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::relations::TOKENS_MAX;

/// Functions that read what no dry run vouches for.
const REFUSED: [&str; 7] = [
    "EXTERNAL_QUERY",
    "EXTERNAL_OBJECT_TRANSFORM",
    "VECTOR_SEARCH",
    "APPENDS",
    "CHANGES",
    "GRAPH_TABLE",
    "GRAPH_EXPAND",
];
/// The built-in functions whose names have two parts. `ML`, `AI` and `OBJ` are not among the first: those reach for models and connections.
const NAMESPACES: [(&str, &[&str]); 5] = [
    (
        "NET",
        &[
            "HOST",
            "IP_FROM_STRING",
            "IP_NET_MASK",
            "IP_TO_STRING",
            "IP_TRUNC",
            "IPV4_FROM_INT64",
            "IPV4_TO_INT64",
            "PUBLIC_SUFFIX",
            "REG_DOMAIN",
            "SAFE_IP_FROM_STRING",
        ],
    ),
    ("HLL_COUNT", &["EXTRACT", "INIT", "MERGE", "MERGE_PARTIAL"]),
    (
        "KLL_QUANTILES",
        &[
            "EXTRACT_INT64",
            "EXTRACT_FLOAT64",
            "EXTRACT_POINT_INT64",
            "EXTRACT_POINT_FLOAT64",
            "INIT_INT64",
            "INIT_FLOAT64",
            "MERGE_INT64",
            "MERGE_FLOAT64",
            "MERGE_PARTIAL",
            "MERGE_POINT_INT64",
            "MERGE_POINT_FLOAT64",
        ],
    ),
    (
        "KEYS",
        &[
            "ADD_KEY_FROM_RAW_BYTES",
            "KEYSET_CHAIN",
            "KEYSET_FROM_JSON",
            "KEYSET_LENGTH",
            "KEYSET_TO_JSON",
            "NEW_KEYSET",
            "NEW_WRAPPED_KEYSET",
            "REWRAP_KEYSET",
            "ROTATE_KEYSET",
            "ROTATE_WRAPPED_KEYSET",
        ],
    ),
    ("AEAD", &["DECRYPT_BYTES", "DECRYPT_STRING", "ENCRYPT"]),
];
const SCHEMA: &str = "INFORMATION_SCHEMA";

/// A name of several parts.
type Name = Vec<String>;

/// What a text names besides tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Functions that are called by dataset and name.
    routines: Vec<Name>,
    /// Views of `INFORMATION_SCHEMA`.
    schemas: Vec<Name>,
    /// How many tokens the text has, blanks and comments aside.
    pub tokens: usize,
}

/// Reads a text.
///
/// # Errors
/// [`Code::NotVouched`], naming the function that reaches too far, or what cannot be read in one way only.
pub fn read(sql: &str) -> Result<Named, Refusal> {
    if may_end_elsewhere(sql) {
        return Err(not_vouched(
            "A raw or bytes string and a backslash before a quote stand in one text, or a carriage return stands alone: it can be read in two ways".to_owned(),
        ));
    }
    let tokens = Tokenizer::new(&BigQueryDialect, sql)
        .tokenize()
        .map_err(|error| not_vouched(format!("The query cannot be read: {error}")))?;
    if let Some(sign) = tokens.iter().find_map(foreign) {
        return Err(not_vouched(format!(
            "{sign} stands outside of strings, where it can be read in two ways"
        )));
    }
    let is_blank = |token: &&Token| matches!(token, Token::Whitespace(_));
    let mut named = Named {
        routines: Vec::new(),
        schemas: Vec::new(),
        tokens: tokens.iter().filter(|token| !is_blank(token)).count(),
    };
    if named.tokens > TOKENS_MAX {
        return Err(not_vouched(format!(
            "The query is longer than the {TOKENS_MAX} words and signs that are read"
        )));
    }
    let mut rest = tokens.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        if matches!(first, Token::Word(_)) {
            let (name, behind) = name(rest)?;
            named.add(name, is_called(behind))?;
            rest = behind;
        } else {
            rest = behind;
        }
    }
    Ok(named)
}

fn is_built_in(space: &str, function: &str) -> bool {
    NAMESPACES.iter().any(|(known, functions)| {
        known.eq_ignore_ascii_case(space)
            && functions
                .iter()
                .any(|known| known.eq_ignore_ascii_case(function))
    })
}

/// What is no sign of SQL: BigQuery may take it for a blank, and the tokenizer for something else.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the tokenizer's kinds of tokens, of which two are looked at"
)]
fn foreign(token: &Token) -> Option<String> {
    match token {
        Token::Char(sign) => Some(format!("{sign:?}")),
        Token::Word(word) if word.quote_style.is_none() && !word.value.is_ascii() => {
            Some(format!("{:?}", word.value))
        }
        _ => None,
    }
}

/// Whether a string or a comment may end elsewhere than it is read to end. BigQuery does not end a raw string at a quote behind a backslash,
/// the tokenizer does, and it takes no bytes string for one with escapes; a comment ends at a carriage return for BigQuery alone.
fn may_end_elsewhere(sql: &str) -> bool {
    let mut rest = sql;
    while let Some((_, behind)) = rest.split_once('\r') {
        if !behind.starts_with('\n') {
            return true;
        }
        rest = behind;
    }
    let bytes = sql.as_bytes();
    let is_quote = |byte: u8| byte == b'\'' || byte == b'"';
    let mut pairs = bytes.windows(2);
    // `r'`, `b"`, `br'`, `rb"`: a word that ends so, as `over'`, is taken for one too.
    let has_raw = bytes
        .windows(2)
        .any(|pair| matches!(pair[0], b'r' | b'R' | b'b' | b'B') && is_quote(pair[1]));
    has_raw && pairs.any(|pair| pair[0] == b'\\' && is_quote(pair[1]))
}

impl Named {
    fn add(&mut self, name: Name, is_called: bool) -> Result<(), Refusal> {
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        if let Some(function) = name.last().filter(|_| is_called) {
            // `a-F` may be a difference: then `F` is what is called.
            let called = function.rsplit('-').next().unwrap_or(function);
            if REFUSED.iter().any(|refused| is(called, refused)) {
                return Err(not_vouched(format!(
                    "{function} reads what BigQuery's dry run does not vouch for"
                )));
            }
            let is_built_in = match name.as_slice() {
                [_] => true,
                // Before a function of one part `SAFE` is no dataset.
                [space, function] => is(space, "SAFE") || is_built_in(space, function),
                [safe, space, function] => is(safe, "SAFE") && is_built_in(space, function),
                _ => false,
            };
            if !is_built_in {
                self.routines.push(name.clone());
            }
        }
        if name.iter().any(|part| is(part, SCHEMA)) {
            self.schemas.push(name);
        }
        Ok(())
    }

    /// Judges what is named against a scope; `project` is where names without one are looked for, `outside` says that something is not in
    /// the scope.
    ///
    /// # Errors
    /// [`Code::NotVouched`], or what `outside` makes.
    pub fn within(
        &self,
        scope: &Scope,
        project: &str,
        outside: impl Fn(&str) -> Refusal,
    ) -> Result<(), Refusal> {
        let covered = |dataset: Option<DatasetRef>, what: &str| match dataset {
            Some(dataset) if scope.covers(&dataset) => Ok(()),
            Some(_) | None => Err(outside(what)),
        };
        for name in &self.routines {
            let whole = name.join(".");
            let dataset = match name.as_slice() {
                [dataset, _] => DatasetRef::new(project, dataset),
                [project, dataset, _] => DatasetRef::new(project, dataset),
                _ => return Err(not_vouched(format!("{whole} is no routine's name"))),
            };
            covered(dataset.ok(), &format!("routine {whole}"))?;
        }
        for name in &self.schemas {
            let at = name
                .iter()
                .position(|part| part.eq_ignore_ascii_case(SCHEMA));
            let dataset = match name.get(..at.unwrap_or(0)).unwrap_or_default() {
                [dataset] => DatasetRef::new(project, dataset).ok(),
                [project, dataset] => DatasetRef::new(project, dataset).ok(),
                // Without a dataset it tells of the whole project.
                _ => None,
            };
            covered(dataset, &name.join("."))?;
        }
        Ok(())
    }
}

/// The name that begins here, and what follows it. Blanks and comments may stand around its dots; a project may have hyphens.
fn name(tokens: &[Token]) -> Result<(Name, &[Token]), Refusal> {
    let mut parts: Name = Vec::new();
    let mut rest = tokens;
    while let [Token::Word(word), behind @ ..] = rest {
        if word.quote_style.is_some() && word.value.contains('\\') {
            return Err(not_vouched(format!(
                "`{}` is a quoted name with an escape in it",
                word.value
            )));
        }
        let (part, has_dot, behind) = dashed(word.value.clone(), behind);
        rest = behind;
        // Quoted, a name of several parts may be one word.
        parts.extend(part.split('.').map(str::to_owned));
        if has_dot {
            continue;
        }
        match skip_blanks(rest) {
            [Token::Period, behind @ ..] => match skip_blanks(behind) {
                more @ [Token::Word(_), ..] => rest = more,
                _ => break,
            },
            _ => break,
        }
    }
    Ok((parts, rest))
}

/// A part of a name with the hyphens and digits that may follow, and whether a dot ends it. `my-project.d.f` and `project-12.d.f` are one
/// name, and `a-b.c` might be: it is taken for the longer one, which is refused sooner. What looks like a number may have swallowed the dot.
fn dashed(mut part: String, tokens: &[Token]) -> (String, bool, &[Token]) {
    let mut rest = tokens;
    while let [Token::Minus, Token::Word(_) | Token::Number(..), ..] = rest {
        part.push('-');
        rest = &rest[1..];
        loop {
            match rest {
                [Token::Word(more), behind @ ..] => {
                    part.push_str(&more.value);
                    rest = behind;
                }
                [Token::Number(more, _), behind @ ..] => {
                    part.push_str(more);
                    rest = behind;
                    if part.ends_with('.') && matches!(behind, [Token::Word(_), ..]) {
                        part.pop();
                        return (part, true, rest);
                    }
                }
                _ => break,
            }
        }
    }
    (part, false, rest)
}

/// Whether what precedes `rest` is called: `f(`, or `(x).(f)(` in a chain.
fn is_called(rest: &[Token]) -> bool {
    match skip_blanks(rest) {
        [Token::LParen, ..] => true,
        [Token::RParen, behind @ ..] => matches!(skip_blanks(behind), [Token::LParen, ..]),
        _ => false,
    }
}

fn skip_blanks(mut tokens: &[Token]) -> &[Token] {
    while let [Token::Whitespace(_), behind @ ..] = tokens {
        tokens = behind;
    }
    tokens
}

fn not_vouched(what: String) -> Refusal {
    Refusal::new(Code::NotVouched, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(sql: &str) -> Result<(), Code> {
        let scope: Scope = "my-proj.finance:read".parse().expect("a scope");
        let outside = |what: &str| Refusal::new(Code::ScopeOutside, what);
        read(sql)
            .and_then(|named| named.within(&scope, "my-proj", outside))
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn plain_queries_and_built_in_functions_pass() {
        for sql in [
            "SELECT COUNT(*), SUM(t.amount) FROM finance.daily t WHERE NOT (a.b) IN (1, 2)",
            "SELECT NET.HOST(url), SAFE.SUBSTR(a, 1), SAFE . NET . REG_DOMAIN (x) FROM finance.daily",
            "SELECT HLL_COUNT.MERGE(s), 'hr.udf(1)', \"EXTERNAL_QUERY('c', 'q')\" -- hr.udf(1)\nFROM finance.daily",
            "SELECT finance.own(1), `my-proj.finance.own`(1), my-proj.finance.own(2)",
            "SELECT * FROM finance.INFORMATION_SCHEMA.TABLES, `my-proj`.finance.INFORMATION_SCHEMA.COLUMNS",
            "WITH c AS (SELECT 1 AS x) SELECT c.x FROM c, UNNEST(GENERATE_ARRAY(1, 3))",
            "SELECT a-1, t.b-1.5, COUNT(*)-COUNT(x) FROM finance.daily t WHERE REGEXP_CONTAINS(a, r'\\d+')",
            "SELECT 'it\\'s', \"say \\\"so\\\"\" FROM finance.daily",
        ] {
            assert_eq!(judged(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn routines_of_other_datasets_are_outside_however_they_are_written() {
        for sql in [
            "SELECT hr.secret(id) FROM finance.daily",
            "SELECT hr . /* x */ secret -- y\n (id) FROM finance.daily",
            "SELECT `hr.secret`(1)",
            "SELECT `hr`.`secret`(1)",
            "SELECT my-proj.hr.secret(1)",
            "SELECT evil-my-proj.finance.f(1)",
            "SELECT other.finance.f(1)",
            "SELECT evil-1234.finance.f(1)",
            "SELECT evil-12ab.finance.f(1)",
            "SELECT evil-12-ab-3.finance.f(1)",
            "SELECT t.* FROM finance.daily, evil-1234.finance.INFORMATION_SCHEMA.TABLES t",
            "SELECT (id).(hr.secret)() FROM finance.daily",
            "SELECT * FROM hr.table_function(1)",
            "SELECT * FROM ML.PREDICT(MODEL hr.m, TABLE finance.daily)",
            "SELECT AI.GENERATE('x')",
            "SELECT KEYS.secret(1), net.secret(1)",
            "SELECT hr.secret\u{a0}(1) FROM finance.daily",
        ] {
            assert_eq!(judged(sql), Err(Code::ScopeOutside), "{sql}");
        }
    }

    #[test]
    fn what_tells_of_a_whole_project_is_outside() {
        for sql in [
            "SELECT * FROM finance.daily, `region-us`.INFORMATION_SCHEMA.TABLES",
            "SELECT * FROM region-us.INFORMATION_SCHEMA.JOBS",
            "SELECT * FROM INFORMATION_SCHEMA.SCHEMATA",
            "SELECT * FROM `my-proj.region-us.INFORMATION_SCHEMA.TABLES`",
            "SELECT * FROM hr.information_schema.COLUMNS",
        ] {
            assert_eq!(judged(sql), Err(Code::ScopeOutside), "{sql}");
        }
    }

    #[test]
    fn what_no_dry_run_vouches_for_is_refused() {
        for sql in [
            "SELECT * FROM finance.daily, EXTERNAL_QUERY('p.us.c', 'SELECT 1')",
            "SELECT * FROM external_query ('p.us.c', 'SELECT 1')",
            "SELECT * FROM VECTOR_SEARCH(TABLE hr.t, 'x', TABLE hr.u)",
            "SELECT `\\u0068r`.secret(1)",
            "SELECT 'not ended",
            r#"SELECT r'\' , ' AS a, e.* FROM finance.daily d, EXTERNAL_QUERY("p.us.c","SELECT 1") e WHERE r'\' , ' IS NOT NULL"#,
            r#"SELECT rb"\" , hr.secret(1) , rb"\" , ""#,
            "SELECT x FROM f WHERE a-EXTERNAL_QUERY('c', 'q')",
            "SELECT 1 AS a -- \r, hr.secret(1) AS x FROM finance.daily",
            "SELECT 1 # \r UNION ALL SELECT 2",
            r#"SELECT b'\' , ' , e.* FROM finance.daily d, EXTERNAL_QUERY("c", "q") e -- ' AS y FROM finance.daily"#,
            "SELECT hr.s\u{435}cret(1) FROM finance.daily",
        ] {
            assert_eq!(judged(sql), Err(Code::NotVouched), "{sql}");
        }
    }

    #[test]
    fn the_deepest_texts_are_read_flat() {
        for part in [
            "(",
            "TRUE OR ",
            "SELECT 1 UNION ALL ",
            "f(",
            "[",
            "CASE WHEN ",
            "a.",
        ] {
            let sql = part.repeat(200_000 / part.len());
            let _ = read(&sql).map(|named| named.tokens);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(sql in any::<String>()) {
            let _ = judged(&sql);
        }

        #[test]
        fn blanks_and_comments_hide_no_call(blank in prop::sample::select(vec!["", " ", "\n", "/**/", "/* ( */", "-- x\n", "# y\n"]), dot in prop::sample::select(vec![".", " .", ". "]), quote in any::<bool>()) {
            let routine = if quote { "`secret`" } else { "secret" };
            let sql = format!("SELECT hr{dot}{routine}{blank}(1) FROM finance.daily");
            prop_assert_eq!(judged(&sql), Err(Code::ScopeOutside));
        }
    }
}
