//! What the text of a query names besides tables: routines it calls, schema views it reads, functions that reach past BigQuery's tables.
//!
//! BigQuery's dry run is the authority on tables; it is not known to name everything else. So the text is read as well, as a flat list of
//! tokens, which nothing can nest too deep for. Where a text can be read in two ways it is refused.

use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, Scope};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::functions;
use super::relations::TOKENS_MAX;

/// Functions that read what no dry run vouches for.
const REFUSED: [&str; 8] = [
    "EXTERNAL_QUERY",
    "EXTERNAL_OBJECT_TRANSFORM",
    // Asks Cloud KMS for the key that is named, whosever it is.
    "DLP_KEY_CHAIN",
    "VECTOR_SEARCH",
    "APPENDS",
    "CHANGES",
    "GRAPH_TABLE",
    "GRAPH_EXPAND",
];
/// The built-in functions whose names have two parts, by the first. Before a dot and a name that is called these first parts are BigQuery's
/// own, whatever datasets there are: what is not listed under one is refused, and never taken for a dataset's routine. Under some nothing is
/// listed: they reach for models, connections, objects in Cloud Storage, and other people's jobs. Nor are the functions of `KEYS` that ask
/// Cloud KMS.
const NAMESPACES: [(&str, &[&str]); 10] = [
    ("AI", &[]),
    ("ML", &[]),
    ("OBJ", &[]),
    (PROCEDURES, &[]),
    ("VECTOR_INDEX", &[]),
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
            "KEYSET_FROM_JSON",
            "KEYSET_LENGTH",
            "KEYSET_TO_JSON",
            "NEW_KEYSET",
            "ROTATE_KEYSET",
        ],
    ),
    ("AEAD", &["DECRYPT_BYTES", "DECRYPT_STRING", "ENCRYPT"]),
];
/// BigQuery's own procedures, of which some have three parts. No project has so short an id.
const PROCEDURES: &str = "BQ";
/// Before a function, of one part or two, it says what becomes of an error.
const SAFE: &str = "SAFE";
/// What a dataset, a region or a project tells of itself.
pub(super) const SCHEMA: &str = "INFORMATION_SCHEMA";

/// A name of several parts.
type Name = Vec<String>;

/// What a text names besides tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Functions that are called by dataset and name.
    routines: Vec<Name>,
    /// Views of `INFORMATION_SCHEMA`.
    schemas: Vec<Name>,
    /// The first function of one part that is none of BigQuery's own which are known to reach nothing.
    pub(super) unknown: Option<String>,
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
    let solid: Vec<&Token> = tokens.iter().filter(|token| !is_blank(token)).collect();
    if let Some(word) = two_kinds(&solid) {
        return Err(not_vouched(format!(
            "{word} stands outside of quotes, where it can be a keyword or a name: a name is written in backticks"
        )));
    }
    let mut named = Named {
        routines: Vec::new(),
        schemas: Vec::new(),
        unknown: None,
        tokens: solid.len(),
    };
    if named.tokens > TOKENS_MAX {
        return Err(not_vouched(format!(
            "The query is longer than the {TOKENS_MAX} words and signs that are read"
        )));
    }
    let mut rest = tokens.as_slice();
    let mut before = None;
    // What makes a table has its columns behind its name.
    let makes = solid
        .first()
        .is_some_and(|first| first.to_string().eq_ignore_ascii_case("CREATE"));
    while let Some((first, behind)) = rest.split_first() {
        let mut behind = behind;
        if matches!(first, Token::Word(_)) {
            let name;
            let is_whole;
            (name, is_whole, behind) = self::name(rest)?;
            let place = Place {
                is_called: is_called(behind),
                is_in_brackets: before == Some(&Token::LParen),
                is_table: before.is_some_and(|token| is_before_table(token, makes)),
                is_quoted: matches!(first, Token::Word(word) if word.quote_style.is_some()),
                is_whole,
            };
            named.add(name, place)?;
        }
        let (taken, _) = rest.split_at(rest.len() - behind.len());
        let last = taken.iter().rev().find(|token| !is_blank(token));
        before = last.or(before);
        rest = behind;
    }
    Ok(named)
}

