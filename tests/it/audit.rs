//! The log outlives trust in its host: checkpoints that others keep, and a check that needs nothing but files and a public key.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use harness::world::{Family, Who, World, wait_for};
use serde_json::Value;

/// The uid of the program that is given checkpoints.
const WITNESS_UID: u32 = 4002;
const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A world whose daemon signs every second and hands checkpoints to a script, which notes its own cgroup as well.
fn witnessed() -> (World, PathBuf) {
    let mut world = World::without_daemon(Family::V4);
    let kept = world.stage.dir().join("witness");
    std::fs::create_dir_all(&kept).expect("makes a folder");
    std::os::unix::fs::chown(&kept, Some(WITNESS_UID), None).expect("gives it away");
    let script = kept.join("keep");
    let text = format!(
        "#!/bin/sh\nset -e\n[ ! -e {0}/down ] || {{ echo the tape is full >&2; exit 7; }}\ncat > {0}/draft\ncat /proc/self/cgroup > {0}/cgroup\nid -u > {0}/uid\nenv > {0}/env\nmv {0}/draft {0}/newest\n",
        kept.display()
    );
    std::fs::write(&script, text).expect("writes");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("may run");
    world.edit_config(
        "[[agent]]",
        &format!(
            "[audit]\ncheckpoint_every = \"1s\"\nwitness_command = [\"{}\"]\nwitness_user = {WITNESS_UID}\n[[agent]]",
            script.display()
        ),
    );
    world.start_daemon();
    (world, kept)
}

fn verify(world: &World, dir: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let dir = dir.display().to_string();
    let args = [&["log", "verify", "--dir", &dir, "--json"], more].concat();
    let Output { status, stdout, .. } = world.cli(Who::Operator, &args);
    let said = serde_json::from_slice(&stdout).unwrap_or_default();
    (status.code(), said)
}

/// What was signed of so many records at least, as the witness has it.
fn witnessed_since(world: &World, kept: &Path) {
    let records = world.status()["log"]["records"].as_u64().expect("a number");
    wait_for("a checkpoint", || {
        let note = std::fs::read_to_string(kept.join("newest")).unwrap_or_default();
        let signed = note
            .lines()
            .nth(1)
            .and_then(|line| line.parse::<u64>().ok());
        signed.is_some_and(|signed| signed >= records)
    });
}

/// The program that is given checkpoints is not in the daemon's own cgroup and is told no secret; nor is anybody else.
fn keeps_to_itself(world: &World, kept: &Path) {
    let cgroup = std::fs::read_to_string(kept.join("cgroup")).expect("reads");
    assert!(cgroup.contains("/enforcer-helpers/witness-"), "{cgroup}");
    let uid = std::fs::read_to_string(kept.join("uid")).expect("reads");
    assert_eq!(uid.trim(), WITNESS_UID.to_string());
    let env = std::fs::read_to_string(kept.join("env")).expect("reads");
    assert!(
        env.lines().all(|line| ["PATH", "LANG", "PWD", "SHLVL", "_"]
            .contains(&line.split('=').next().expect("a name"))),
        "{env}"
    );
    let secret = world.state_dir().join("checkpoint-key");
    let mode = std::fs::metadata(&secret)
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let sealed = std::fs::read_to_string(&secret).expect("reads");
    assert!(
        !world
            .daemon_log()
            .contains(sealed.trim().rsplit('+').next().expect("a key"))
    );
}

