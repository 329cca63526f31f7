//! Which tables a text names, as far as that can be told without BigQuery: enough to know whether its words may be passed on, and whether a
//! text names none. Never the ground for letting a query through: that is the dry run.

mod factor;
mod found;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use enforcer_proto::bucket::BucketRef;
use enforcer_proto::scope::{DatasetRef, Scope, ScopeError, TableRef};
use sqlparser::ast::Statement;
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Tokenizer;

use super::job::DefaultDataset;
use super::respell::respell;
use super::target::{Deed, deed};
use super::text::{self, SCHEMA};
use super::unread::Unread;
use super::words;
use found::{Found, parts};

/// The longest text that is parsed, tokens: what a parser nests takes stack, one level for every two tokens at most. A longer one is refused.
pub const TOKENS_MAX: usize = 20_000;
/// The longest text whose parsing fits the stack of any thread, tokens.
const TOKENS_ANYWHERE_MAX: usize = 2000;
/// The stack for the longest text, bytes; what of it is not used takes no memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// What a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relations {
    /// It is one query over no table.
    None,
    /// Only tables of the scope's datasets.
    Within,
    /// This table, which is in none of them.
    Outside(String),
    /// That could not be told, and why: BigQuery is not asked about the text.
    Unknown(Unread),
}

/// What a text says of tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Those it names, whatever for.
    pub relations: Relations,
    /// Those it names to be read: BigQuery's dry run must list each. What cannot be listed there is a text.
    pub named: Vec<Result<TableRef, String>>,
    /// The routines it calls by a name with a dataset, whose dry run must list each.
    pub called: Vec<Result<TableRef, String>>,
    /// The one it writes, where it is a statement that writes one.
    pub target: Option<TableRef>,
    /// The bucket that its result goes to, where it is an export.
    pub export: Option<BucketRef>,
    /// Whether it names tables besides that one, or may.
    pub reads: bool,
    /// The rows that it gives names to, wherever, in lower case: what a table is not found for may have been meant as a path into one.
    pub rows: BTreeSet<String>,
    /// Whether something in it may be a path into a column or the name of a table, which is only told by whether there is one. What BigQuery says of
    /// it would tell that, so none of that is passed on.
    pub may_name_more: bool,
}

impl Reading {
    /// Nothing that could be told.
    const fn unknown(why: Unread) -> Self {
        Self {
            relations: Relations::Unknown(why),
            named: Vec::new(),
            called: Vec::new(),
            target: None,
            export: None,
            reads: true,
            rows: BTreeSet::new(),
            may_name_more: false,
        }
    }

    /// A table's name, with what to write instead where it may have been meant as a path into a row: not every such path is told from a
    /// table here, and one that is not is taken for a table.
    #[must_use]
    pub fn shown(&self, table: &str) -> String {
        let shown = words::cut(table);
        let parts: Vec<&str> = table.split('.').collect();
        let is_row = |part: &str| self.rows.contains(&part.to_ascii_lowercase());
        // What was written with two parts is shown with its project.
        let path = match parts.as_slice() {
            [_, row, rest @ ..] if is_row(row) && !rest.is_empty() => &parts[1..],
            [row, _, ..] if is_row(row) => &parts[..],
            [..] => return shown,
        };
        let (row, path) = (words::cut(path[0]), words::cut(&path.join(".")));
        format!("{shown} (an array of the row {row} is read by UNNEST({path}))")
    }

    /// As [`Reading::of`], on a thread with room for it where the text is long.
    pub async fn with_room(
        sql: &str,
        tokens: usize,
        scope: &Scope,
        project: &str,
        default: Option<&DefaultDataset>,
    ) -> Self {
        let (sql, scope, project) = (sql.to_owned(), scope.clone(), project.to_owned());
        let default = default.cloned();
        let read = with_room(tokens, move || {
            Self::of(&sql, tokens, &scope, &project, default.as_ref())
        });
        read.await.unwrap_or(Self::unknown(Unread::Hidden))
    }

    /// Reads a text of so many tokens. Names without a project are looked for in `project`, those without a dataset in `default`.
    #[must_use]
    pub fn of(
        sql: &str,
        tokens: usize,
        scope: &Scope,
        project: &str,
        default: Option<&DefaultDataset>,
    ) -> Self {
        if tokens > TOKENS_MAX {
            return Self::unknown(Unread::Hidden);
        }
        let reading = Self::of_statement(sql, scope, Names { project, default });
        match &reading.relations {
            Relations::Within | Relations::None => reading.of_known_functions(sql),
            // What is outside is said first.
            Relations::Outside(_) | Relations::Unknown(_) => reading,
        }
    }