/// Where a name stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Before a bracket, or before one that follows the end of another.
    is_called: Option<Bracket>,
    /// Behind the beginning of a bracket: so a function of several names stands in a chain.
    is_in_brackets: bool,
    /// Behind a word for a table, whose columns are in the bracket.
    is_table: bool,
    /// In backticks: no keyword then.
    is_quoted: bool,
    /// Each part is a word of its own: in one pair of backticks it is no function of BigQuery's own.
    is_whole: bool,
}

/// What is behind a name that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    /// The bracket with what it is given.
    Begins,
    /// The end of the one that it is in, and then that.
    EndsAndBegins,
}

impl Place {
    /// Whether a name of one part may be called here: `(a, b) (SELECT …)` calls nothing.
    const fn calls_one_part(self) -> bool {
        match self.is_called {
            Some(Bracket::Begins) => !self.is_table,
            Some(Bracket::EndsAndBegins) => self.is_in_brackets,
            None => false,
        }
    }
}

/// Whether a table's name stands behind this.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the tokenizer's kinds of tokens, of which one is looked at"
)]
fn is_before_table(token: &Token, makes: bool) -> bool {
    match token {
        Token::Word(word) => {
            word.quote_style.is_none() && functions::is_before_table(&word.value, makes)
        }
        _ => false,
    }
}

/// Whose a function is that is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Called {
    /// BigQuery's own, and it reaches nothing.
    BuiltIn,
    /// BigQuery's own, and it is not known that it reaches nothing.
    Reaching,
    /// Of one part, and none of BigQuery's own that are known: it may be a new one, or a routine of the default dataset.
    Unknown,
    /// A dataset's.
    Routine,
}

impl Called {
    fn of(name: &[String], place: Place) -> Self {
        let is_safe = |part: &str| part.eq_ignore_ascii_case(SAFE);
        let is_quoted = place.is_quoted;
        match name {
            // Somebody's dataset may be named like words of BigQuery's own, and the other way round.
            [space, ..] if !place.is_whole && is_own_word(space) => Self::Reaching,
            // Before a function of one part `SAFE` is no dataset.
            [function] => Self::of_one_part(function, is_quoted),
            [space, function] if is_safe(space) => Self::of_one_part(function, is_quoted),
            [space, function] => Self::under(space, function),
            [safe, space, function] if is_safe(own_part(safe)) => Self::under(space, function),
            [first, ..] if own_part(first).eq_ignore_ascii_case(PROCEDURES) => Self::Reaching,
            _ => Self::Routine,
        }
    }

    fn of_one_part(function: &str, is_quoted: bool) -> Self {
        let function = own_part(function);
        let is_keyword = || !is_quoted && functions::is_keyword(function);
        if functions::reaches_nothing(function) || is_keyword() {
            Self::BuiltIn
        } else {
            Self::Unknown
        }
    }

    fn under(space: &str, function: &str) -> Self {
        let listed = NAMESPACES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(own_part(space)));
        let lists = |functions: &[&str]| {
            let mut functions = functions.iter();
            functions.any(|known| known.eq_ignore_ascii_case(function))
        };
        match listed {
            None => Self::Routine,
            // What stands before a minus may be a column: it is no name that is listed.
            Some((known, functions)) if known.len() == space.len() && lists(functions) => {
                Self::BuiltIn
            }
            Some(_) => Self::Reaching,
        }
    }
}

/// Whether functions of BigQuery's own have this word before a dot.
fn is_own_word(space: &str) -> bool {
    let is = |known: &str| known.eq_ignore_ascii_case(space);
    is(SAFE) || NAMESPACES.iter().any(|(known, _)| is(known))
}

