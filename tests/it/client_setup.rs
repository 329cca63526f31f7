//! Setting a whole host's clients up: they do not trust the proxy, then they do, and then everything is as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use harness::stage::Side;
use harness::world::{Who, World, cloud_sdk, node, venv_python};
use serde_json::Value;

use crate::clients::situations::world;

const PROFILE: &str = "/etc/profile.d/enforcer-clients.sh";
const ANCHOR: &str = "/usr/local/share/ca-certificates/enforcer.crt";

/// A world whose host's settings are the stage's own.
fn host() -> World {
    let world = world();
    let sdk = cloud_sdk();
    let fixed = [Path::new("/etc"), Path::new("/usr/local/share")];
    let folders: Vec<&Path> = fixed.into_iter().chain(sdk.as_deref()).collect();
    world.stage.shadow(&folders);
    world
}

/// Runs `enforcer client …` as root, and gives its exit code and the lines it prints, as JSON.
fn client(world: &World, arguments: &[&str]) -> (i32, Vec<Value>) {
    let config = world.config().display().to_string();
    let (what, rest) = arguments.split_first().expect("a command");
    let all = [&["client", what, "--config", &config, "--json"], rest].concat();
    let output = world.cli(Who::Operator, &all);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    (output.status.code().expect("an exit code"), lines)
}

/// What became of each client that was tried: `trusts` or `fails`.
fn checked(world: &World) -> (i32, BTreeMap<String, String>) {
    let (python, node) = (venv_python(), node().join("bin/node"));
    let arguments = [
        "check",
        "--python",
        &python.display().to_string(),
        "--node",
        &node.display().to_string(),
    ]
    .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, lines) = client(world, &arguments);
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let tried = lines
        .iter()
        .filter(|line| !["", "not_tried"].contains(&text(line, "outcome").as_str()))
        .map(|line| {
            let name = format!("{} {}", text(line, "client"), text(line, "program"));
            (
                name,
                format!("{}: {}", text(line, "outcome"), text(line, "said")),
            )
        });
    (code, tried.collect())
}

/// All files of the folders that are set up, as the host has them.
fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    world.stage.on(Side::Host, || {
        let sdk = cloud_sdk().map(|sdk| sdk.join("properties"));
        let mut paths: Vec<PathBuf> = sdk.into_iter().collect();
        for folder in [
            "/etc/profile.d",
            "/etc/environment.d",
            "/usr/local/share/ca-certificates",
        ] {
            let inside = std::fs::read_dir(folder).into_iter().flatten();
            paths.extend(inside.map(|entry| entry.expect("reads").path()));
        }
        let there = paths
            .into_iter()
            .filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?)));
        there.collect()
    })
}

#[test]
fn clients_of_every_kind_hear_the_proxy_once_the_host_is_set_up_and_not_before_or_after() {
    let world = host();
    let before = files(&world);
    let (code, tried) = checked(&world);
    assert_eq!(code, 1);
    let kinds = if cloud_sdk().is_some() { 5 } else { 4 };
    assert!(tried.len() >= kinds, "{tried:#?}");
    assert!(
        tried.values().all(|said| said.starts_with("fails")),
        "{tried:#?}"
    );

    let (code, lines) = client(&world, &["setup"]);
    assert_eq!(code, 0, "{lines:#?}");
    let (code, tried_now) = checked(&world);
    assert!(
        tried_now.values().all(|said| said.starts_with("trusts")),
        "{tried_now:#?}"
    );
    assert_eq!(code, 0, "{tried_now:#?}");
    assert!(tried_now.keys().eq(tried.keys()), "{tried_now:#?}");

    // In a window as well, where BigQuery itself is heard.
    let grant = world.open_window("demo-project.finance:read", "5m");
    let (code, inside) = checked(&world);
    assert_eq!(code, 0, "{inside:#?}");
    assert!(
        inside
            .values()
            .any(|said| said.contains("bigquery#projectList")),
        "{inside:#?}"
    );
    let _ = world.json(Who::Agent, &["close", &grant]);

    let (_, again) = client(&world, &["setup"]);
    assert!(
        again.iter().all(|line| line["what"] == "unchanged"),
        "{again:#?}"
    );

    let (code, removed) = client(&world, &["remove"]);
    assert_eq!(code, 0, "{removed:#?}");
    assert!(
        removed
            .iter()
            .all(|line| line["what"] == "put back" || line["note"].is_string()),
        "{removed:#?}"
    );
    assert_eq!(files(&world), before);
    let (code, tried_then) = checked(&world);
    assert_eq!(code, 1);
    assert!(
        tried_then.values().all(|said| said.starts_with("fails")),
        "{tried_then:#?}"
    );
}

