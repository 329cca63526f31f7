//! The uids that are subordinate to agents', as this host's files give them (`subuid(5)`): what an agent may be in a user namespace of its own, and
//! what a file that it has left there, set-user-id, makes of whoever runs it anywhere. Only looks.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use enforcer_ebpf::map::SUBUIDS_MAX;
use nix::unistd::{Uid, User};

use crate::config::Config;

/// How much of a file is read, bytes: that of ten thousand users is a thirtieth of it.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Uids of which the first `bits` bits are those of `first`, as the kernel is told them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The first of them.
    pub first: u32,
    /// How many bits they have in common.
    pub bits: u32,
}

/// How long a directory may take to answer for one user, seconds.
const ASKING_S: &str = "5";
/// Where the program is looked for that asks a directory.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many looks pass before what could not be read is tried again: there are four a second at most.
const LET_BE_MAX: u32 = 120;

/// The files that say who has which, and where they are.
#[derive(Debug, Clone)]
struct Files {
    ranges: PathBuf,
    users: PathBuf,
    sources: PathBuf,
    /// The folders that programs are looked for in, as in PATH.
    programs: String,
}

/// What of a file changes when it is written.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The uids.
    pub prefixes: BTreeSet<Prefix>,
    /// What could not be read, one sentence each.
    pub problems: Vec<String>,
}

/// Looks for the uids that are subordinate to some, again where a file has changed.
#[derive(Debug)]
pub struct Subordinate {
    files: Files,
    of: BTreeSet<u32>,
    seen: Option<[Stamp; 3]>,
    found: Found,
    /// Whether what was found was ever read: until then nobody knows.
    is_known: bool,
    /// How often it was not looked again since, though something could not be read.
    let_be: u32,
}

impl Subordinate {
    /// Those that are subordinate to the agents' uids; nothing has been looked at yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let files = Files {
            ranges: config.subuid_file.clone(),
            users: "/etc/passwd".into(),
            sources: "/etc/nsswitch.conf".into(),
            programs: PATH.to_owned(),
        };
        Self::among(files, config.agent_uids())
    }

    const fn among(files: Files, of: BTreeSet<u32>) -> Self {
        Self {
            files,
            of,
            seen: None,
            found: Found {
                prefixes: BTreeSet::new(),
                problems: Vec::new(),
            },
            is_known: false,
            let_be: 0,
        }
    }

    /// Whether what was found last was ever read. What the kernel holds from before stays until it was.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.is_known
    }

    /// What there is now, or was when it could be read last. Waits for files, and for a directory where one is named.
    pub fn look(&mut self) -> &Found {
        let files = [&self.files.ranges, &self.files.users, &self.files.sources];
        let now = files.map(|path| stamp(path));
        // What could not be read is tried again, now and then.
        let is_tried = self.found.problems.is_empty() || self.let_be < LET_BE_MAX;
        if self.seen == Some(now) && is_tried {
            self.let_be = self.let_be.saturating_add(1);
            return &self.found;
        }
        (self.seen, self.let_be) = (Some(now), 0);
        match found(&self.files, &self.of) {
            Ok(found) => (self.found, self.is_known) = (found, true),
            // What was known stays: forgotten, who was an agent's would be nobody's.
            Err(problem) => self.found.problems = vec![problem],
        }
        &self.found
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}

/// # Errors
/// Why nothing is known, as a sentence.
fn found(files: &Files, of: &BTreeSet<u32>) -> Result<Found, String> {
    let mut problems = Vec::new();
    let ranges = ranges(files, of, &mut problems).map_err(|error| {
        format!(
            "the uids that are subordinate to agents' cannot be read ({error}), so that what runs as one that was given since then outside a workload passes for nobody's: see `getsubids` and {}",
            files.ranges.display()
        )
    })?;
    let mut prefixes = prefixes(ranges);
    let room = usize::try_from(SUBUIDS_MAX).unwrap_or(usize::MAX);
    if let Some(first) = prefixes.iter().nth(room).copied() {
        problems.push(format!(
            "there is no room in the kernel for the uids from {} on that are subordinate to agents': give agents fewer ranges in {}, or such that touch",
            first.first,
            files.ranges.display()
        ));
        drop(prefixes.split_off(&first));
    }
    Ok(Found { prefixes, problems })
}

/// The ranges that belong to these uids, each with its first and how many.
fn ranges(
    files: &Files,
    of: &BTreeSet<u32>,
    problems: &mut Vec<String>,
) -> io::Result<Vec<(u32, u32)>> {
    let names = names(files, of)?;
    let sources = read(&files.sources)?;
    let source = source(&sources);
    if source.is_none_or(|source| source == "files") {
        return Ok(in_file(&read(&files.ranges)?, of, &names, problems));
    }
    // A directory has them: the program that comes with it asks there.
    let mut ranges = Vec::new();
    for name in &names {
        ranges.extend(listed(&asked(name, &files.programs)?));
    }
    Ok(ranges)
}

