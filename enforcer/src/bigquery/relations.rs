//! Which tables a text names, as far as that can be told without BigQuery: enough to know whether its words may be passed on, and whether a
//! text names none. Never the ground for letting a query through: that is the dry run.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use enforcer_proto::scope::{DatasetRef, Scope};
use sqlparser::ast::{ObjectName, Select, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::Parser;

use super::job::DefaultDataset;

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
    /// That could not be told.
    Unknown,
}

impl Relations {
    /// As [`Relations::read`], on a thread with room for it where the text is long.
    pub async fn read_with_room(
        sql: &str,
        tokens: usize,
        scope: &Scope,
        project: &str,
        default: Option<&DefaultDataset>,
    ) -> Self {
        if tokens <= TOKENS_ANYWHERE_MAX {
            return Self::read(sql, tokens, scope, project, default);
        }
        let (sql, scope, project) = (sql.to_owned(), scope.clone(), project.to_owned());
        let default = default.cloned();
        let (sender, read) = tokio::sync::oneshot::channel();
        let work = move || {
            let relations = Self::read(&sql, tokens, &scope, &project, default.as_ref());
            // Whoever waited may have gone.
            drop(sender.send(relations));
        };
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(work);
        match thread {
            Ok(_) => read.await.unwrap_or(Self::Unknown),
            Err(_) => Self::Unknown,
        }
    }

    /// Reads a text of so many tokens. Names without a project are looked for in `project`, those without a dataset in `default`.
    #[must_use]
    pub fn read(
        sql: &str,
        tokens: usize,
        scope: &Scope,
        project: &str,
        default: Option<&DefaultDataset>,
    ) -> Self {
        if tokens > TOKENS_MAX {
            return Self::Unknown;
        }
        let Ok(statements) = Parser::parse_sql(&BigQueryDialect, sql) else {
            return Self::Unknown;
        };
        let [statement @ Statement::Query(_)] = statements.as_slice() else {
            return Self::Unknown;
        };
        let mut found = Found::default();
        let _: ControlFlow<()> = statement.visit(&mut found);
        if found.relations.is_empty() {
            return Self::None;
        }
        let dataset_of = |name: &[String]| match name {
            // Whether it is local or not: the default dataset is judged by itself.
            [_] => default.map(|default| {
                let project = default.project.as_deref().unwrap_or(project);
                DatasetRef::new(project, &default.dataset)
            }),
            [dataset, _] => Some(DatasetRef::new(project, dataset)),
            [project, dataset, ..] => Some(DatasetRef::new(project, dataset)),
            [] => None,
        };
        let outside = found.relations.iter().find(|name| {
            // A name without any dataset is a local one, or BigQuery knows it as little as we do.
            dataset_of(name)
                .is_some_and(|dataset| !dataset.is_ok_and(|dataset| scope.covers(&dataset)))
        });
        match outside {
            Some(name) if name.len() == 2 => Self::Outside(format!("{project}.{}", name.join("."))),
            Some(name) => Self::Outside(name.join(".")),
            None => Self::Within,
        }
    }

    /// Whether the text names no table at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What was found so far. A path into a row that was named before it in the same FROM, or around it, is no table: `finance.daily AS d,
/// d.parts`. Only what BigQuery would see there counts: a common table expression never stands for a name with a dataset, a later name not
/// for an earlier one, and a subquery in FROM sees nothing of what stands beside it.
#[derive(Debug)]
struct Found {
    relations: Vec<Vec<String>>,
    /// The rows that can be named at this point, in lower case; the innermost SELECT last.
    rows: Vec<BTreeSet<String>>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            relations: Vec::new(),
            rows: vec![BTreeSet::new()],
        }
    }
}

impl Found {
    fn name_row(&mut self, name: &str) {
        if let Some(rows) = self.rows.last_mut() {
            rows.insert(name.to_lowercase());
        }
    }
}

/// The parts of a table's name; quoted, several may be one.
fn parts(name: &ObjectName) -> Vec<String> {
    let text = name.to_string().replace('`', "");
    text.split('.').map(str::to_owned).collect()
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        let around = self.rows.last().cloned().unwrap_or_default();
        self.rows.push(around);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.rows.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let parts = parts(relation);
        let is_path = parts.len() > 1
            && self
                .rows
                .last()
                .is_some_and(|rows| rows.contains(&parts[0].to_lowercase()));
        if !is_path {
            self.relations.push(parts);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Derived { .. }) {
            self.rows.push(BTreeSet::new());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Derived { .. }) {
            self.rows.pop();
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
        } else if let TableFactor::Table { name, .. } = factor
            && let Some(last) = parts(name).last()
        {
            self.name_row(last);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Relations {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        Relations::read(sql, 10, &scope, "p", None)
    }

    #[test]
    fn a_text_without_tables_is_known_from_one_that_hides_them() {
        for sql in [
            "SELECT 1",
            "SELECT * FROM UNNEST([1, 2]) AS x",
            "SELECT u.x FROM UNNEST([STRUCT([1] AS x)]) AS u, u.x",
        ] {
            assert_eq!(read(sql), Relations::None, "{sql}");
        }
        for sql in ["EXECUTE IMMEDIATE 'x'", "SELECT 1; SELECT 2", "not sql"] {
            assert_eq!(read(sql), Relations::Unknown, "{sql}");
        }
    }

    #[test]
    fn tables_are_looked_for_where_bigquery_would() {
        for sql in [
            "SELECT * FROM finance.daily AS d, d.parts",
            "SELECT * FROM finance.daily, daily.parts",
            "SELECT 1 FROM finance.daily AS d WHERE EXISTS (SELECT p FROM d.parts AS p)",
            "WITH c AS (SELECT * FROM `p.finance.daily`) SELECT * FROM c",
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
        ] {
            assert_eq!(
                read(sql),
                Relations::Outside("p.hr.salaries".into()),
                "{sql}"
            );
        }
    }

    #[test]
    fn a_default_dataset_counts_for_names_without_one() {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let within = |dataset: &str| {
            let default = DefaultDataset {
                project: None,
                dataset: dataset.into(),
            };
            Relations::read("SELECT * FROM t", 4, &scope, "p", Some(&default))
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
        let parse = move || sqls.map(|sql| Relations::read(&sql, tokens, &scope, "p", None));
        let read = std::thread::Builder::new()
            .stack_size(stack)
            .spawn(parse)
            .expect("a thread")
            .join()
            .expect("no overflow");
        assert!(
            read.iter()
                .all(|relations| matches!(relations, Relations::None | Relations::Unknown))
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
        let read = |tokens| Relations::read_with_room(&sql, tokens, &scope, "p", None);
        assert_eq!(read(8000).await, Relations::Outside("p.hr.salaries".into()));
        assert_eq!(read(TOKENS_MAX + 1).await, Relations::Unknown);
    }
}
