//! Which tables a text names, as far as that can be told without BigQuery: enough to know whether its words may be passed on, and whether a
//! text names none. Never the ground for letting a query through: that is the dry run.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use enforcer_proto::scope::{DatasetRef, Scope};
use sqlparser::ast::{ObjectName, Query, Statement, TableFactor, Visit, Visitor};
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
            [_] => default.map(|default| {
                let project = default.project.as_deref().unwrap_or(project);
                DatasetRef::new(project, &default.dataset)
            }),
            [dataset, _] => Some(DatasetRef::new(project, dataset)),
            [project, dataset, ..] => Some(DatasetRef::new(project, dataset)),
            [] => None,
        };
        let outside = found.relations.iter().enumerate().find(|(at, name)| {
            let first = name.first().map_or("", String::as_str);
            let earlier = &found.relations[..*at];
            // A path into a table that was named before: `finance.daily, daily.parts`.
            let is_path = earlier.iter().any(|before| {
                before
                    .last()
                    .is_some_and(|last| last.eq_ignore_ascii_case(first))
            });
            let is_local = is_path || found.aliases.contains(&first.to_lowercase());
            // A name without any dataset is a local one, or BigQuery knows it as little as we do.
            !is_local
                && dataset_of(name)
                    .is_some_and(|dataset| !dataset.is_ok_and(|dataset| scope.covers(&dataset)))
        });
        match outside.map(|(_, name)| name) {
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

#[derive(Debug, Default)]
struct Found {
    relations: Vec<Vec<String>>,
    /// Aliases and common table expressions, in lower case: what a path in FROM may begin with.
    aliases: BTreeSet<String>,
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.aliases
            .extend(ctes.map(|cte| cte.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let text = relation.to_string().replace('`', "");
        self.relations
            .push(text.split('.').map(str::to_owned).collect());
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            alias: Some(alias), ..
        } = factor
        {
            self.aliases.insert(alias.name.value.to_lowercase());
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
        for sql in ["SELECT 1", "SELECT * FROM UNNEST([1, 2]) AS x"] {
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
            "SELECT (SELECT MAX(p) FROM d.parts AS p) FROM finance.daily AS d",
            "WITH c AS (SELECT * FROM `p.finance.daily`) SELECT * FROM c",
        ] {
            assert_eq!(read(sql), Relations::Within, "{sql}");
        }
        for sql in [
            "SELECT * FROM finance.daily, hr.salaries",
            "SELECT * FROM hr.salaries, finance.hr",
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
        let sqls = ["TRUE OR ", "SELECT 1 UNION ALL ", "1 + "].map(|part| {
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