/// What `getsubids` says of a user. It fails for who has none, and as it does where its directory cannot be reached: that is not told apart.
fn asked(name: &str, programs: &str) -> io::Result<String> {
    let said = Command::new("timeout")
        .args(["--kill-after=1", ASKING_S, "getsubids", name])
        .env_clear()
        .env("PATH", programs)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()?;
    // See timeout(1): it took too long, it cannot be run, or it was killed.
    let is_asked = said
        .status
        .code()
        .is_some_and(|code| !(124..=137).contains(&code));
    if !is_asked {
        return Err(io::Error::other(format!(
            "getsubids for {name}, which has {ASKING_S} s: {}",
            said.status
        )));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// All names that these uids have: by any of them its ranges may be given.
fn names(files: &Files, of: &BTreeSet<u32>) -> io::Result<BTreeSet<String>> {
    let users = read(&files.users)?;
    let named = users.lines().filter_map(|line| {
        // name:password:uid:…
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        of.contains(&uid.parse().ok()?).then(|| name.to_owned())
    });
    let mut names: BTreeSet<String> = named.collect();
    // Some only a directory knows.
    for uid in of {
        let user = User::from_uid(Uid::from_raw(*uid)).map_err(io::Error::from)?;
        names.extend(user.map(|user| user.name));
    }
    Ok(names)
}

/// A file that is not there says nothing.
fn read(path: &Path) -> io::Result<String> {
    let wrong =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(wrong(error)),
    };
    let mut bytes = Vec::new();
    let size = file
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(wrong)?;
    if u64::try_from(size).is_ok_and(|size| size == FILE_BYTES_MAX) {
        return Err(wrong(io::Error::other("is larger than 16 MiB")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where subordinate uids are looked up, if that is said: one source, unlike other lines' (`nsswitch.conf(5)`).
fn source(switch: &str) -> Option<&str> {
    let mut lines = switch
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line));
    let ours = lines.find_map(|line| line.trim_start().strip_prefix("subid:"))?;
    ours.split_whitespace().next()
}

/// What the file of ranges gives to these users, by number or by name. A line of theirs that cannot be read is said.
fn in_file(
    text: &str,
    of: &BTreeSet<u32>,
    names: &BTreeSet<String>,
    problems: &mut Vec<String>,
) -> Vec<(u32, u32)> {
    let mut ranges = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        let is_theirs = names.contains(owner) || owner.parse().is_ok_and(|uid| of.contains(&uid));
        if !is_theirs {
            continue;
        }
        let mut number = || fields.next()?.trim().parse::<u32>().ok();
        match (number(), number()) {
            (Some(first), Some(count)) => ranges.push((first, count)),
            _ => problems.push(format!(
                "a line of subordinate uids cannot be read, so that they pass for nobody's: {line:?}"
            )),
        }
    }
    ranges
}

/// What `getsubids` lists: number, name, first and how many, on each line.
fn listed(said: &str) -> Vec<(u32, u32)> {
    let read = said.lines().filter_map(|line| {
        let mut last = line.split_whitespace().rev();
        let (count, first) = (last.next()?, last.next()?);
        Some((first.parse().ok()?, count.parse().ok()?))
    });
    read.collect()
}

/// The fewest prefixes that are all uids of these ranges, and no others; those that touch or overlap are one range. Root is nobody's subordinate.
fn prefixes(ranges: Vec<(u32, u32)>) -> BTreeSet<Prefix> {
    let ends = ranges.into_iter().map(|(first, count)| {
        let end = (u64::from(first) + u64::from(count)).min(1 << 32);
        (u64::from(first.max(1)), end)
    });
    let mut ends: Vec<(u64, u64)> = ends.filter(|(first, end)| first < end).collect();
    ends.sort_unstable();
    let mut prefixes = BTreeSet::new();
    let mut done = 0;
    for (first, end) in joined(ends) {
        done = first.max(done);
        while done < end {
            // The largest block that begins here and ends in time.
            let fits = done.trailing_zeros().min((end - done).ilog2());
            let Ok(first) = u32::try_from(done) else {
                break;
            };
            prefixes.insert(Prefix {
                first,
                bits: u32::BITS.saturating_sub(fits),
            });
            done += 1 << fits;
        }
    }
    prefixes
}

/// Sorted ranges, of which those that touch or overlap are one.
fn joined(sorted: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, end) in sorted {
        match joined.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((first, end)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_in(prefixes: &BTreeSet<Prefix>, uid: u32) -> bool {
        let mut all = prefixes.iter();
        all.any(|prefix| (u64::from(prefix.first) ^ u64::from(uid)) >> (32 - prefix.bits) == 0)
    }

    fn files(dir: &Path, subuid: &str, switch: &str) -> Files {
        let files = Files {
            ranges: dir.join("subuid"),
            users: dir.join("passwd"),
            sources: dir.join("nsswitch.conf"),
            programs: format!("{}:{PATH}", dir.display()),
        };
        std::fs::write(&files.ranges, subuid).expect("writes");
        std::fs::write(
            &files.users,
            "bot:x:2001:2001::/:/bin/sh\nalias:x:2001:0::/:/bin/sh\nother:x:2009:0::/:/bin/sh\n",
        )
        .expect("writes");
        std::fs::write(&files.sources, switch).expect("writes");
        files
    }

    #[test]
    fn ranges_are_an_agents_by_its_number_and_by_any_of_its_names() {
        let dir = tempfile::tempdir().expect("makes a folder");
        let text =
            "bot:100000:10\nalias:100010:10\n2001:300000:1\nother:500000:10\n2009:600000:10\n";
        let mut looks = Subordinate::among(files(dir.path(), text, ""), [2001].into());
        let Found { prefixes, problems } = looks.look().clone();
        assert_eq!(problems, Vec::<String>::new());
        for uid in [100_000, 100_009, 100_010, 100_019, 300_000] {
            assert!(is_in(&prefixes, uid), "{uid}");
        }
        for uid in [0, 2001, 99_999, 100_020, 299_999, 300_001, 500_000, 600_000] {
            assert!(!is_in(&prefixes, uid), "{uid}");
        }
    }

    #[test]
    fn a_file_that_changes_is_read_anew_and_what_cannot_be_read_is_said() {
        let dir = tempfile::tempdir().expect("makes a folder");
        let files = files(dir.path(), "bot:100000:1\n", "subid: files # as ever\n");
        let mut looks = Subordinate::among(files.clone(), [2001].into());
        assert!(is_in(&looks.look().prefixes, 100_000));
        std::fs::write(&files.ranges, "bot:200000:2\nbot:what:1\n").expect("writes");
        let found = looks.look().clone();
        assert!(is_in(&found.prefixes, 200_001) && !is_in(&found.prefixes, 100_000));
        assert!(found.problems[0].contains("bot:what:1"), "{found:?}");
        std::fs::remove_file(&files.ranges).expect("removes");
        assert_eq!(*looks.look(), Found::default());
        std::fs::write(&files.ranges, "bot:300000:1\n").expect("writes");
        assert!(is_in(&looks.look().prefixes, 300_000));
        std::fs::remove_file(&files.ranges).expect("removes");
        std::fs::create_dir(&files.ranges).expect("makes a folder");
        let found = looks.look().clone();
        assert!(found.problems[0].contains("cannot be read"));
        assert!(is_in(&found.prefixes, 300_000), "what was known stays");
        let mut first = Subordinate::among(files.clone(), [2001].into());
        first.look();
        assert!(!first.is_known(), "nothing was ever read");
        // It is tried again, though no file has changed that is looked at.
        std::fs::remove_dir(&files.ranges).expect("removes");
        first.seen = Some([&files.ranges, &files.users, &files.sources].map(|path| stamp(path)));
        for _ in 0..=LET_BE_MAX {
            first.look();
        }
        assert!(first.is_known());
    }

    #[test]
    fn another_source_than_the_file_is_seen() {
        assert_eq!(source("passwd: files\n"), None);
        assert_eq!(source("passwd: files\n# subid: sss\n"), None);
        assert_eq!(source("passwd: files\n  subid:\tsss\n"), Some("sss"));
        assert_eq!(
            listed("0: bot 100000 65536\n1: bot 300000 1\n"),
            [(100_000, 65_536), (300_000, 1)]
        );
    }

    #[test]
    fn a_directory_is_asked_and_one_that_does_not_answer_leaves_what_was_known() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("makes a folder");
        let files = files(dir.path(), "bot:1:1\n", "subid: sss\n");
        let program = dir.path().join("getsubids");
        let becomes = |text: &str| {
            let next = dir.path().join("next");
            std::fs::write(&next, text).expect("writes");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&next, mode).expect("sets a mode");
            std::fs::rename(&next, &program).expect("moves");
        };
        becomes("#!/bin/sh\ntest $1 = bot && echo 0: bot 100000 2\n");
        let mut looks = Subordinate::among(files, [2001].into());
        assert_eq!(looks.look().problems, Vec::<String>::new());
        assert!(is_in(&looks.look().prefixes, 100_001));
        becomes("#!/bin/sh\nkill -9 $PPID $$\n");
        looks.seen = None;
        let found = looks.look();
        assert!(found.problems[0].contains("cannot be read"), "{found:?}");
        assert!(is_in(&found.prefixes, 100_001));
    }

    #[test]
    fn a_range_as_useradd_gives_it_takes_few_prefixes_and_ranges_that_touch_are_one() {
        assert_eq!(prefixes(vec![(165_536, 65_536)]).len(), 12);
        let many = (0..10_000).map(|user| (100_000 + user * 65_536, 65_536));
        assert!(prefixes(many.collect()).len() < 40);
        assert_eq!(prefixes(vec![(0, 1)]), BTreeSet::new());
        assert!(!is_in(&prefixes(vec![(0, u32::MAX)]), 0));
    }

    proptest! {
        #[test]
        fn prefixes_are_the_ranges_and_nothing_else(ranges in prop::collection::vec((0_u32..5000, 0_u32..700), 0..8)) {
            let prefixes = prefixes(ranges.clone());
            for uid in 0..6000 {
                let is_one = uid != 0 && ranges.iter().any(|(first, count)| (*first..first + count).contains(&uid));
                prop_assert_eq!(is_in(&prefixes, uid), is_one, "{}", uid);
            }
        }
    }
}