/// What a part with hyphens ends with: `a-F` may be a difference, and then `F` is what the name begins with.
fn own_part(part: &str) -> &str {
    part.rsplit('-').next().unwrap_or(part)
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

/// Keywords of other dialects, which the parser takes for part of a join, and BigQuery for a name.
const JOINING: [&str; 4] = ["ANTI", "ASOF", "GLOBAL", "SEMI"];
/// Ways to join, which BigQuery takes for no name before `JOIN`, and the parser does.
const WAYS_TO_JOIN: [&str; 2] = ["HASH", "LOOKUP"];

/// A word that is a keyword to the parser and a name to BigQuery, or the other way round, or a hint, which is a table to the parser.
fn two_kinds(tokens: &[&Token]) -> Option<String> {
    let mut before = None;
    for (at, token) in tokens.iter().enumerate() {
        let is_behind_dot = before.replace(*token) == Some(&Token::Period);
        let text = token.to_string();
        if let Some(hint) = text.strip_prefix('@')
            && hint.starts_with(|c: char| c.is_ascii_digit())
        {
            return Some(text);
        }
        let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        let is_before_join = tokens
            .get(at + 1)
            .is_some_and(|next| next.to_string().eq_ignore_ascii_case("JOIN"));
        if !is_behind_dot && (is(&JOINING) || (is(&WAYS_TO_JOIN) && is_before_join)) {
            return Some(text);
        }
    }
    None
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
    fn add(&mut self, name: Name, place: Place) -> Result<(), Refusal> {
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        if let Some(function) = name.last().filter(|_| place.is_called.is_some()) {
            let reaches = |what: &str| {
                not_vouched(format!(
                    "{what} reads what BigQuery's dry run does not vouch for"
                ))
            };
            if REFUSED
                .iter()
                .any(|refused| is(own_part(function), refused))
            {
                return Err(reaches(function));
            }
            match Called::of(&name, place) {
                Called::BuiltIn => {}
                Called::Reaching => return Err(reaches(&name.join("."))),
                Called::Unknown => {
                    if place.calls_one_part() && self.unknown.is_none() {
                        self.unknown = Some(name.join("."));
                    }
                }
                Called::Routine => self.routines.push(name.clone()),
            }
        }
        if name.iter().any(|part| is(part, SCHEMA)) {
            self.schemas.push(name);
        }
        Ok(())
    }

    /// Whether it calls nothing but functions that are known to reach nothing, and reads no schema views.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.routines.is_empty() && self.schemas.is_empty() && self.unknown.is_none()
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
        for (dataset, what) in self.reached(project)? {
            if !dataset.is_some_and(|dataset| scope.covers(&dataset)) {
                return Err(outside(&what));
            }
        }
        Ok(())
    }

    /// The datasets whose routines it calls, and those of whose schema views it reads.
    ///
    /// # Errors
    /// [`Code::NotVouched`] where one of them cannot be told: it is of a whole project, or of what is no dataset.
    pub fn datasets(&self, project: &str) -> Result<Vec<DatasetRef>, Refusal> {
        let reached = self.reached(project)?.into_iter();
        let each = reached.map(|(dataset, what)| {
            dataset.ok_or_else(|| not_vouched(format!("{what} is of no single dataset")))
        });
        each.collect()
    }

    /// What is named, by its dataset where it is in one.
    fn reached(&self, project: &str) -> Result<Vec<(Option<DatasetRef>, String)>, Refusal> {
        let mut reached = Vec::new();
        for name in &self.routines {
            let whole = name.join(".");
            let dataset = match name.as_slice() {
                [dataset, _] => DatasetRef::new(project, dataset),
                [project, dataset, _] => DatasetRef::new(project, dataset),
                _ => return Err(not_vouched(format!("{whole} is no routine's name"))),
            };
            reached.push((dataset.ok(), format!("routine {whole}")));
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
            reached.push((dataset, name.join(".")));
        }
        Ok(reached)
    }
}

