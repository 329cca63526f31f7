//! Which tables a text names, as far as that can be told without BigQuery: enough to know whether its words may be passed on, and whether a
//! text names none. Never the ground for letting a query through: that is the dry run.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use enforcer_proto::bucket::BucketRef;
use enforcer_proto::scope::{DatasetRef, Scope, ScopeError, TableRef};
use sqlparser::ast::{
    self, AccessExpr, Expr, Ident, Join, JoinOperator, ObjectName, PipeOperator, Query, Select,
    SetExpr, Statement, TableFactor, TableWithJoins, Visit, Visitor,
};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Tokenizer;

use super::job::DefaultDataset;
use super::respell::respell;
use super::target::{Deed, deed};
use super::text::{self, SCHEMA, with_domain};
use super::unread::Unread;
use super::words;

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

/// The words before the dot of BigQuery's own functions. A dataset of such a name hides nothing by it: what a function reads is judged by the
/// dry run in either case.
const OWN_NAMESPACES: [&str; 9] = [
    "AEAD",
    "AI",
    "HLL_COUNT",
    "KEYS",
    "KLL_QUANTILES",
    "ML",
    "NET",
    "OBJ",
    "VECTOR_INDEX",
];

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

/// What was found so far. A path into a row that was named before it in the same FROM, or around it, is no table: `finance.daily AS d,
/// d.parts`. Only what BigQuery would see there counts: a common table expression never stands for a name with a dataset, and sees nothing
/// of what stands around it; a later name does not count for an earlier one; a subquery in FROM, what a function there is given and
/// what a PIVOT makes see nothing of what stands beside them; and behind a pipe operator no name is a row's.
#[derive(Debug)]
struct Found {
    relations: Vec<Vec<String>>,
    /// Those of them that are tables, and no common table expressions or functions.
    tables: Vec<Vec<String>>,
    /// The functions that are called by a name with a dataset.
    called: Vec<Vec<String>>,
    /// Whether the name that comes next is that of a function.
    is_function_next: bool,
    /// How many queries stand around this point.
    depth: usize,
    /// The common table expressions that can be named at this point; the innermost WITH last.
    expressions: Vec<With>,
    /// Whether a function stands where a table can: what it reads cannot be told from its name.
    has_function: bool,
    /// The rows that can be named at this point, in lower case; the innermost SELECT last.
    rows: Vec<BTreeSet<String>>,
    /// Those that were named anywhere.
    named_rows: BTreeSet<String>,
    /// Whether names may be paths into rows at all.
    has_rows: bool,
    /// Of each part of a FROM around this point, whether a clause of its own follows what it is made from; the innermost last.
    clauses: Vec<bool>,
    /// Whether there is a pipe operator in it. Which rows can be named behind one is not followed here.
    has_pipes: bool,
    /// Whether a path stands in an UNNEST that may be one into a column.
    may_name_more: bool,
}

/// The common table expressions of one WITH. Each can be named behind it; with RECURSIVE all of them in all.
#[derive(Debug)]
struct With {
    /// How many queries stand around its expressions.
    depth: usize,
    /// Those that can be named, in lower case.
    visible: BTreeSet<String>,
    /// Those that cannot yet; the next last.
    later: Vec<String>,
}

impl With {
    fn of(with: &ast::With, depth: usize) -> Self {
        let names = with.cte_tables.iter().rev();
        let names = names.map(|expression| expression.alias.name.value.to_ascii_lowercase());
        let (visible, later) = if with.recursive {
            (names.collect(), Vec::new())
        } else {
            (BTreeSet::new(), names.collect())
        };
        Self {
            depth,
            visible,
            later,
        }
    }
}

impl Found {
    fn in_query(statement: &Statement) -> Option<Self> {
        Self::of(statement, true)
    }

    /// What a statement names that writes: every name is a table's, since it is not known which rows BigQuery would look at first there.
    fn in_change(statement: &Statement) -> Option<Self> {
        Self::of(statement, false)
    }

    /// None where the text names tables in a way that is not visited.
    fn of(statement: &Statement, has_rows: bool) -> Option<Self> {
        let mut found = Self {
            relations: Vec::new(),
            tables: Vec::new(),
            called: Vec::new(),
            has_pipes: false,
            may_name_more: false,
            clauses: Vec::new(),
            is_function_next: false,
            depth: 0,
            expressions: Vec::new(),
            has_function: false,
            rows: vec![BTreeSet::new()],
            named_rows: BTreeSet::new(),
            has_rows,
        };
        let visited = statement.visit(&mut found);
        if visited.is_break() {
            return None;
        }
        // Behind a pipe rows have other names than their tables had, and none of some: there every name is a table's.
        if found.has_pipes && has_rows {
            return Self::of(statement, false);
        }
        Some(found)
    }

    /// BigQuery compares such names without regard to case, in ASCII.
    fn name_row(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        if let Some(rows) = self.rows.last_mut() {
            rows.insert(name.clone());
        }
        self.named_rows.insert(name);
    }

    /// Whether it is the name of a common table expression. Those have one part, and are the same in upper and lower case.
    fn is_expression(&self, name: &[String]) -> bool {
        let [name] = name else { return false };
        let name = name.to_ascii_lowercase();
        self.expressions
            .iter()
            .any(|with| with.visible.contains(&name))
    }

