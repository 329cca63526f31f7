//! ZetaSQL, asked through `tests/oracle/oracle.py`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harness::world::venv_python;
use serde::Deserialize;
use serde_json::{Value, json};

use super::battery::{BUCKET, PROJECT, Window};
use super::product::Deeds;

/// Names whose two parts are a built-in function's, which is not in the oracle's catalog of functions in every case.
const SPACES: [&str; 6] = ["net", "safe", "hll_count", "kll_quantiles", "keys", "aead"];
const SCHEMA: &str = "information_schema";
/// The one kind of statement that is a query.
const QUERY: &str = "ast_query_statement_node";

/// The names of a path.
type Path_ = Vec<String>;

/// A running oracle.
pub(super) struct Oracle {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What it says of a text; see `oracle.py`.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) error: Option<String>,
    tables: Option<Vec<Path_>>,
    analysed: Option<Vec<String>>,
    /// What the analyser says of a text that it does not take.
    pub(super) said: Option<String>,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    written: Vec<Path_>,
    #[serde(default)]
    called: Vec<Path_>,
    /// What its one statement does, of those that a window may do.
    pub(super) deed: Option<String>,
    target: Option<Path_>,
    #[serde(default)]
    exported: Vec<Option<String>>,
    pub(super) world: Option<World>,
}

/// What the test world's BigQuery says of it.
#[derive(Debug, Deserialize)]
pub(super) struct World {
    pub(super) kind: String,
    tables: Option<Vec<(String, String, String)>>,
    /// The last two are absent of a name that has them not.
    target: Option<(String, Option<String>, String)>,
}

impl Oracle {
    /// Starts it. It takes half a minute where its module is not compiled yet.
    pub(super) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/oracle.py");
        let mut child = Command::new(venv_python())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let input = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut oracle = Self {
            child,
            input,
            answers,
        };
        let ready: Value = oracle.answer();
        assert_eq!(ready["ready"], true);
        oracle
    }

    fn answer<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let line = self.answers.next();
        let line = line.expect("the oracle is there: make its environment with `cargo xtask venv`");
        serde_json::from_str(&line.expect("reads")).expect("JSON")
    }

    /// What the text names, and in a window that writes what it does; only with `deep` all that an [`Answer`] can have.
    pub(super) fn ask(
        &mut self,
        sql: &str,
        dataset: Option<&str>,
        window: Window,
        deep: bool,
    ) -> Answer {
        let writes = window == Window::Writes;
        let asked = json!({"sql": sql, "dataset": dataset, "deep": deep, "writes": writes});
        writeln!(self.input, "{asked}").expect("the oracle reads");
        self.answer()
    }
}