#[test]
fn a_dry_run_shows_every_line_that_would_come_and_writes_none() {
    let world = host();
    let before = files(&world);
    let (code, lines) = client(
        &world,
        &[
            "setup",
            "--dry-run",
            "--only",
            "environment",
            "--only",
            "store",
        ],
    );
    assert_eq!(code, 0);
    let diff = |path: &str| {
        let line = lines.iter().find(|line| line["path"] == path);
        line.unwrap_or_else(|| panic!("{lines:#?}"))["diff"].clone()
    };
    let profile = diff(PROFILE).to_string();
    assert!(
        profile.contains("+export NODE_EXTRA_CA_CERTS="),
        "{profile}"
    );
    assert_eq!(
        diff(ANCHOR),
        "  certificates: 0 before, 1 after; 0 go, 1 come\n"
    );
    assert_eq!(files(&world), before);
}

#[test]
fn what_cannot_be_set_up_is_said_in_one_sentence_and_nothing_is_changed() {
    let world = host();
    let before = files(&world);
    let config = world.config().display().to_string();
    for (arguments, says) in [
        (
            vec!["setup", "--sdk", "/nowhere"],
            "there is no Cloud SDK in /nowhere",
        ),
        (
            vec!["check", "--agent", "nobody"],
            "the configuration has no agent nobody",
        ),
        (vec!["setup", "--root", "/"], "is this host's own root"),
        (
            vec!["remove", "--root", "/proc/self/root"],
            "is this host's own root",
        ),
        (vec!["setup", "--root", "/etc/passwd"], "is no folder"),
        (vec!["remove", "--root", "/nowhere"], "No such file"),
        (vec!["setup", "--only", "environment"], "it is a link"),
    ] {
        if says == "it is a link" {
            world.stage.on(Side::Host, || {
                std::os::unix::fs::symlink("/etc/passwd", PROFILE).expect("links")
            });
        }
        let output = world.cli(
            Who::Operator,
            &[&["client"], arguments.as_slice(), &["--config", &config]].concat(),
        );
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(
            errors.contains(says) && errors.lines().count() == 1,
            "{errors}"
        );
    }
    world.stage.on(Side::Host, || {
        std::fs::remove_file(PROFILE).expect("removes")
    });
    assert_eq!(files(&world), before);
}

/// Every path below a folder: a file's text and mode, a link's target, nothing of a folder but its mode.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("reads") {
        let path = entry.expect("reads").path();
        let metadata = path.symlink_metadata().expect("is there");
        let content = if metadata.is_dir() {
            all.extend(tree(&path));
            Vec::new()
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).expect("reads");
            target.as_os_str().as_bytes().to_vec()
        } else {
            std::fs::read(&path).expect("reads")
        };
        all.insert(path, (metadata.mode(), content));
    }
    all
}