    /// Takes in a function that is called by a name with a dataset: BigQuery's own have one part, or one of a few words before it.
    fn call(&mut self, called: &ObjectName) {
        let mut name = parts(called);
        // Quoted as one word, it is a dataset's, whatever it begins with.
        if name.len() > 1 && whole_ident(called, 0).is_none() {
            self.called.push(name);
            return;
        }
        // It changes what a function does where it fails, and nothing else.
        if name
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case("SAFE"))
        {
            name.remove(0);
        }
        let is_own = |first: &String| {
            OWN_NAMESPACES
                .iter()
                .any(|own| first.eq_ignore_ascii_case(own))
        };
        if name.len() > 1 && !name.first().is_some_and(is_own) {
            self.called.push(name);
        }
    }

    /// The same where something of what it gives is taken: `finance.f(1).result`.
    fn call_within(&mut self, root: &Expr, chain: &[AccessExpr]) {
        let mut name = if let Expr::Identifier(first) = root {
            vec![first.clone()]
        } else if let Expr::CompoundIdentifier(first) = root {
            first.clone()
        } else {
            return;
        };
        for access in chain {
            if let AccessExpr::Dot(Expr::Identifier(next)) = access {
                name.push(next.clone());
            } else if let AccessExpr::Dot(Expr::Function(function)) = access {
                let mut whole = ObjectName::from(name);
                whole.0.extend(function.name.0.iter().cloned());
                return self.call(&whole);
            } else {
                return;
            }
        }
    }

    /// Takes in a function that makes rows: there is none of BigQuery's own under any of its words.
    fn call_for_rows(&mut self, name: &ObjectName) {
        self.has_function = true;
        let name = parts(name);
        if name.len() > 1 {
            self.called.push(name.clone());
        }
        self.relations.push(name);
    }

    /// Takes in what an UNNEST is of: BigQuery looks among columns, and then among tables, which it only then refuses. Where a row can be named it may be
    /// a column of that.
    fn unnest(&mut self, of: &Expr) {
        let mut of = of;
        while let Expr::Nested(within) = of {
            of = within;
        }
        let name = if let Expr::Identifier(name) = of {
            ObjectName::from(vec![name.clone()])
        } else if let Expr::CompoundIdentifier(names) = of {
            ObjectName::from(names.clone())
        } else if is_dashed(of) {
            // Where a project may have hyphens, and where it is a difference, is not told apart.
            self.may_name_more = true;
            return;
        } else {
            return;
        };
        let path = parts(&name);
        if path.len() == 1 || self.is_path(&name) {
            return;
        }
        if self.has_rows && self.rows.last().is_none_or(BTreeSet::is_empty) {
            self.relations.push(path);
        } else {
            self.may_name_more = true;
        }
    }

    /// Whether it is a path into a row. Quoted as a whole it never is.
    fn is_path(&self, relation: &ObjectName) -> bool {
        let first = whole_ident(relation, 0).map(|first| first.value.to_ascii_lowercase());
        let rows = self.rows.last();
        self.has_rows
            && relation.0.len() > 1
            && first.is_some_and(|first| rows.is_some_and(|rows| rows.contains(&first)))
    }
}

/// The part of a name, where it was written as one; of a quoted name with dots in it the parser makes several parts, all in its place.
fn whole_ident(name: &ObjectName, at: usize) -> Option<&Ident> {
    let ident = name.0.get(at)?.as_ident()?;
    let mut others = name.0.iter().enumerate().filter(|(other, _)| *other != at);
    let is_whole = others.all(|(_, other)| {
        other
            .as_ident()
            .is_none_or(|other| other.span != ident.span)
    });
    is_whole.then_some(ident)
}

/// The parts of a table's name; quoted, several may be one.
fn parts(name: &ObjectName) -> Vec<String> {
    let text = name.to_string().replace('`', "");
    with_domain(text.split('.').map(str::to_owned).collect())
}

/// Whether a query is made of what names tables in a way that is not visited: `TABLE hr.salaries`, or a statement that writes.
fn is_unread(body: &SetExpr) -> bool {
    match body {
        // Queries are visited by themselves.
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => false,
        SetExpr::SetOperation { left, right, .. } => is_unread(left) || is_unread(right),
        SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => true,
    }
}

/// Whether no row can be named within a part of a FROM that was named before it: a subquery, a join in parentheses, the time that a table is read
/// as of, what a function in it is given and what a PIVOT makes see nothing of what stands beside or around them, and what is named inside is gone
/// behind them.
const fn is_apart(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::Table {
                version: Some(_),
                ..
            }
            | TableFactor::Table { args: Some(_), .. }
    )
}

/// Whether a list of columns stands behind its name. GoogleSQL has no such list, so what looks like one is something else: a query in parentheses
/// behind `UNION ALL`, where the parser took these words for a name.
fn names_columns(factor: &TableFactor) -> bool {
    let (TableFactor::Table { alias, .. }
    | TableFactor::Derived { alias, .. }
    | TableFactor::TableFunction { alias, .. }
    | TableFactor::Function { alias, .. }
    | TableFactor::UNNEST { alias, .. }
    | TableFactor::NestedJoin { alias, .. }
    | TableFactor::Pivot { alias, .. }
    | TableFactor::Unpivot { alias, .. }
    | TableFactor::MatchRecognize { alias, .. }) = factor
    else {
        return true;
    };
    alias
        .as_ref()
        .is_some_and(|alias| !alias.columns.is_empty())
}

/// Whether it is joined in a way that GoogleSQL has not: the words for it are a name to GoogleSQL.
fn is_joined_otherwise(from: &TableWithJoins) -> bool {
    let is_known = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::FullOuter(_)
                | JoinOperator::CrossJoin(_)
        ) && !join.global
    };
    !from.joins.iter().all(is_known)
}

