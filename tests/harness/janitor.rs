//! Clears up after a test however it ended: a process of its own that waits for the test's end, and outlives a kill.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its standard input, which is the test's end; then empties and removes the cgroups, deepest first, and the folder.
/// A process that is just being born escapes one round of killing, not the next. Where cgroups of both versions are, a container runtime has made some
/// of the same name in the hierarchies of the first, which empty with those here.
const SWEEP: &str = r#"
read -r _
tries=0
while [ -d "$1" ] && [ $tries -lt 500 ]; do
    echo 1 > "$1/cgroup.kill"
    find "$1" -depth -type d -exec rmdir {} \;
    tries=$((tries + 1))
    sleep 0.01
done
for other in /sys/fs/cgroup/*/"${1##*/}"; do
    [ ! -d "$other" ] || find "$other" -depth -type d -exec rmdir {} \;
done
rm -rf "$2"
"#;

/// The janitor of one stage. Dropping it does its work at once, and waits for it.
#[derive(Debug)]
pub(crate) struct Janitor(Child);

impl Janitor {
    pub(crate) fn of(cgroups: &Path, folder: &Path) -> Self {
        use std::os::unix::process::CommandExt;
        let child = Command::new("/bin/sh")
            .args(["-c", SWEEP, "janitor"])
            .args([cgroups, folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Whoever kills the test with its process group, as Ctrl-C and test runners do, spares the janitor.
            .process_group(0)
            .spawn();
        Self(child.expect("starts a shell"))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Waiting closes the input first, which is what the shell waits for.
        let _ = self.0.wait();
    }
}