/// The name that begins here, whether each of its parts is a word of its own, and what follows it. Blanks and comments may stand around its dots; a
/// project may have hyphens, and behind a dot a part may begin with a digit.
fn name(tokens: &[Token]) -> Result<(Name, bool, &[Token]), Refusal> {
    let mut parts: Name = Vec::new();
    let mut is_whole = true;
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
        is_whole &= !part.contains('.');
        parts.extend(part.split('.').map(str::to_owned));
        if has_dot {
            continue;
        }
        let has_more;
        (has_more, rest) = numbered(&mut parts, rest);
        if !has_more {
            break;
        }
    }
    Ok((with_domain(parts), is_whole, rest))
}

/// Takes in the parts that follow behind a dot and begin with a digit, which the tokenizer takes for numbers. Says whether a word follows behind a dot.
fn numbered<'t>(parts: &mut Name, tokens: &'t [Token]) -> (bool, &'t [Token]) {
    let mut rest = tokens;
    loop {
        let behind = match skip_blanks(rest) {
            [Token::Period, behind @ ..] => skip_blanks(behind),
            // The dot is in it.
            behind @ [Token::Number(number, _), ..] if number.starts_with('.') => behind,
            _ => return (false, rest),
        };
        let [Token::Number(..), ..] = behind else {
            let has_more = matches!(behind, [Token::Word(_), ..]);
            return (has_more, if has_more { behind } else { rest });
        };
        let mut text = String::new();
        rest = behind;
        loop {
            match rest {
                [Token::Number(more, _), behind @ ..] => {
                    text.push_str(more);
                    rest = behind;
                }
                // A word behind a dot that a number has swallowed is a part of its own.
                [Token::Word(more), behind @ ..] if !text.ends_with('.') => {
                    text.push_str(&more.value);
                    rest = behind;
                }
                _ => break,
            }
        }
        let ends_with_dot = text.ends_with('.');
        let named = text.trim_matches('.').split('.');
        parts.extend(named.map(str::to_owned));
        if ends_with_dot {
            let rest = skip_blanks(rest);
            return (matches!(rest, [Token::Word(_), ..]), rest);
        }
    }
}

