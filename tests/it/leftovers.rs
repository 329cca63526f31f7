//! What the tests themselves leave behind: nothing, also when they are killed.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::stage::{Side, Stage};
use harness::world::wait_for;

/// Played by [`a_killed_test_leaves_no_process_cgroup_or_file_behind`] in a process of its own.
#[test]
#[ignore = "waits to be killed"]
fn a_test_that_hangs() {
    let stage = Stage::new();
    let workload = stage.cgroups.make("agents/one");
    let mut command = stage.command_in(Side::Host, Some(&workload), None, "sleep");
    let mut child = command.arg("600").spawn().expect("sleep runs");
    let mut out = std::io::stdout();
    let (root, dir) = (stage.cgroups.root().display(), stage.dir().display());
    writeln!(out, "\nhangs {root} {dir} /proc/{}", child.id()).expect("writes");
    child.wait().expect("is killed with this test");
}

#[test]
fn a_killed_test_leaves_no_process_cgroup_or_file_behind() {
    let me = std::env::current_exe().expect("a path");
    let mut hanging = Command::new(me)
        .args(["leftovers::a_test_that_hangs", "--exact", "--ignored"])
        .arg("--nocapture")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test runs");
    let output = BufReader::new(hanging.stdout.take().expect("piped"));
    let said = output
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("hangs "))
        .expect("it gets as far as hanging");
    let left: Vec<PathBuf> = said.split(' ').skip(1).map(PathBuf::from).collect();
    assert!(left.len() == 3 && left.iter().all(|path| path.exists()));
    hanging.kill().expect("kills");
    hanging.wait().expect("ends");
    wait_for("the janitor", || left.iter().all(|path| !path.exists()));
}