impl Oracle {
    /// The names of all of GoogleSQL's own functions.
    pub(super) fn builtins(&mut self) -> Vec<String> {
        writeln!(self.input, "{}", json!({"builtins": true})).expect("the oracle reads");
        let answer: Value = self.answer();
        serde_json::from_value(answer["builtins"].clone()).expect("names")
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// Whether it is one statement, and that a query.
    pub(super) fn is_query(&self) -> bool {
        self.error.is_none() && self.kinds == [QUERY]
    }

    /// The tables that it reads by their full names, by the analyser where it knows them, else by the parser; names without a dataset only where
    /// there is a default one.
    pub(super) fn reads(&self, default: Option<(&str, &str)>) -> BTreeSet<String> {
        match &self.analysed {
            Some(analysed) => analysed.iter().cloned().collect(),
            None => named(self.tables.as_deref(), default),
        }
    }

    /// The tables that its text names, by their full names, and not what stands behind views; but for the one that it writes.
    pub(super) fn names(&self, default: Option<(&str, &str)>) -> BTreeSet<String> {
        let mut names = named(self.tables.as_deref(), default);
        let target = self.target(default);
        names.retain(|table| Some(table) != target.as_ref());
        names
    }

    /// The table that it writes, by its full name.
    pub(super) fn target(&self, default: Option<(&str, &str)>) -> Option<String> {
        full(self.target.as_ref()?, default)
    }

    /// Whether it writes only where the window that writes may.
    pub(super) fn writes_within(&self) -> bool {
        let is_scratch = |target: String| target.starts_with(&format!("{PROJECT}.scratch."));
        let is_own = |uri: &Option<String>| {
            uri.as_ref()
                .is_some_and(|uri| uri.starts_with(&format!("gs://{BUCKET}/")))
        };
        // A name without a dataset is nobody's table.
        let target = self.target.as_ref();
        target.is_none_or(|path| full(path, None).is_some_and(is_scratch))
            && self.exported.iter().all(is_own)
    }

    /// In what its writing differs from what the product has read of it: only of a text that ZetaSQL can read.
    pub(super) fn does_otherwise(
        &self,
        deeds: &Deeds,
        default: Option<(&str, &str)>,
    ) -> Option<String> {
        if self.error.is_some() {
            return None;
        }
        let target = self.target(default);
        let bucket = match self.exported.as_slice() {
            [] => None,
            [Some(uri)] => Some(uri.clone()),
            [None] | [_, _, ..] => Some("one that is not written out".to_owned()),
        };
        let goes_there = match (&bucket, &deeds.bucket) {
            (None, None) => true,
            (Some(uri), Some(bucket)) => {
                *bucket == format!("gs://{BUCKET}") && uri.starts_with(&format!("{bucket}/"))
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        let is_same = self.deed.is_some() && target == deeds.target && goes_there;
        (!is_same).then(|| {
            format!(
                "{:?} of {target:?}, to {bucket:?}, is to the product {deeds:?}",
                self.deed
            )
        })
    }

    /// What it names outside of the window's scope, by whichever reader.
    pub(super) fn outside(
        &self,
        default: Option<(&str, &str)>,
        window: Window,
    ) -> BTreeSet<String> {
        let mut names = named(self.tables.as_deref(), default);
        names.extend(self.analysed.iter().flatten().cloned());
        // What the parser has no tables of, as a script: every path that looks like one.
        if self.tables.is_none() {
            names.extend(named(Some(&self.written), default));
        }
        // Where the analyser got to the end, it knew every function: none is a routine.
        if self.analysed.is_none() {
            let called = self.called.iter().filter(|path| !is_built_in(path));
            names.extend(called.filter_map(|path| full(path, default)));
        }
        names.retain(|name| !is_within(name, window));
        names
    }
}

impl World {
    /// Whether it takes it for a statement that does this.
    pub(super) fn is_a(&self, deed: &str) -> bool {
        match deed {
            "CREATE TABLE" => ["CREATE_TABLE", "CREATE_TABLE_AS_SELECT"].contains(&&*self.kind),
            "EXPORT" => self.kind == "EXPORT_DATA",
            "TRUNCATE" => self.kind == "TRUNCATE_TABLE",
            "DROP TABLE" => self.kind == "DROP_TABLE",
            _ => self.kind == deed,
        }
    }

    /// The table that it says is written.
    pub(super) fn target(&self) -> Option<String> {
        let (project, dataset, table) = self.target.as_ref()?;
        Some(format!("{project}.{}.{table}", dataset.as_deref()?))
    }

    /// The tables that it names.
    pub(super) fn reads(&self) -> Option<BTreeSet<String>> {
        let tables = self.tables.as_ref()?.iter();
        Some(
            tables
                .map(|(project, dataset, table)| format!("{project}.{dataset}.{table}"))
                .collect(),
        )
    }
}

fn named(paths: Option<&[Path_]>, default: Option<(&str, &str)>) -> BTreeSet<String> {
    let paths = paths.unwrap_or_default().iter();
    paths.filter_map(|path| full(path, default)).collect()
}

fn is_built_in(path: &Path_) -> bool {
    path.first()
        .is_some_and(|space| SPACES.contains(&space.to_lowercase().as_str()))
        && path.len() == 2
}

fn is_within(name: &str, window: Window) -> bool {
    let rest = name
        .strip_prefix(PROJECT)
        .and_then(|rest| rest.strip_prefix('.'));
    let dataset = rest.and_then(|rest| rest.split_once('.'));
    dataset.is_some_and(|(dataset, _)| window.datasets().contains(&dataset))
}

/// The full name that BigQuery would look for; a name without a dataset is none where there is no default dataset.
fn full(path: &Path_, default: Option<(&str, &str)>) -> Option<String> {
    // Quoted, a name of several parts is one.
    let parts: Vec<&str> = path.iter().flat_map(|part| part.split('.')).collect();
    let at = parts
        .iter()
        .position(|part| part.eq_ignore_ascii_case(SCHEMA));
    let whole = match (at, parts.as_slice()) {
        (Some(1), _) | (None, [_, _]) => format!("{PROJECT}.{}", parts.join(".")),
        (None, [table]) => {
            let (project, dataset) = default?;
            format!("{project}.{dataset}.{table}")
        }
        (Some(_) | None, _) => parts.join("."),
    };
    Some(whole)
}