    /// The same, where all functions of one part that the text calls are known.
    fn of_known_functions(self, sql: &str) -> Self {
        match text::read(sql).map(|named| named.unknown) {
            Ok(None) => self,
            Ok(Some(function)) => Self::unknown(Unread::Function(function)),
            Err(_) => Self::unknown(Unread::Hidden),
        }
    }

    fn of_statement(sql: &str, scope: &Scope, names: Names<'_>) -> Self {
        let statements = match parse(sql) {
            Ok(statements) => statements,
            Err(error) => return Self::unknown(Unread::stopped(sql, &error)),
        };
        let [statement] = statements.as_slice() else {
            return Self::unknown(Unread::NotOne(statements.len()));
        };
        match deed(statement) {
            Some(Deed::Reads) => {
                let Some(found) = Found::in_query(statement) else {
                    return Self::unknown(Unread::Hidden);
                };
                let relations = names.judge(&found, scope);
                Self {
                    reads: !relations.is_none(),
                    relations,
                    named: names.named(&found, None),
                    called: names.called(&found),
                    target: None,
                    export: None,
                    may_name_more: found.may_name_more,
                    rows: found.named_rows,
                }
            }
            // What an escape makes of an address is not for two readers to tell.
            Some(Deed::Exports(_)) if sql.contains('\\') => Self::unknown(Unread::statement(sql)),
            Some(Deed::Exports(bucket)) => {
                let Some(found) = Found::in_query(statement) else {
                    return Self::unknown(Unread::Hidden);
                };
                let relations = names.judge(&found, scope);
                Self {
                    reads: !relations.is_none(),
                    relations,
                    named: names.named(&found, None),
                    called: names.called(&found),
                    target: None,
                    export: Some(bucket),
                    may_name_more: found.may_name_more,
                    rows: found.named_rows,
                }
            }
            Some(Deed::Writes(target)) => {
                let target = parts(target);
                let Some(mut found) = Found::in_change(statement) else {
                    return Self::unknown(Unread::Hidden);
                };
                let reads =
                    found.has_function || found.relations.iter().any(|name| *name != target);
                let written = names.table(&target);
                // A name with a dataset that is no table's names something within one.
                if written.is_none() && target.len() > 1 {
                    return Self::unknown(Unread::statement(sql));
                }
                let named = names.named(&found, written.as_ref());
                let called = names.called(&found);
                // The parser does not show the name of what is dropped.
                found.relations.push(target);
                Self {
                    relations: names.judge(&found, scope),
                    named,
                    called,
                    target: written,
                    export: None,
                    reads,
                    may_name_more: found.may_name_more,
                    rows: found.named_rows,
                }
            }
            None => Self::unknown(Unread::statement(sql)),
        }
    }
}

/// Does what takes stack for every token, on a thread with room for it where the text is long. None where there is no such thread.
async fn with_room<T: Send + 'static>(
    tokens: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if tokens <= TOKENS_ANYWHERE_MAX {
        return Some(work());
    }
    let (sender, done) = tokio::sync::oneshot::channel();
    // Whoever waited may have gone.
    let work = move || drop(sender.send(work()));
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work);
    thread.ok()?;
    done.await.ok()
}

/// The datasets whose tables a text names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Datasets {
    /// Those it names, whatever for.
    pub named: BTreeSet<DatasetRef>,
    /// The one of the table that it writes.
    pub written: Option<DatasetRef>,
    /// Whether that table is made or removed as such.
    pub defines: bool,
    /// The bucket that its result goes to.
    pub export: Option<BucketRef>,
}

impl Datasets {
    /// Reads a text of so many tokens; none where that could not be told. Names are looked for as [`Reading::of`] does.
    pub async fn of(
        sql: &str,
        tokens: usize,
        project: &str,
        default: Option<&DefaultDataset>,
    ) -> Option<Self> {
        if tokens > TOKENS_MAX {
            return None;
        }
        let (sql, project, default) = (sql.to_owned(), project.to_owned(), default.cloned());
        let read = move || {
            let names = Names {
                project: &project,
                default: default.as_ref(),
            };
            Self::read(&sql, names)
        };
        with_room(tokens, read).await?
    }

    fn read(sql: &str, names: Names<'_>) -> Option<Self> {
        let statements = parse(sql).ok()?;
        let [statement] = statements.as_slice() else {
            return None;
        };
        let (found, target, export) = match deed(statement)? {
            Deed::Reads => (Found::in_query(statement)?, None, None),
            // What an escape makes of an address is not for two readers to tell.
            Deed::Exports(_) if sql.contains('\\') => return None,
            Deed::Exports(bucket) => (Found::in_query(statement)?, None, Some(bucket)),
            Deed::Writes(target) => (Found::in_change(statement)?, Some(parts(target)), None),
        };
        let written = match &target {
            Some(target) => Some(names.dataset(target)?.ok()?),
            None => None,
        };
        let named = found
            .relations
            .iter()
            .filter_map(|name| names.dataset(name));
        Some(Self {
            named: named.collect::<Result<_, _>>().ok()?,
            written,
            defines: matches!(
                statement,
                Statement::CreateTable(_) | Statement::Drop { .. }
            ),
            export,
        })
    }
}