/// The parts of a name that was split at each dot, where its project may be one of a domain (`example.com:project`), which has dots of its own.
/// It is only read so where a dataset and more follow: shorter, it is no such name, and stays in pieces that are nobody's.
pub(super) fn with_domain(parts: Name) -> Name {
    let colon = parts.iter().position(|part| part.contains(':'));
    match colon {
        Some(at) if at + 2 < parts.len() => {
            let (project, rest) = parts.split_at(at + 1);
            let mut whole = vec![project.join(".")];
            whole.extend_from_slice(rest);
            whole
        }
        Some(_) | None => parts,
    }
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
fn is_called(rest: &[Token]) -> Option<Bracket> {
    match skip_blanks(rest) {
        [Token::LParen, ..] => Some(Bracket::Begins),
        [Token::RParen, behind @ ..] => {
            matches!(skip_blanks(behind), [Token::LParen, ..]).then_some(Bracket::EndsAndBegins)
        }
        _ => None,
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
    fn words_that_are_keywords_to_one_reader_alone_are_refused_outside_of_quotes() {
        for sql in [
            "SELECT 1 FROM (SELECT 1) JOIN @5 `hr.salaries` ON TRUE",
            "WITH hr AS (SELECT 1) SELECT 1 FROM hr global, hr.salaries",
            "SELECT 1 FROM a Semi JOIN b ON TRUE",
            "SELECT 1 FROM a ANTI JOIN b ON TRUE",
            "SELECT 1 FROM a ASOF JOIN b ON TRUE",
            "SELECT 1 FROM finance.daily HASH /* x */ JOIN `hash`.salaries ON TRUE",
            "SELECT 1 FROM finance.daily lookup JOIN b ON TRUE",
        ] {
            let refused = read(sql).expect_err(sql);
            assert!(
                refused.code == Code::NotVouched && refused.what.contains("backticks"),
                "{sql}"
            );
        }
        for sql in [
            "SELECT hash, d.global, `semi`, lookup FROM finance.daily AS d JOIN b ON TRUE",
            "SELECT @five, 'global' FROM finance.daily WHERE x = @p5",
        ] {
            assert!(read(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn plain_queries_and_built_in_functions_pass() {
        for sql in [
            "SELECT COUNT(*), SUM(t.amount) FROM finance.daily t WHERE NOT (a.b) IN (1, 2)",
            "SELECT NET.HOST(url), SAFE.SUBSTR(a, 1), SAFE . NET . REG_DOMAIN (x) FROM finance.daily",
            "SELECT HLL_COUNT.MERGE(s), 'hr.udf(1)', \"EXTERNAL_QUERY('c', 'q')\" -- hr.udf(1)\nFROM finance.daily",
            "SELECT finance.own(1), `my-proj.finance.own`(1), my-proj.finance.own(2)",
            "SELECT finance.1(1), finance . 2a (2), .5, 1.5 FROM finance.2024_sales WHERE x>.5",
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
            "SELECT hr.1(1), hr . 1(1)",
            "SELECT hr.1st(1) FROM finance.daily",
            "SELECT other.1.f(1), hr. 1a2(1)",
            "SELECT hr.secret\u{a0}(1) FROM finance.daily",
            // Of three parts it is a project's.
            "SELECT `other`.ai.generate(1)",
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
    fn functions_that_reach_elsewhere_are_refused_whatever_datasets_the_scope_has() {
        let scope: Scope = "my-proj.ai:read,my-proj.ml:read,my-proj.obj:read,my-proj.net:read,my-proj.keys:read,my-proj.bq:read,my-proj.vector_index:read,a-safe.ai:read"
            .parse()
            .expect("a scope");
        let outside = |what: &str| Refusal::new(Code::ScopeOutside, what);
        let judged = |sql: &str| {
            let read = read(sql).and_then(|named| named.within(&scope, "my-proj", outside));
            read.map_err(|refusal| refusal.code)
        };
        for sql in [
            "SELECT ai.generate('all', connection_id => 'us.conn').result",
            "SELECT AI.GENERATE(name) FROM ai.people",
            "SELECT obj.get_access_url(obj.make_ref('gs://elsewhere/secret', 'us.conn'), 'rw')",
            "SELECT `ai`.`generate`('x'), 1",
            "SELECT `ai.generate`('x')",
            "SELECT Ai /* x */ . -- y\n generate ('x')",
            "SELECT SAFE.ai.generate('x')",
            "SELECT safe.`Obj`.make_ref('gs://x/y', 'us.c')",
            "SELECT ('x').(ai.generate)()",
            "SELECT 1-SAFE.ai.generate('x')",
            "SELECT a-SAFE.ai.generate('x') FROM ai.t",
            "SELECT a-ai.generate('x') FROM ai.t",
            "SELECT * FROM ml.predict(MODEL hr.m, TABLE hr.salaries)",
            "SELECT KEYS.KEYSET_CHAIN('gcp-kms://projects/theirs', b'k')",
            "SELECT keys.new_wrapped_keyset('gcp-kms://projects/theirs', 'AEAD_AES_GCM_256')",
            "SELECT DLP_KEY_CHAIN('gcp-kms://projects/theirs', b'k')",
            "SELECT KEYS.secret(1)",
            "SELECT net.secret(1)",
            "SELECT * FROM VECTOR_INDEX.STATISTICS(TABLE hr.t)",
            "SELECT `net.host`('x'), 1",
            "SELECT `safe.lower`('x')",
            "SELECT `hll_count.merge`(s) FROM finance.daily",
            "CALL BQ.JOBS.CANCEL('p.j')",
            "CALL bq.abort_session('s')",
        ] {
            assert_eq!(judged(sql), Err(Code::NotVouched), "{sql}");
        }
        // By its project a dataset's routine is told from them.
        for sql in [
            "SELECT my-proj.ai.own(1), `my-proj.obj`.own(1), `my-proj`.ml.own(1)",
            "SELECT NET.HOST(x), SAFE.net.reg_domain(x), KEYS.KEYSET_LENGTH(k) FROM ai.people",
            "SELECT generate, ai.generate, ai.t.obj FROM ai.t",
        ] {
            assert_eq!(judged(sql), Ok(()), "{sql}");
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