#[test]
fn a_witness_and_a_public_key_are_enough_to_see_that_the_log_was_cut_or_rewritten() {
    let (mut world, kept) = witnessed();
    let _ = world.open_window("demo-project.finance:read", "5m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    witnessed_since(&world, &kept);
    let config = world.config().display().to_string();
    let key = world.json(Who::Operator, &["log", "key", "--config", &config]);
    let key = key["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("enforcer/host-a+"), "{key}");
    let status = world.status();
    assert!(
        status["log"]["checkpoint"]["records"].as_u64() > Some(0),
        "{status}"
    );
    let shown = world.cli(Who::Operator, &["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("checkpoint: record"));
    keeps_to_itself(&world, &kept);
    world.kill_daemon();

    // Another machine has the files, the witness's note and the public key.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let copy = elsewhere.path().join("audit");
    std::fs::create_dir(&copy).expect("makes a folder");
    let log = copy.join("log-000001.jsonl");
    std::fs::copy(world.state_dir().join("audit/log-000001.jsonl"), &log).expect("copies");
    let note = kept.join("newest").display().to_string();
    let signed = ["--checkpoint", &note, "--key", &key];
    let (code, report) = verify(&world, &copy, &signed);
    assert_eq!(
        (code, &report["whole"]),
        (Some(0), &Value::Bool(true)),
        "{report}"
    );
    assert_eq!(report["checkpoints"], 1);

    names_what_was_done(&world, &log, &signed);
    let other_key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let (code, said) = verify(&world, &copy, &["--checkpoint", &note, "--key", other_key]);
    assert_eq!(code, Some(1));
    assert!(
        said["error"]["message"]
            .to_string()
            .contains("not signed by the key"),
        "{said}"
    );
}

/// Whatever is done to the copy, the check names it.
fn names_what_was_done(world: &World, log: &Path, signed: &[&str]) {
    let copy = log.parent().expect("a folder");
    let text = std::fs::read_to_string(log).expect("reads");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let fault = |report: &Value| {
        let fault = &report["faults"][0];
        (
            fault["record"].as_u64(),
            fault["kind"].as_str().map(str::to_owned),
        )
    };
    let found = |text: String, more: &[&str]| {
        std::fs::write(log, text).expect("writes");
        let (code, report) = verify(world, copy, more);
        (code, fault(&report))
    };
    let named = |record, kind: &str| (Some(1), (Some(record), Some(kind.to_owned())));
    let flipped = lines.concat().replacen("month end", "month enD", 1);
    let at = lines
        .iter()
        .position(|line| line.contains("month end"))
        .expect("is asked");
    assert_eq!(found(flipped, &[]), named(at as u64 + 1, "changed"));
    let without = [&lines[..2], &lines[3..]].concat().concat();
    assert_eq!(found(without, &[]), named(3, "missing"));
    assert_eq!(
        found(lines[..2].concat(), &[]).0,
        Some(0),
        "unseen without a checkpoint"
    );
    assert_eq!(found(lines[..2].concat(), signed), named(3, "cut_off"));

    // Chained anew as a whole, by whoever knows how: the records of another daemon's first start.
    let other = forged(lines.len());
    assert_eq!(
        found(other.clone(), &[]).0,
        Some(0),
        "unseen without a checkpoint"
    );
    let (code, (_, kind)) = found(other, signed);
    assert_eq!((code, kind.as_deref()), (Some(1), Some("rewritten")));

    std::fs::write(log, &text).expect("writes");
}

/// So many records that follow one another.
fn forged(count: usize) -> String {
    use enforcer_proto::audit::Chain;
    use enforcer_proto::event::Event;
    use enforcer_proto::time::Now;
    let mut chain = Chain::default();
    let now = Now {
        boot_ns: 1,
        unix_ns: 1,
    };
    let lines = (0..count).map(|_| {
        chain
            .seal(now, "b", &Event::DaemonStopped {})
            .expect("short")
            + "\n"
    });
    lines.collect()
}

#[test]
fn a_witness_at_an_address_is_posted_each_checkpoint_as_it_is_signed() {
    let mut world = World::without_daemon(Family::V4);
    let audit = "[audit]\ncheckpoint_every = \"1s\"\nwitness_url = \"https://example.com/kept/secret\"\n[[agent]]";
    world.edit_config("[[agent]]", audit);
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "5m");
    let posted = |world: &World| -> Vec<Value> {
        let all = world.far_requests().into_iter();
        all.filter(|request| request["path"] == "/kept/secret")
            .collect()
    };
    let signed = world.state_dir().join("checkpoints.txt");
    wait_for("what was signed last to be posted", || {
        let signed = std::fs::read_to_string(&signed).unwrap_or_default();
        let last = posted(&world)
            .last()
            .map(|request| request["body"].as_str().expect("a body").to_owned());
        last.is_some_and(|last| last.starts_with("enforcer/host-a\n") && signed.ends_with(&last))
    });
    let headers = posted(&world)[0]["headers"].clone();
    assert!(
        !headers
            .to_string()
            .to_ascii_lowercase()
            .contains("authorization"),
        "no credential goes with it: {headers}"
    );
    // What is said of it does not hold its path.
    let shown = world.status().to_string() + &world.daemon_log();
    assert!(!shown.contains("kept/secret"), "{shown}");
}

#[test]
fn a_witness_that_fails_is_said_and_nothing_waits_for_it() {
    let (world, kept) = witnessed();
    witnessed_since(&world, &kept);
    std::fs::write(kept.join("down"), "").expect("writes");
    let _ = world.open_window("demo-project.finance:read", "5m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    let unhealthy = |world: &World| world.status()["unhealthy"].to_string();
    wait_for("the fault", || {
        unhealthy(&world).contains("the tape is full")
    });
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    std::fs::remove_file(kept.join("down")).expect("removes");
    wait_for("the witness", || {
        !unhealthy(&world).contains("the tape is full")
    });
    witnessed_since(&world, &kept);
}

#[test]
fn the_last_thing_that_happens_is_signed_as_well() {
    let (mut world, _) = witnessed();
    world.stop_daemon();
    let audit = world.state_dir().join("audit");
    let (_, report) = verify(&world, &audit, &[]);
    let notes = std::fs::read_to_string(world.state_dir().join("checkpoints.txt")).expect("reads");
    let last = notes.lines().rev().find(|line| line.parse::<u64>().is_ok());
    assert_eq!(
        last.map(str::to_owned),
        report["records"].as_u64().map(|n| n.to_string())
    );
    let config = world.config().display().to_string();
    let key = world.cli(Who::Operator, &["log", "key", "--config", &config]);
    let key = String::from_utf8_lossy(&key.stdout).trim().to_owned();
    let path = world
        .state_dir()
        .join("checkpoints.txt")
        .display()
        .to_string();
    let (code, report) = verify(&world, &audit, &["--checkpoint", &path, "--key", &key]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["signed_record"], report["records"]);
}

#[test]
fn a_log_that_was_cut_while_the_daemon_was_away_is_said_by_the_next_ones_also_once_it_has_grown() {
    let (mut world, _) = witnessed();
    let _ = world.open_window("demo-project.finance:read", "5m");
    world.stop_daemon();
    let log = world.state_dir().join("audit/log-000001.jsonl");
    let text = std::fs::read_to_string(&log).expect("reads");
    let had = text.lines().count();
    let first: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&log, first).expect("cuts");
    world.start_daemon();
    let says = |world: &World, what: &str| {
        wait_for("the fault", || {
            world.status()["unhealthy"].to_string().contains(what)
        });
    };
    says(&world, "records were cut off");
    // The snapshot of what is gone is not believed: what was cut off is not made up for.
    assert_eq!(world.events("snapshot_set_aside").len(), 1);
    assert_eq!(world.status()["grants"].as_array().map(Vec::len), Some(0));
    // This daemon signs what there is now, and that hides nothing.
    while world.records().len() <= had {
        let grant = world.open_window("demo-project.finance:read", "5m");
        let _ = world.json(Who::Agent, &["close", &grant]);
    }
    world.stop_daemon();
    world.start_daemon();
    says(&world, "is another than the one that was signed there");
    // What is no checkpoint hides none either, and is said.
    world.stop_daemon();
    let notes = world.state_dir().join("checkpoints.txt");
    let text =
        std::fs::read_to_string(&notes).expect("reads") + "\nenforcer/host-a\n99\n\n\u{2014} x y\n";
    std::fs::write(&notes, text).expect("writes");
    world.start_daemon();
    says(&world, "is another than the one that was signed there");
    says(&world, "the newest checkpoint in");
}