/// Where names that are not whole are looked for.
#[derive(Clone, Copy)]
struct Names<'a> {
    project: &'a str,
    default: Option<&'a DefaultDataset>,
}

impl Names<'_> {
    /// The dataset of a name. None for one without any: it is a local one, or BigQuery knows it as little as we do.
    fn dataset(self, name: &[String]) -> Option<Result<DatasetRef, ScopeError>> {
        match (name, name.get(1)) {
            // Whether it is local or not: the default dataset is judged by itself.
            ([_], _) => self.default.map(|default| {
                let project = default.project.as_deref().unwrap_or(self.project);
                DatasetRef::new(project, &default.dataset)
            }),
            // A dataset's own views of itself have a name of two parts.
            ([dataset, ..], Some(schema)) if schema.eq_ignore_ascii_case(SCHEMA) => {
                Some(DatasetRef::new(self.project, dataset))
            }
            ([dataset, _], _) => Some(DatasetRef::new(self.project, dataset)),
            ([project, dataset, ..], _) => Some(DatasetRef::new(project, dataset)),
            ([], _) => None,
        }
    }

    /// The table of a name of one to three parts.
    fn table(self, name: &[String]) -> Option<TableRef> {
        let table = name.last().filter(|_| name.len() <= 3)?;
        TableRef::new(self.dataset(name)?.ok()?, table).ok()
    }

    /// The tables that a text names to be read, besides the one that it writes: that one is compared by itself.
    fn named(self, found: &Found, target: Option<&TableRef>) -> Vec<Result<TableRef, String>> {
        // Without a default dataset, what has none is nothing that BigQuery would find.
        let can_be = |name: &&Vec<String>| name.len() > 1 || self.default.is_some();
        let tables = found.tables.iter().filter(can_be);
        let named = tables.map(|name| {
            // No dry run lists a dataset's views of itself by a name that is a table's.
            let is_schema = name.iter().any(|part| part.eq_ignore_ascii_case(SCHEMA));
            let table = self.table(name).filter(|_| !is_schema);
            table.ok_or_else(|| name.join("."))
        });
        let is_read =
            |table: &Result<TableRef, String>| table.as_ref().ok() != target || table.is_err();
        named.filter(is_read).collect()
    }

    /// The routines that a text calls. A name of one part is a function of BigQuery's own, and a
    /// text with another is not judged to be within.
    fn called(self, found: &Found) -> Vec<Result<TableRef, String>> {
        let routine = |name: &Vec<String>| self.table(name).ok_or_else(|| name.join("."));
        found.called.iter().map(routine).collect()
    }

    fn judge(self, found: &Found, scope: &Scope) -> Relations {
        // Where there is no default dataset, a name without one is that of a common table expression, or of nothing.
        let is_local = |name: &Vec<String>| name.len() == 1 && self.default.is_none();
        let reaches = found.has_function || !found.called.is_empty();
        if !reaches && found.relations.iter().all(is_local) {
            return Relations::None;
        }
        let is_outside = |name: &&Vec<String>| {
            self.dataset(name)
                .is_some_and(|dataset| !dataset.is_ok_and(|dataset| scope.covers(&dataset)))
        };
        let outside = found.relations.iter().find(is_outside);
        // Which routine a name is of is read twice, here and in the flat list of tokens: what one of both takes for another's is refused.
        let outside = outside.or_else(|| found.called.iter().find(is_outside));
        match outside {
            Some(name) if name.len() == 2 => {
                Relations::Outside(format!("{}.{}", self.project, name.join(".")))
            }
            Some(name) => Relations::Outside(name.join(".")),
            None => Relations::Within,
        }
    }
}

impl Relations {
    /// Whether the text names no table at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Parses a text; one that cannot be, once more in another spelling.
fn parse(sql: &str) -> Result<Vec<Statement>, ParserError> {
    let dialect = &BigQueryDialect;
    Parser::parse_sql(dialect, sql).or_else(|error| {
        // It stopped there already.
        let Ok(tokens) = Tokenizer::new(dialect, sql).tokenize_with_location() else {
            return Err(error);
        };
        let mut parser = Parser::new(dialect).with_tokens_with_locations(respell(tokens));
        // Its own words are of the text as it was written.
        parser.parse_statements().map_err(|_| error)
    })
}
