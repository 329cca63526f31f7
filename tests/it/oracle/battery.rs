//! The battery: statements by class, as they stand in `tests/oracle/battery.toml`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The project of the test world.
pub(super) const PROJECT: &str = "demo-project";
/// The bucket that the window which may write has.
pub(super) const BUCKET: &str = "demo-exports";
/// What becomes of a statement that is let through; anything else is a refusal's code.
pub(super) const SERVED: &str = "served";

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Battery {
    pub(super) class: Vec<Class>,
}

/// The window that a statement is judged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Window {
    /// It reads one dataset.
    #[default]
    Reads,
    /// Besides, it writes another one, and to a bucket.
    Writes,
}

impl Window {
    pub(super) const ALL: [Self; 2] = [Self::Reads, Self::Writes];

    /// As a grant says it.
    pub(super) const fn scope(self) -> &'static str {
        match self {
            Self::Reads => "demo-project.finance:read",
            Self::Writes => {
                "demo-project.finance:read,demo-project.scratch:ddl,gs://demo-exports:write"
            }
        }
    }

    /// The datasets that it reads.
    pub(super) const fn datasets(self) -> &'static [&'static str] {
        match self {
            Self::Reads => &["finance"],
            Self::Writes => &["finance", "scratch"],
        }
    }
}

/// Statements of a kind, which have a decision in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) name: String,
    pub(super) decision: String,
    #[serde(default)]
    pub(super) window: Window,
    pub(super) statement: Vec<Statement>,
}

/// One text, and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// [`SERVED`], or a refusal's code.
    pub(super) expect: String,
    /// Further fields of the query's configuration.
    #[serde(default)]
    job: Map<String, Value>,
    /// Why the product refuses what the oracle finds to be within the scope.
    pub(super) known: Option<String>,
    /// Why the test world's BigQuery says otherwise than the oracle what is read.
    pub(super) world: Option<String>,
    /// Why the test world's SQL engine cannot run what BigQuery could.
    pub(super) engine: Option<String>,
}

impl Battery {
    pub(super) fn load() -> Self {
        let battery: Self =
            toml::from_str(include_str!("../../oracle/battery.toml")).expect("the battery reads");
        assert!(battery.statements().count() >= 150, "a battery");
        battery
    }

    /// All statements, and the window that each is judged in.
    pub(super) fn statements(&self) -> impl Iterator<Item = (Window, &Statement)> {
        let classes = self.class.iter();
        classes.flat_map(|class| class.statement.iter().map(|one| (class.window, one)))
    }

    /// The classes that are judged in a window.
    pub(super) fn classes(&self, window: Window) -> impl Iterator<Item = &Class> {
        self.class
            .iter()
            .filter(move |class| class.window == window)
    }
}

impl Statement {
    pub(super) fn is_served(&self) -> bool {
        self.expect == SERVED
    }

    /// The body of `jobs.insert` that asks for it, with `sql` in its place.
    pub(super) fn body_of(&self, sql: &str) -> Value {
        let mut query = Map::new();
        query.insert("query".to_owned(), json!(sql));
        query.insert("useLegacySql".to_owned(), json!(false));
        query.extend(self.job.clone());
        json!({"configuration": {"query": query}})
    }

    /// The dataset in which names without one are looked for, as project and dataset.
    pub(super) fn default_dataset(&self) -> Option<(&str, &str)> {
        let default = self.job.get("defaultDataset")?;
        let project = default["projectId"].as_str().unwrap_or(PROJECT);
        Some((project, default["datasetId"].as_str()?))
    }
}
