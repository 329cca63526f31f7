//! What a text names, found by visiting its syntax. Judges nothing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, AccessExpr, Expr, Ident, ObjectName, PipeOperator, Query, Select, Statement, TableFactor,
    Visit, Visitor,
};

use super::super::text::with_domain;
use super::factor::{
    has_clause, is_apart, is_dashed, is_function, is_joined_otherwise, is_sign, is_unread,
    names_columns,
};

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

/// What was found so far. A path into a row that was named before it in the same FROM, or around it, is no table: `finance.daily AS d,
/// d.parts`. Only what BigQuery would see there counts: a common table expression never stands for a name with a dataset, and sees nothing
/// of what stands around it; a later name does not count for an earlier one; a subquery in FROM, what a function there is given and
/// what a PIVOT makes see nothing of what stands beside them; and behind a pipe operator no name is a row's.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) relations: Vec<Vec<String>>,
    /// Those of them that are tables, and no common table expressions or functions.
    pub(super) tables: Vec<Vec<String>>,
    /// The functions that are called by a name with a dataset.
    pub(super) called: Vec<Vec<String>>,
    /// Whether the name that comes next is that of a function.
    is_function_next: bool,
    /// How many queries stand around this point.
    depth: usize,
    /// The common table expressions that can be named at this point; the innermost WITH last.
    expressions: Vec<With>,
    /// Whether a function stands where a table can: what it reads cannot be told from its name.
    pub(super) has_function: bool,
    /// The rows that can be named at this point, in lower case; the innermost SELECT last.
    rows: Vec<BTreeSet<String>>,
    /// Those that were named anywhere.
    pub(super) named_rows: BTreeSet<String>,
    /// Whether names may be paths into rows at all.
    has_rows: bool,
    /// Of each part of a FROM around this point, whether a clause of its own follows what it is made from; the innermost last.
    clauses: Vec<bool>,
    /// Whether there is a pipe operator in it. Which rows can be named behind one is not followed here.
    has_pipes: bool,
    /// Whether a path stands in an UNNEST that may be one into a column.
    pub(super) may_name_more: bool,
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
    pub(super) fn in_query(statement: &Statement) -> Option<Self> {
        Self::of(statement, true)
    }

    /// What a statement names that writes: every name is a table's, since it is not known which rows BigQuery would look at first there.
    pub(super) fn in_change(statement: &Statement) -> Option<Self> {
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
pub(super) fn parts(name: &ObjectName) -> Vec<String> {
    let text = name.to_string().replace('`', "");
    with_domain(text.split('.').map(str::to_owned).collect())
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