#[test]
fn an_unpacked_root_is_set_up_and_put_back_byte_for_byte_and_nothing_of_it_is_run() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let world = host();
    let before_host = files(&world);
    let root = world.stage.dir().join("unpacked");
    let ran = root.join("ran");
    for folder in [
        "usr/sbin",
        "etc/ssl/certs",
        "opt/google-cloud-sdk/bin",
        "var",
    ] {
        std::fs::create_dir_all(root.join(folder)).expect("makes");
    }
    let ca = std::fs::read(world.stage.dir().join("run/ca.pem")).expect("reads");
    let tool = root.join("usr/sbin/update-ca-certificates");
    let script = format!("#!/bin/sh\n: > {}\n", ran.display());
    for (path, text) in [
        (tool.clone(), script.as_str()),
        (root.join("opt/google-cloud-sdk/bin/gcloud"), &script),
        (root.join("etc/ssl/certs/ca-certificates.crt"), "# none\n"),
    ] {
        std::fs::write(&path, text).expect("writes");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("changes");
    }
    symlink("certs/ca-certificates.crt", root.join("etc/ssl/cert.pem")).expect("links");
    let before = tree(&root);
    let shown = root.display().to_string();
    let written = |what: &str, rest: &[&str], word: &str| {
        let (code, lines) = client(&world, &[&[what, "--root", &shown], rest].concat());
        assert_eq!(code, 0, "{lines:#?}");
        assert!(!ran.exists(), "{lines:#?}");
        lines.iter().filter(|line| line["what"] == word).count()
    };
    let planned = written("setup", &["--dry-run"], "would write");
    assert_eq!(tree(&root), before);
    assert_eq!(written("setup", &[], "wrote"), planned);
    let now = tree(&root);
    let roots = &now[&root.join("etc/ssl/certs/ca-certificates.crt")].1;
    assert_eq!(*roots, [&b"# none\n"[..], &ca].concat());
    assert_eq!(written("setup", &[], "unchanged"), planned);
    assert_eq!(written("remove", &["--dry-run"], "put back"), planned);
    assert_eq!(tree(&root), now);
    assert_eq!(written("remove", &[], "put back"), planned);
    assert_eq!(tree(&root), before);
    assert_eq!(files(&world), before_host);
}

/// A root in which a user has a Cloud SDK, reached by a link of theirs; properties and a script of the shell's in one.
fn root_of_a_user(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
    let home = root.join("home/mallory");
    for folder in ["etc/cron.daily", "home/mallory/real/bin"] {
        std::fs::create_dir_all(root.join(folder)).expect("makes");
    }
    let properties = home.join("real/properties");
    std::fs::write(home.join("real/bin/gcloud"), "").expect("writes");
    std::fs::write(&properties, "[core]\nx=$(touch /tmp/run)\n").expect("writes");
    std::fs::set_permissions(&properties, PermissionsExt::from_mode(0o755)).expect("changes");
    symlink("real", home.join("sdk")).expect("links");
    symlink("../../etc/cron.daily", home.join("next")).expect("links");
    for path in [&home, &home.join("real"), &properties] {
        chown(path, Some(64321), Some(64321)).expect("gives away");
    }
    for link in ["sdk", "next"] {
        lchown(home.join(link), Some(64321), Some(64321)).expect("gives away");
    }
}

#[test]
fn a_cloud_sdk_of_a_users_own_is_refused_however_its_link_is_changed_meanwhile() {
    let world = host();
    let root = world.stage.dir().join("unpacked");
    root_of_a_user(&root);
    let home = root.join("home/mallory");
    let is_done = AtomicBool::new(false);
    let config = world.config().display().to_string();
    let shown = root.display().to_string();
    let outputs: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                exchange(&home.join("sdk"), &home.join("next"));
            }
        });
        let arguments = ["client", "setup", "--config", &config, "--root", &shown];
        let sdk = ["--sdk", "/home/mallory/sdk", "--only", "sdk"];
        let all = [&arguments[..], &sdk[..]].concat();
        let outputs = (0..8).map(|_| world.cli(Who::Operator, &all)).collect();
        is_done.store(true, Ordering::Relaxed);
        outputs
    });
    for output in outputs {
        let errors = String::from_utf8_lossy(&output.stderr);
        // Where the link led elsewhere as the SDK was looked for, there was none.
        let is_said = errors.contains("home/mallory belongs to uid 64321")
            || errors.contains("there is no Cloud SDK in");
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(is_said && errors.lines().count() == 1, "{errors}");
    }
    let mut inside = std::fs::read_dir(root.join("etc/cron.daily")).expect("reads");
    assert!(inside.next().is_none(), "nothing was written there");
    let real = std::fs::read_to_string(home.join("real/properties")).expect("reads");
    assert_eq!(real, "[core]\nx=$(touch /tmp/run)\n");
}

fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchanges");
}