/// Whether it is a parameter or a hint, neither of which is a table.
fn is_sign(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Table { name, .. } if name.to_string().starts_with('@'))
}

/// Whether a clause of its own follows what it is made from, in which that has no name.
const fn has_clause(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::MatchRecognize { .. }
    )
}

/// Whether it is a difference that may be a name with hyphens.
fn is_dashed(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryOp {
            op: ast::BinaryOperator::Minus,
            ..
        }
    )
}

const fn is_function(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Table { args: Some(_), .. }
            | TableFactor::Function { .. }
            | TableFactor::TableFunction { .. }
    )
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if is_unread(&query.body) {
            return ControlFlow::Break(());
        }
        self.depth += 1;
        self.has_pipes |= !query.pipe_operators.is_empty();
        for pipe in &query.pipe_operators {
            if let PipeOperator::Call { function, .. } = pipe {
                self.call_for_rows(&function.name);
            }
        }
        if let Some(with) = &query.with {
            self.expressions.push(With::of(with, self.depth));
        }
        // The expressions see nothing around them. What follows them would, but is not told apart here: it is refused sooner.
        if query.with.is_some() {
            self.rows.push(BTreeSet::new());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if query.with.is_some() {
            self.rows.pop();
            self.expressions.pop();
        }
        self.depth -= 1;
        // The first queries right within one with a WITH are its expressions, in their order.
        if let Some(with) = self.expressions.last_mut()
            && with.depth == self.depth
        {
            with.visible.extend(with.later.pop());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.from.iter().any(is_joined_otherwise) {
            return ControlFlow::Break(());
        }
        let around = self.rows.last().cloned().unwrap_or_default();
        self.rows.push(around);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.rows.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let is_function = std::mem::take(&mut self.is_function_next);
        if !self.is_path(relation) {
            let name = parts(relation);
            if !is_function && !self.is_expression(&name) {
                self.tables.push(name.clone());
            }
            self.relations.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.call(&function.name);
        } else if let Expr::CompoundFieldAccess { root, access_chain } = expr {
            self.call_within(root, access_chain);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if names_columns(factor) || is_sign(factor) {
            return ControlFlow::Break(());
        }
        if let TableFactor::NestedJoin {
            table_with_joins, ..
        } = factor
            && is_joined_otherwise(table_with_joins)
        {
            return ControlFlow::Break(());
        }
        if let TableFactor::Table {
            version: Some(_),
            args: Some(_),
            ..
        } = factor
        {
            // The parser takes what a table is read as of for what a function is given.
            return ControlFlow::Break(());
        }
        if let TableFactor::UNNEST { array_exprs, .. } = factor {
            array_exprs.iter().for_each(|of| self.unnest(of));
        }
        self.has_function |= is_function(factor);
        // The name of what stands in a FROM like a table is visited right behind it.
        self.is_function_next = matches!(factor, TableFactor::Table { args: Some(_), .. });
        self.clauses.push(has_clause(factor));
        if is_apart(factor) {
            self.rows.push(BTreeSet::new());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let named = is_apart(factor).then(|| self.rows.pop()).flatten();
        if matches!(factor, TableFactor::NestedJoin { alias: None, .. })
            && let Some(rows) = self.rows.last_mut()
        {
            rows.extend(named.unwrap_or_default());
        }
        if let TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        }
        | TableFactor::UNNEST {
            alias: Some(alias), ..
        } = factor
        {
            self.name_row(&alias.name.value);
        } else if let TableFactor::Table {
            name, args: None, ..
        } = factor
            && let Some(last) = whole_ident(name, name.0.len().saturating_sub(1))
        {
            // What a function makes has no name of its own.
            self.name_row(&last.value);
        }
        self.clauses.pop();
        // What follows is the clause of what is made from it.
        if self.clauses.last() == Some(&true)
            && let Some(rows) = self.rows.last_mut()
        {
            rows.clear();
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Relations {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        Reading::of(sql, 10, &scope, "p", None).relations
    }

    #[test]
    fn a_text_without_tables_is_known_from_one_that_hides_them() {
        for sql in [
            "SELECT 1",
            "SELECT * FROM UNNEST([1, 2]) AS x",
            "SELECT u.x FROM UNNEST([STRUCT([1] AS x)]) AS u, u.x",
            "WITH a AS (SELECT 1 AS x), b AS (SELECT x FROM a) SELECT * FROM b",
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n",
        ] {
            assert_eq!(read(sql), Relations::None, "{sql}");
        }
        for sql in [
            "EXECUTE IMMEDIATE 'x'",
            "SELECT 1; SELECT 2",
            "not sql",
            "SELECT 1 UNION ALL (TABLE hr.salaries)",
            "SELECT 1 UNION ALL (SELECT 2 UNION ALL TABLE hr.salaries)",
            "WITH x AS (SELECT 1 AS a) INSERT INTO finance.daily SELECT a FROM x",
        ] {
            assert!(matches!(read(sql), Relations::Unknown(_)), "{sql}");
        }
    }

    #[test]
    fn tables_are_looked_for_where_bigquery_would() {
        for sql in [
            "SELECT * FROM finance.daily AS d, d.parts",
            "SELECT * FROM finance.daily, daily.parts",
            "SELECT 1 FROM finance.daily AS d WHERE EXISTS (SELECT p FROM d.parts AS p)",
            "SELECT * FROM (finance.daily AS d JOIN d.parts), d.parts",
            "WITH c AS (SELECT * FROM `p.finance.daily`) SELECT * FROM c",
            "SELECT * FROM `finance`.`daily`, `daily`.parts",
            "SELECT * FROM finance.INFORMATION_SCHEMA.TABLES, p.finance.information_schema.COLUMNS",
            "SELECT * FROM finance.daily AS d PIVOT (SUM(x) FOR y IN (1)) AS p, finance.hr AS hr, hr.parts",
        ] {
            assert_eq!(read(sql), Relations::Within, "{sql}");
        }
        for sql in [
            "SELECT * FROM finance.daily, hr.salaries",
            "SELECT * FROM hr.salaries, finance.hr",
            "SELECT * FROM hr.salaries AS hr",
            "WITH hr AS (SELECT 1 AS a) SELECT * FROM hr.salaries",
            "SELECT * FROM hr.salaries AS s, finance.daily AS hr",
            "SELECT * FROM finance.daily AS hr, (SELECT * FROM hr.salaries)",
            "SELECT * FROM (SELECT 1 FROM finance.daily AS hr), hr.salaries",
            "SELECT 1 FROM finance.daily AS hr UNION ALL SELECT 2 FROM hr.salaries",
            "SELECT (SELECT 1 FROM hr.salaries) FROM finance.daily AS hr",
            "SELECT (SELECT MAX(x) FROM `hr`.salaries)",
            "SELECT * FROM `p.hr.salaries`",
            "SELECT * FROM finance.daily AS hr, `hr.salaries`",
            "SELECT * FROM finance.daily AS hr, `p`.hr.salaries",
            "SELECT * FROM `finance.hr`, hr.salaries",
            "SELECT * FROM finance.hr(1), hr.salaries",
            "SELECT 1 FROM finance.daily AS hr WHERE 1 IN (WITH c AS (SELECT * FROM hr.salaries) SELECT 1 FROM c)",
            "SELECT * FROM finance.daily AS hr PIVOT (SUM(x) FOR y IN (1)) AS p, hr.salaries",
            "SELECT * FROM finance.daily AS hr UNPIVOT (x FOR y IN (a, b)), hr.salaries",
            "SELECT * FROM finance.daily AS hr, finance.x PIVOT (SUM((SELECT MAX(s) FROM hr.salaries)) FOR y IN (1))",
            "WITH hr AS (SELECT 1 AS a) SELECT 1 FROM hr PIVOT (SUM((SELECT MAX(s) FROM hr.salaries)) FOR a IN (1))",
            "SELECT * FROM finance.daily AS hr, finance.rows_of((SELECT MAX(s) FROM hr.salaries))",
            "SELECT * FROM finance.daily AS hr, (hr.salaries CROSS JOIN finance.daily)",
            "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (SELECT 1 FROM finance.daily FOR SYSTEM_TIME AS OF (SELECT MAX(t) FROM hr.salaries))",
        ] {
            assert_eq!(
                read(sql),
                Relations::Outside("p.hr.salaries".into()),
                "{sql}"
            );
        }
    }

    /// What the dry run must list, in a project `p`.
    fn named(sql: &str, default: Option<&str>) -> Vec<String> {
        let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
        let default = default.map(|dataset| DefaultDataset {
            project: None,
            dataset: dataset.into(),
        });
        let reading = Reading::of(sql, 40, &scope, "p", default.as_ref());
        let named = reading.named.into_iter();
        named
            .map(|table| {
                table.map_or_else(
                    |name| format!("no table: {name}"),
                    |table| table.to_string(),
                )
            })
            .collect()
    }

    #[test]
    fn every_table_that_is_read_is_kept_by_its_whole_name_and_nothing_else() {
        for (sql, wanted) in [
            ("SELECT 1", &[][..]),
            (
                "SELECT * FROM finance.daily AS d, d.parts",
                &["p.finance.daily"],
            ),
            (
                "SELECT * FROM `p.finance.daily`, `finance`.`events_*`",
                &["p.finance.daily", "p.finance.events_*"],
            ),
            (
                "SELECT * FROM my-project.finance.daily",
                &["my-project.finance.daily"],
            ),
            (
                "SELECT * FROM finance.rows_of(1), finance.daily",
                &["p.finance.daily"],
            ),
            (
                "SELECT (SELECT MAX(x) FROM finance.a) FROM finance.b WHERE EXISTS (SELECT 1 FROM finance.c)",
                &["p.finance.a", "p.finance.b", "p.finance.c"],
            ),
            (
                "WITH c AS (SELECT * FROM finance.daily) SELECT * FROM C, c AS d",
                &["p.finance.daily"],
            ),
            (
                "SELECT * FROM finance.INFORMATION_SCHEMA.TABLES",
                &["no table: finance.INFORMATION_SCHEMA.TABLES"],
            ),
            (
                "SELECT * FROM p.finance.information_schema.TABLES",
                &["no table: p.finance.information_schema.TABLES"],
            ),
            (
                "SELECT * FROM `p.finance.daily.parts`",
                &["no table: p.finance.daily.parts"],
            ),
            (
                "INSERT INTO scratch.t (a) SELECT a FROM finance.daily",
                &["p.finance.daily"],
            ),
            (
                "MERGE `p.scratch.t` AS t USING finance.daily AS o ON t.a = o.a WHEN MATCHED THEN DELETE",
                &["p.finance.daily"],
            ),
            (
                "DELETE FROM scratch.t WHERE a IN (SELECT a FROM finance.daily)",
                &["p.finance.daily"],
            ),
            ("DROP TABLE scratch.t", &[]),
            (
                "EXPORT DATA OPTIONS (uri = 'gs://out-1/*', format = 'CSV') AS SELECT a FROM finance.daily",
                &["p.finance.daily"],
            ),
        ] {
            assert_eq!(named(sql, None), wanted, "{sql}");
        }
    }

    #[test]
    fn a_name_without_a_dataset_is_a_common_table_expressions_only_where_that_can_be_named() {
        let both = &["p.finance.t", "p.finance.t"][..];
        let one = &["p.finance.t"][..];
        for (sql, wanted) in [
            ("SELECT * FROM t", one),
            ("SELECT * FROM `t` AS u", one),
            ("WITH t AS (SELECT 1) SELECT * FROM T", &[]),
            // An expression cannot be named in itself, nor in what stands before it.
            ("WITH t AS (SELECT * FROM t) SELECT * FROM t", one),
            (
                "WITH u AS (SELECT * FROM t), t AS (SELECT 1) SELECT * FROM u, t",
                one,
            ),
            (
                "WITH u AS (SELECT * FROM (SELECT * FROM t)), t AS (SELECT * FROM u) SELECT * FROM t",
                one,
            ),
            (
                "WITH t AS (SELECT 1), u AS (SELECT * FROM t) SELECT * FROM u",
                &[],
            ),
            (
                "WITH RECURSIVE u AS (SELECT * FROM t), t AS (SELECT 1 AS a UNION ALL SELECT a FROM t) SELECT * FROM u",
                &[],
            ),
            // What a subquery has of its own is gone behind it.
            (
                "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t), t",
                one,
            ),
            (
                "SELECT * FROM t UNION ALL (WITH t AS (SELECT 1) SELECT * FROM t)",
                one,
            ),
            (
                "WITH t AS (SELECT 1) SELECT 1 WHERE 1 IN (SELECT * FROM t WHERE EXISTS (SELECT 1 FROM t))",
                &[],
            ),
            (
                "WITH a AS (WITH t AS (SELECT 1) SELECT * FROM t) SELECT * FROM a, t JOIN t AS u ON TRUE",
                both,
            ),
        ] {
            assert_eq!(named(sql, Some("finance")), wanted, "{sql}");
        }
    }

    #[test]
    fn a_project_of_a_domain_is_read_whole_and_only_where_a_table_follows() {
        let scope: Scope = "example.com:proj.finance:read".parse().expect("a scope");
        let read = |sql: &str| Reading::of(sql, 20, &scope, "example.com:proj", None).relations;
        for sql in [
            "SELECT * FROM `example.com:proj.finance.daily`",
            "SELECT * FROM `example.com:proj`.finance.daily",
            "SELECT * FROM `example.com:proj`.`finance.daily`",
            "SELECT * FROM `example.com:proj`.finance.INFORMATION_SCHEMA.TABLES",
            "SELECT * FROM finance.daily",
        ] {
            assert_eq!(read(sql), Relations::Within, "{sql}");
        }
        for sql in [
            "SELECT * FROM `example.com:proj.hr.salaries`",
            "SELECT * FROM `example.com:proj`.hr.salaries",
            "SELECT * FROM `example.com:other.finance.daily`",
            "SELECT * FROM `other.com:proj`.finance.daily",
            "SELECT * FROM `proj`.finance.daily",
            "SELECT * FROM `com:proj`.finance.daily",
            // No table follows: it is no name without a dataset, either.
            "SELECT * FROM `example.com:proj`",
            "SELECT * FROM `example.com:proj.finance`",
            "SELECT * FROM hr.`salaries:finance`",
            "SELECT * FROM `hr:finance.daily`",
        ] {
            assert!(
                matches!(read(sql), Relations::Outside(_)),
                "{sql}: {:?}",
                read(sql)
            );
        }
        let scope: Scope = "example.com:proj.scratch:write".parse().expect("a scope");
        let sql = "INSERT INTO `example.com:proj.scratch.t` (a) VALUES (1)";
        let read = Reading::of(sql, 20, &scope, "example.com:proj", None);
        let target = read.target.map(|table| table.to_string());
        assert_eq!(target.as_deref(), Some("example.com:proj.scratch.t"));
    }

    #[test]
    fn behind_a_pipe_no_name_is_a_path_into_a_row() {
        for sql in [
            "FROM finance.daily |> CROSS JOIN finance.accounts AS hr |> SELECT 1 AS x |> CROSS JOIN hr.salaries",
            "FROM finance.daily AS hr |> CROSS JOIN hr.salaries",
            "SELECT 1 FROM finance.daily WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr) AND EXISTS (SELECT 1 FROM hr.salaries)",
            "WITH hr AS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr), b AS (SELECT 1 FROM hr.salaries) SELECT * FROM b",
            "SELECT (SELECT MAX(salary) FROM hr.salaries) AS x FROM finance.accounts WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr)",
            "SELECT * FROM finance.daily AS hr, hr.salaries UNION ALL (FROM finance.daily |> SELECT 1)",
        ] {
            assert_eq!(
                read(sql),
                Relations::Outside("p.hr.salaries".into()),
                "{sql}"
            );
            assert!(
                named(sql, None).contains(&"p.hr.salaries".to_owned()),
                "{sql}"
            );
        }
    }

    #[test]
    fn what_may_have_been_meant_as_a_path_is_refused_with_how_it_is_written() {
        let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
        let outside = |sql: &str| {
            let reading = Reading::of(sql, 20, &scope, "p", None);
            match &reading.relations {
                Relations::Outside(table) => Some(reading.shown(table)),
                Relations::None | Relations::Within | Relations::Unknown(_) => None,
            }
        };
        for sql in [
            "FROM finance.daily AS d |> CROSS JOIN d.parts",
            "SELECT ARRAY(SELECT 1 FROM D.parts) FROM finance.daily AS d",
            "INSERT INTO scratch.t (a) SELECT 1 FROM finance.daily AS d, d.parts",
        ] {
            let said = outside(sql).unwrap_or_default().to_ascii_lowercase();
            let hint = "p.d.parts (an array of the row d is read by unnest(d.parts))";
            assert_eq!(said, hint, "{sql}");
        }
        let sql = "FROM finance.daily AS d |> CROSS JOIN d.parts.of";
        let hint = "d.parts.of (an array of the row d is read by UNNEST(d.parts.of))";
        assert_eq!(outside(sql).as_deref(), Some(hint));
        let sql = "SELECT 1 FROM finance.daily AS d, hr.salaries";
        assert_eq!(outside(sql).as_deref(), Some("p.hr.salaries"));
        assert_eq!(outside("SELECT 1 FROM finance.daily AS d, d.parts"), None);
    }

    #[test]
    fn a_routine_that_is_called_by_a_name_with_a_dataset_must_be_listed() {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let called = |sql: &str| {
            let reading = Reading::of(sql, 20, &scope, "p", None);
            let names = reading.called.into_iter();
            let names = names.map(|name| name.map_or_else(|why| why, |name| name.to_string()));
            names.collect::<Vec<String>>()
        };
        for (sql, wanted) in [
            (
                "SELECT NET.HOST('x'), safe.substr('x', 1), HLL_COUNT.INIT(1), LOWER('X')",
                &[][..],
            ),
            ("SELECT finance.f(1)", &["p.finance.f"]),
            ("SELECT SAFE.finance.f(1)", &["p.finance.f"]),
            (
                "SELECT `q.finance.f`(1), q.finance.g(2)",
                &["q.finance.f", "q.finance.g"],
            ),
            (
                "SELECT 1 FROM finance.daily WHERE finance.f(x) > (SELECT finance.g(1))",
                &["p.finance.f", "p.finance.g"],
            ),
            ("FROM finance.daily |> WHERE finance.f(x)", &["p.finance.f"]),
            ("SELECT a.b.c.d(1)", &["a.b.c.d"]),
            ("SELECT finance.f(1).result", &["p.finance.f"]),
            (
                "SELECT finance.f(1)[OFFSET(0)], q.finance.g(1).a.b",
                &["p.finance.f", "q.finance.g"],
            ),
        ] {
            assert_eq!(called(sql), wanted, "{sql}");
        }
    }

    #[test]
    fn what_an_unnest_is_of_may_be_a_table_to_bigquery_and_tells_of_none() {
        for of in [
            "hr.salaries",
            "`hr.salaries`",
            "(hr.salaries)",
            "hr.salaries.name",
        ] {
            for from in [
                "SELECT * FROM UNNEST({})",
                "SELECT ARRAY(SELECT x FROM UNNEST({}) AS x)",
            ] {
                let sql = from.replace("{}", of);
                assert!(matches!(read(&sql), Relations::Outside(_)), "{sql}");
            }
        }
        // It may be a column of what is named before it, or in it.
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let may = |sql: &str| {
            let reading = Reading::of(sql, 20, &scope, "p", None);
            (reading.relations, reading.may_name_more)
        };
        for (sql, wanted) in [
            ("SELECT * FROM finance.daily, UNNEST(hr.salaries)", true),
            (
                "SELECT * FROM finance.daily JOIN UNNEST(((hr.salaries))) ON TRUE",
                true,
            ),
            ("FROM finance.daily |> JOIN UNNEST(hr.salaries)", true),
            (
                "SELECT * FROM finance.daily, UNNEST(demo-project.hr.salaries)",
                true,
            ),
            ("SELECT * FROM finance.daily AS d, UNNEST(d.parts)", false),
            (
                "SELECT * FROM finance.daily, UNNEST(daily.parts.name)",
                false,
            ),
            (
                "SELECT * FROM finance.daily, UNNEST(parts), UNNEST([1, 2])",
                false,
            ),
        ] {
            assert_eq!(may(sql), (Relations::Within, wanted), "{sql}");
        }
    }

    #[test]
    fn a_routine_of_another_dataset_is_outside_however_it_is_read() {
        for sql in [
            // A difference, and a routine of the project `project`.
            "SELECT demo-project.finance.f(1) FROM (SELECT 1 AS demo)",
            "SELECT hr.f(1)",
            "SELECT `net.host`('x')",
            "SELECT `safe.lower`('x')",
            "FROM finance.daily |> CALL net.host()",
            "FROM finance.daily |> CALL safe.lower()",
            "FROM finance.daily |> CALL hr.rows_of()",
        ] {
            assert!(
                !matches!(read(sql), Relations::Within | Relations::None),
                "{sql}"
            );
        }
        assert_eq!(read("SELECT finance.f(1)"), Relations::Within);
    }

    #[test]
    fn what_is_read_as_of_the_result_of_a_call_is_not_taken_for_a_function() {
        for sql in [
            "SELECT 1 FROM finance.daily FOR SYSTEM_TIME AS OF hr . 1(1)",
            "SELECT 1 FROM finance.daily FOR SYSTEM_TIME AS OF finance.trim(1)",
        ] {
            assert!(
                matches!(read(sql), Relations::Unknown(_)),
                "{sql}: {:?}",
                read(sql)
            );
        }
    }

    #[test]
    fn what_a_function_reads_is_not_nothing() {
        let sql = "SELECT 1 AS x |> CALL finance.rows_of()";
        assert_eq!(read(sql), Relations::Within);
        for (sql, function) in [
            ("SELECT * FROM TABLE_QUERY(hr, 'true')", "TABLE_QUERY"),
            ("SELECT * FROM some_rows([hr.x])", "some_rows"),
            ("WITH a AS (SELECT 1) SELECT * FROM a, f()", "f"),
            ("SELECT amount-own(2) FROM finance.daily", "amount-own"),
            // In backticks a keyword is a name like any other.
            ("SELECT `EXTRACT`(1) FROM finance.daily", "EXTRACT"),
        ] {
            let unknown = Relations::Unknown(Unread::Function(function.to_owned()));
            assert_eq!(read(sql), unknown, "{sql}");
        }
        // Columns, a table with its columns, and what is given to a query in brackets are no calls.
        for sql in [
            "INSERT INTO finance.daily (day, amount) (SELECT day, amount FROM finance.daily)",
            "SELECT amount-ABS(amount) FROM finance.daily WHERE (amount) IN (1, 2)",
        ] {
            let relations = read(sql);
            assert!(
                !matches!(relations, Relations::Unknown(_)),
                "{sql}: {relations:?}"
            );
        }
    }

    #[test]
    fn another_datasets_views_of_itself_are_outside() {
        for sql in [
            "SELECT * FROM hr.INFORMATION_SCHEMA.TABLES",
            "SELECT * FROM p.hr.INFORMATION_SCHEMA.TABLES",
            "SELECT * FROM INFORMATION_SCHEMA.SCHEMATA",
            "SELECT * FROM `region-us`.INFORMATION_SCHEMA.TABLES",
            "SELECT * FROM finance.finance.INFORMATION_SCHEMA.TABLES",
        ] {
            assert!(matches!(read(sql), Relations::Outside(_)), "{sql}");
        }
    }

    #[test]
    fn functions_of_their_own_grammar_are_read_behind_safe() {
        for (sql, wanted) in [
            ("SELECT SAFE.SUBSTR('a', 1), safe.floor(2)", Relations::None),
            ("SELECT `SAFE`.SUBSTR('a', 1)", Relations::None),
            (
                "SELECT SAFE.EXTRACT(DAY FROM d) FROM finance.daily",
                Relations::Within,
            ),
            (
                "SELECT SAFE.SUBSTR((SELECT MAX(name) FROM hr.salaries), 1)",
                Relations::Outside("p.hr.salaries".into()),
            ),
        ] {
            assert_eq!(read(sql), wanted, "{sql}");
        }
        // Called by a name with a dataset, it is a routine of that.
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let reading = Reading::of("SELECT hr.SAFE.SUBSTR('a', 1)", 10, &scope, "p", None);
        assert_eq!(
            reading.called[0].as_ref().map(ToString::to_string),
            Ok("hr.SAFE.SUBSTR".to_owned())
        );
    }

    #[test]
    fn spellings_that_the_parser_does_not_know_are_read_for_what_they_name() {
        for sql in [
            "SELECT * FROM finance.daily AS d FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()",
            "SELECT * FROM finance.daily d FOR SYSTEM_TIME AS OF TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR), d.parts",
            "SELECT amount << 2, amount >> 1 FROM finance.daily",
            "FROM finance.daily |> DISTINCT |> WINDOW SUM(a) OVER () AS s |> AGGREGATE COUNT(*) GROUP AND ORDER BY a DESC",
            "SELECT a FROM finance.daily FULL UNION ALL BY NAME SELECT b FROM finance.accounts",
        ] {
            assert_eq!(read(sql), Relations::Within, "{sql}");
        }
        for sql in [
            "SELECT * FROM hr.salaries AS s FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()",
            // The table has the alias for its name, and not its own.
            "SELECT * FROM finance.hr AS d FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP(), hr.salaries",
            "SELECT * FROM finance.daily AS d FOR SYSTEM_TIME AS OF (SELECT MAX(t) FROM hr.salaries)",
            "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (SELECT 1 FROM finance.daily AS e FOR SYSTEM_TIME AS OF (SELECT MAX(t) FROM hr.salaries))",
            "SELECT amount << (SELECT MAX(s) FROM hr.salaries) FROM finance.daily",
            "FROM hr.salaries |> DISTINCT |> SELECT salary",
            "FROM finance.daily |> DISTINCT |> CROSS JOIN hr.salaries",
            "FROM finance.daily |> WINDOW (SELECT MAX(s) FROM hr.salaries) AS s",
            "SELECT a FROM finance.daily INNER UNION ALL BY NAME SELECT b FROM hr.salaries",
            // Behind a dot no word is a keyword.
            "SELECT 1 << 2 FROM finance.daily AS d, d.left UNION ALL (FROM hr.salaries)",
            "SELECT 1 FROM finance.daily AS d FOR SYSTEM_TIME AS OF STRUCT(1 AS `join`).join UNION ALL (FROM hr.salaries)",
        ] {
            assert_eq!(
                read(sql),
                Relations::Outside("p.hr.salaries".into()),
                "{sql}"
            );
        }
    }

    #[test]
    fn a_list_of_columns_behind_a_name_is_none_of_googlesqls_and_is_not_read() {
        for sql in [
            "SELECT * FROM finance.daily AS d (a, b)",
            "SELECT * FROM finance.daily d (FROM hr.salaries)",
            "SELECT * FROM (SELECT 1) AS d (a)",
            "SELECT * FROM UNNEST([1]) AS d (a)",
        ] {
            assert!(matches!(read(sql), Relations::Unknown(_)), "{sql}");
        }
    }

    #[test]
    fn joins_of_other_dialects_and_signs_for_tables_are_not_read() {
        for sql in [
            "SELECT 1 FROM finance.daily AS d GLOBAL JOIN finance.x ON TRUE",
            "SELECT 1 FROM finance.daily AS d SEMI JOIN finance.x ON TRUE",
            "SELECT 1 FROM (finance.daily AS d ANTI JOIN finance.x ON TRUE)",
            "SELECT 1 FROM finance.daily CROSS APPLY finance.x",
            "SELECT 1 FROM finance.daily JOIN @5 `hr.salaries` ON TRUE",
            "SELECT 1 FROM finance.daily JOIN @x `hr.salaries` ON TRUE",
        ] {
            assert!(
                matches!(read(sql), Relations::Unknown(_)),
                "{sql}: {:?}",
                read(sql)
            );
        }
    }

    #[test]
    fn a_rows_name_counts_for_the_same_letters_alone() {
        // The sign for Kelvin is a small k to some, and none to BigQuery.
        let sql = "SELECT * FROM finance.daily AS `\u{212a}`, k.salaries";
        assert_eq!(read(sql), Relations::Outside("p.k.salaries".into()));
        let sql = "SELECT * FROM finance.daily AS K, k.salaries";
        assert_eq!(read(sql), Relations::Within);
    }

    #[test]
    fn a_statement_that_writes_names_its_target_and_all_it_reads() {
        let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
        let read = |sql: &str| {
            let read = Reading::of(sql, 10, &scope, "p", None);
            (read.relations, read.target.map(|table| table.to_string()))
        };
        let outside = || Relations::Outside("p.hr.salaries".into());
        let target = || Some("p.scratch.t".to_owned());
        for (sql, relations) in [
            (
                "INSERT INTO scratch.t (a) SELECT amount FROM finance.daily",
                Relations::Within,
            ),
            (
                "INSERT INTO scratch.t (a) SELECT salary FROM hr.salaries",
                outside(),
            ),
            (
                "UPDATE scratch.t AS hr SET a = 1 FROM hr.salaries WHERE TRUE",
                outside(),
            ),
            (
                "MERGE `p.scratch.t` AS t USING hr.salaries AS s ON t.a = s.a WHEN MATCHED THEN DELETE",
                outside(),
            ),
            (
                "CREATE TABLE scratch.t AS SELECT * FROM hr.salaries",
                outside(),
            ),
            (
                "DELETE FROM scratch.t WHERE a IN (SELECT salary FROM hr.salaries)",
                outside(),
            ),
        ] {
            assert_eq!(read(sql), (relations, target()), "{sql}");
        }
        let dropped = Some("p.hr.salaries".to_owned());
        assert_eq!(read("DROP TABLE hr.salaries"), (outside(), dropped));
        assert_eq!(
            read("INSERT INTO t (a) VALUES (1)"),
            (Relations::None, None)
        );
    }

    #[test]
    fn a_default_dataset_counts_for_names_without_one() {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let within = |dataset: &str| {
            let default = DefaultDataset {
                project: None,
                dataset: dataset.into(),
            };
            let sql = "WITH c AS (SELECT 1) SELECT * FROM t, c";
            Reading::of(sql, 14, &scope, "p", Some(&default)).relations
        };
        assert_eq!(within("finance"), Relations::Within);
        assert_eq!(within("hr"), Relations::Outside("t".into()));
    }

    /// Reads the deepest texts of so many tokens on a stack of so many bytes.
    fn deepest(tokens: usize, stack: usize) {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let sqls = ["TRUE OR ", "SELECT 1 UNION ALL ", "1 + ", "a -", "a.b || "].map(|part| {
            let body = part.repeat(tokens / part.split_whitespace().count());
            if part.starts_with("SELECT") {
                format!("{body}SELECT 1")
            } else {
                format!("SELECT {body}1")
            }
        });
        let parse = move || sqls.map(|sql| Reading::of(&sql, tokens, &scope, "p", None).relations);
        let read = std::thread::Builder::new()
            .stack_size(stack)
            .spawn(parse)
            .expect("a thread")
            .join()
            .expect("no overflow");
        assert!(
            read.iter()
                .all(|relations| matches!(relations, Relations::None | Relations::Unknown(_)))
        );
    }

    #[test]
    fn the_longest_texts_fit_the_stack_they_are_read_on() {
        // The runtime's workers have two mebibytes.
        deepest(TOKENS_ANYWHERE_MAX, 2 * 1024 * 1024);
        deepest(TOKENS_MAX, STACK_BYTES);
    }

    #[tokio::test]
    async fn a_long_text_is_read_elsewhere_and_a_longer_one_not_at_all() {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let sql = format!(
            "SELECT 1 FROM hr.salaries WHERE {}TRUE",
            "TRUE OR ".repeat(4000)
        );
        let read = |tokens| Reading::with_room(&sql, tokens, &scope, "p", None);
        let outside = Relations::Outside("p.hr.salaries".into());
        assert_eq!(read(8000).await.relations, outside);
        let hidden = Reading::unknown(Unread::Hidden);
        assert_eq!(read(TOKENS_MAX + 1).await, hidden);
    }
}
