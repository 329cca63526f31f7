//! Which tables a text names, as far as that can be told without BigQuery: enough to know whether its words may be passed on, and whether a
//! text names none. Never the ground for letting a query through: that is the dry run.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use enforcer_proto::scope::{DatasetRef, Scope};
use sqlparser::ast::{ObjectName, Query, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::Parser;

use super::job::DefaultDataset;

/// The longest text that is parsed, tokens: what a parser nests takes stack, one level for every two tokens at most.
const TOKENS_MAX: usize = 2000;

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
        let outside = found.relations.iter().find(|name| {
            let is_local = name
                .first()
                .is_some_and(|first| found.aliases.contains(&first.to_lowercase()));
            // A name without any dataset is a local one, or BigQuery knows it as little as we do.
            !is_local
                && dataset_of(name)
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

#[derive(Debug, Default)]
struct Found {
    relations: Vec<Vec<String>>,
    /// Aliases, common table expressions and last names of tables, in lower case: what a path in FROM may begin with.
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
            "WITH c AS (SELECT * FROM `p.finance.daily`) SELECT * FROM c",
        ] {
            assert_eq!(read(sql), Relations::Within, "{sql}");
        }
        for sql in [
            "SELECT * FROM finance.daily, hr.salaries",
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

    #[test]
    fn the_longest_text_that_is_parsed_fits_the_stack_of_a_worker() {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let sqls = ["TRUE OR ", "SELECT 1 UNION ALL ", "1 + "].map(|part| {
            let tokens = part.split_whitespace().count();
            let last = if part.starts_with("SELECT") {
                "SELECT 1"
            } else {
                "1"
            };
            let body = part.repeat(TOKENS_MAX / tokens);
            if part.starts_with("SELECT") {
                format!("{body}{last}")
            } else {
                format!("SELECT {body}{last}")
            }
        });
        // The runtime's workers have two mebibytes.
        let parse = move || sqls.map(|sql| Relations::read(&sql, TOKENS_MAX, &scope, "p", None));
        let read = std::thread::Builder::new()
            .stack_size(2 * 1024 * 1024)
            .spawn(parse)
            .expect("a thread")
            .join()
            .expect("no overflow");
        assert!(
            read.iter()
                .all(|relations| *relations != Relations::Outside(String::new()))
        );
        assert_eq!(
            Relations::read(
                "SELECT 1",
                TOKENS_MAX + 1,
                &"p.d:read".parse().expect("a scope"),
                "p",
                None
            ),
            Relations::Unknown
        );
    }
}
