//! The part of the suite that runs on other kernels: what was built for this host, and the names of the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::sh;

/// The kernel programs' own tests, the ways around them, and the guard of interfaces, which older kernels hold otherwise. The rest of the
/// suite needs a SQL engine and Google's clients.
const MODULES: &[&str] = &[
    "kernel::",
    "bypass::kernel::",
    "bypass::identity::",
    "bypass::names::",
    "bypass::ports::",
    "bypass::interfaces::",
    "bypass::full::",
    "drift::a_guard_",
];

/// Tests of these modules that need a far side that serves BigQuery, and so run here alone: what they show is the proxy's work.
const NEED_BIGQUERY: [&str; 2] = [
    "bypass::names::an_allowed_name_leads_to_no_other_at_its_address",
    "bypass::names::answers_that_lead_inside_are_not_believed",
];

/// What was built.
#[derive(Debug)]
pub(super) struct Suite {
    /// The integration tests' program.
    pub(super) program: PathBuf,
    /// The daemon.
    pub(super) enforcer: PathBuf,
    /// The tests to run.
    pub(super) tests: Vec<String>,
}

impl Suite {
    /// Builds it as CI does, so that nothing is built twice.
    pub(super) fn build(root: &Path, only: &[String]) -> Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(root).args([
            "build",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--message-format",
            "json",
        ]);
        let said = sh::output(&mut cargo)?;
        let built: Vec<Value> = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let program = executable(&built, "it", "test")?;
        let tests = tests(&program, only)?;
        ensure!(
            !tests.is_empty(),
            "no test of the kernel part begins with {}: there are {}",
            only.join(" or "),
            MODULES.join(", ")
        );
        Ok(Self {
            program,
            enforcer: executable(&built, "enforcer", "bin")?,
            tests,
        })
    }
}

fn executable(built: &[Value], name: &str, kind: &str) -> Result<PathBuf> {
    let is_wanted = |artifact: &&Value| {
        artifact["target"]["name"] == name
            && artifact["target"]["kind"][0] == kind
            // A program's own unit tests are built under its name, too.
            && (kind == "test" || artifact["profile"]["test"] == false)
    };
    let path = built
        .iter()
        .filter(is_wanted)
        .find_map(|artifact| artifact["executable"].as_str());
    path.map(PathBuf::from)
        .with_context(|| format!("cargo built no {kind} called {name}"))
}

fn tests(program: &Path, only: &[String]) -> Result<Vec<String>> {
    let said = sh::output(Command::new(program).args(["--list", "--format", "terse"]))?;
    let all = said.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_wanted = |name: &&str| only.is_empty() || only.iter().any(|only| name.starts_with(only));
    let all: Vec<&str> = all
        .filter(|name| !NEED_BIGQUERY.contains(name))
        .filter(is_wanted)
        .collect();
    let are_known = NEED_BIGQUERY.iter().all(|name| said.contains(name));
    ensure!(are_known, "a test that is left out is not there any more");
    let mut ours = Vec::new();
    for module in MODULES {
        let of_it = all.iter().filter(|name| name.starts_with(module));
        ours.extend(of_it.map(|name| (*name).to_owned()));
    }
    Ok(ours)
}
