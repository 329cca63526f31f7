//! Hooks are told of what is on record, in order and signed, and nothing that decides waits for them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::world::{Family, Who, World, policy, wait_for};
use serde_json::{Value, json};

/// The uid of hooks' commands.
const HOOK_UID: u32 = 4001;
const KEY: &str = "0123456789abcdef0123456789abcdef";
const ALL: &str = r#"["request", "decision", "open", "close", "refusal_burst", "daemon"]"#;
const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A world whose daemon has these hooks, not started yet.
fn world_with(hooks: &str) -> World {
    let world = World::without_daemon(Family::V4);
    let key = world.stage.dir().join("hook.key");
    std::fs::write(&key, format!("{KEY}\n")).expect("writes");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("sets");
    world.edit_config("[[agent]]", &format!("{hooks}\n[[agent]]"));
    world
}

fn webhook(world: &str, more: &str) -> String {
    format!(
        "[[notify]]\nname = \"{world}\"\nevents = {ALL}\nwebhook = \"https://example.com/{world}\"\ntime_limit = \"2s\"\n{more}\n"
    )
}

fn now_ns() -> u64 {
    SystemClock.now().boot_ns
}

fn elapsed(since_ns: u64) -> Duration {
    Duration::from_nanos(now_ns() - since_ns)
}

/// A shell script of the world's, as a hook, and the folder that it may write.
fn command(world: &World, script: &str, more: &str) -> PathBuf {
    let out = world.stage.dir().join("hook");
    std::fs::create_dir_all(&out).expect("makes a folder");
    std::os::unix::fs::chown(&out, Some(HOOK_UID), None).expect("gives it away");
    let file = world.stage.dir().join("hook.sh");
    let text = format!("#!/bin/sh\ncd {}\n{script}\n", out.display());
    std::fs::write(&file, text).expect("writes");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("sets");
    let hook = format!(
        "[[notify]]\nname = \"script\"\nevents = {ALL}\ncommand = [\"{}\", \"an argument\"]\nuser = {HOOK_UID}\n{more}\n[[agent]]",
        file.display()
    );
    world.edit_config("[[agent]]", &hook);
    out
}

/// What was posted to a hook, as it came.
fn posted(world: &World, hook: &str) -> Vec<Value> {
    let path = format!("/{hook}");
    let all = world.far_requests().into_iter();
    all.filter(|request| request["path"] == path.as_str())
        .collect()
}

/// What was posted to a hook, as notices.
fn notices(world: &World, hook: &str) -> Vec<Value> {
    let posted = posted(world, hook).into_iter();
    let bodies = posted.map(|request| request["body"].as_str().expect("a body").to_owned());
    bodies
        .map(|body| serde_json::from_str(&body).expect("JSON"))
        .collect()
}

fn told(world: &World, hook: &str, kind: &str) -> bool {
    notices(world, hook)
        .iter()
        .any(|notice| notice["event"] == kind)
}

fn hook_status(world: &World, hook: &str) -> Value {
    let status = world.status();
    let hooks = status["hooks"].as_array().expect("a list").clone();
    let found = hooks.into_iter().find(|view| view["hook"] == hook);
    found.expect("is shown")
}

/// The signature as another program makes it.
fn signature(timestamp: &str, body: &str) -> String {
    let script = "import hashlib, hmac, sys; print(hmac.new(sys.argv[1].encode(), (sys.argv[2] + '.' + sys.argv[3]).encode(), hashlib.sha256).hexdigest())";
    let output = Command::new("/usr/bin/python3")
        .args(["-c", script, KEY, timestamp, body])
        .output()
        .expect("python runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let headers = request["headers"].as_array().expect("a list");
    let found = headers.iter().find(|header| header[0] == name);
    found.and_then(|header| header[1].as_str())
}

/// `finance-bot` asks for its dataset.
fn asked(world: &World, reason: &str) -> Value {
    let scope = "demo-project.finance:read";
    let ask = ["request", "--scope", scope, "--reason", reason];
    world.json(Who::Agent, &ask)
}

#[test]
fn a_webhook_is_told_in_order_and_signed_of_what_is_on_record() {
    let dir = |world: &World| world.stage.dir().display().to_string();
    let mut world = world_with(&webhook("chat", "format = \"slack\""));
    let key = format!("key_file = \"{}/hook.key\"", dir(&world));
    world.edit_config("[[agent]]", &format!("{}[[agent]]", webhook("pager", &key)));
    world.start_daemon();
    let grant = world.open_window("demo-project.finance:read", "5m");
    assert_eq!(world.json(Who::Agent, &["close", &grant])["done"], true);
    wait_for("the close", || told(&world, "pager", "close"));

    let notices = notices(&world, "pager");
    let kinds: Vec<_> = notices.iter().map(|notice| &notice["event"]).collect();
    assert_eq!(kinds, ["request", "decision", "open", "close"]);
    let records = world.records();
    for notice in &notices {
        let seq = notice["seq"].as_u64().expect("a number");
        let record = records.iter().find(|record| record["seq"] == seq);
        assert_eq!(
            record.expect("is on record")["event"]["agent"],
            notice["agent"]
        );
        assert_eq!(
            (&notice["version"], &notice["host"]),
            (&json!(1), &json!("host-a"))
        );
    }
    assert_eq!(notices[0]["reason"], "month end");
    assert_eq!(notices[1]["by"], "uid 5001");
    assert_eq!(notices[3]["grant"], grant.as_str());

    for request in posted(&world, "pager") {
        let header = header(&request, "enforcer-signature").expect("is signed");
        let (timestamp, found) = header.split_once(",v1=").expect("two parts");
        let timestamp = timestamp.strip_prefix("t=").expect("a time");
        assert_eq!(
            found,
            signature(timestamp, request["body"].as_str().expect("text"))
        );
        let sent: f64 = timestamp.parse().expect("seconds");
        assert!((request["unix"].as_f64().expect("a time") - sent).abs() < 60.0);
        assert_eq!(header_count(&request, "authorization"), 0);
    }
    wait_for("the chat", || posted(&world, "chat").len() == 4);
    let chat = self::notices(&world, "chat");
    assert!(
        chat[0]["text"]
            .as_str()
            .expect("text")
            .starts_with("[host-a] r-1: finance-bot asks for")
    );
    assert_eq!(hook_status(&world, "pager")["delivered"], 4);

    // A test goes to the hook that is named, past the log, and not for everybody.
    let tested = world.json(Who::Operator, &["notify", "test", "--hook", "pager"]);
    assert_eq!(
        tested["tested"],
        json!([{"hook": "pager", "trouble": null}])
    );
    assert!(told(&world, "pager", "test"));
    assert_eq!(posted(&world, "chat").len(), 4);
    let by_agent = world.cli(Who::Agent, &["notify", "test"]);
    assert_eq!(by_agent.status.code(), Some(3));
    assert_eq!(world.json(Who::Agent, &["status"])["hooks"], json!([]));
    let unknown = world.cli(Who::Operator, &["notify", "test", "--hook", "none"]);
    assert_eq!(unknown.status.code(), Some(3));
    world.set_faults(&json!({"example": "moved"}));
    let moved = world.cli(Who::Operator, &["notify", "test", "--hook", "pager"]);
    assert_eq!(moved.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&moved.stdout).contains("no redirect is followed"));
    assert!(posted(&world, "elsewhere").is_empty());
}

fn header_count(request: &Value, name: &str) -> usize {
    let headers = request["headers"].as_array().expect("a list");
    headers.iter().filter(|header| header[0] == name).count()
}

#[test]
fn a_receiver_that_was_down_is_told_in_order_later_and_what_is_given_up_is_on_record() {
    let hooks = webhook("keeps", "") + &webhook("gives-up", "retry_for = \"1s\"");
    let mut world = world_with(&hooks);
    world.set_faults(&json!({"example": "down"}));
    world.start_daemon();
    let grant = world.open_window("demo-project.finance:read", "5m");
    assert_eq!(world.json(Who::Agent, &["close", &grant])["done"], true);
    wait_for("that one gives up", || {
        hook_status(&world, "gives-up")["given_up"] == 4
    });
    let failed = world.events("notification_failed");
    assert_eq!(failed[0]["hook"], "gives-up");
    assert!(failed[0]["why"].as_str().expect("text").contains("503"));
    assert!(
        hook_status(&world, "keeps")["trouble"]
            .as_str()
            .expect("text")
            .contains("503")
    );
    assert_eq!(hook_status(&world, "keeps")["waiting"], 4);

    let before = posted(&world, "keeps").len();
    world.set_faults(&json!({}));
    wait_for("the rest", || {
        hook_status(&world, "keeps")["delivered"] == 4
    });
    let later = notices(&world, "keeps").split_off(before);
    let kinds: Vec<_> = later.iter().map(|notice| &notice["event"]).collect();
    assert_eq!(kinds, ["request", "decision", "open", "close"]);
    // The next that arrives at the other one comes with what it was not told.
    let _ = asked(&world, "again");
    wait_for("the summary", || {
        notices(&world, "gives-up")
            .iter()
            .any(|notice| notice["event"] == "lost" && notice["count"] == 4)
    });
}

#[test]
fn hooks_that_hang_delay_no_decision_and_overflow_is_counted() {
    let mut world =
        world_with(&webhook("hangs", "time_limit = \"60s\"").replace("time_limit = \"2s\"\n", ""));
    let out = command(
        &world,
        "echo started > started; cat > /dev/null; sleep 1000",
        "time_limit = \"60s\"",
    );
    std::fs::write(world.stage.dir().join("policy.toml"), policy("15m", true)).expect("writes");
    world.set_faults(&json!({"example": "hang"}));
    world.start_daemon();
    let request = [
        "request",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "1m",
        "--reason",
        "month end",
    ];
    let open = || {
        world.json(Who::Agent, &request)["grant"]["grant"]
            .as_str()
            .expect("opened")
            .to_owned()
    };
    let close = |grant: &str| assert_eq!(world.json(Who::Agent, &["close", grant])["done"], true);
    close(&open());
    wait_for("both to hang", || {
        out.join("started").exists() && !posted(&world, "hangs").is_empty()
    });
    let began = now_ns();
    let grant = open();
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    close(&grant);
    assert!(
        elapsed(began) < Duration::from_secs(10),
        "{:?}",
        elapsed(began)
    );
    // Four notices a window: more than may wait.
    let mut longest = Duration::ZERO;
    for _ in 0..66 {
        let began = now_ns();
        close(&open());
        longest = longest.max(elapsed(began));
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    wait_for("the overflow", || {
        hook_status(&world, "hangs")["given_up"].as_u64() > Some(0)
    });
    wait_for("its record", || {
        world
            .events("notification_failed")
            .iter()
            .any(|event| event["hook"] == "hangs" && event["why"] == "more than 256 notices waited")
    });
    assert!(hook_status(&world, "hangs")["waiting"].as_u64() <= Some(257));
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one command, from its start to what is left of it"
)]
fn a_command_runs_as_its_user_below_the_lock_and_is_killed_with_all_that_it_started() {
    let mut world = world_with("");
    // What stands for an address of BigQuery's alone, on every host.
    let address = enforcer::prove::canary::CANARY4;
    let script = format!(
        r#"cat >> notices
cat /proc/self/cgroup > cgroup
id -u > uid; id -G > groups
env > environment
[ "$1" = "an argument" ] && echo good > argument
grep NoNewPrivs /proc/self/status > privileges
python3 -c 'import socket
try:
    socket.create_connection(("{address}", 443), 3)
    print("connected")
except OSError as error:
    print(error.errno)' > connected
(setsid sleep 1000) &
echo $! > child
[ -e hang ] && sleep 1000
exit 0"#
    );
    let out = command(&world, &script, "time_limit = \"2s\"");
    world.start_daemon();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_default();
    let _ = asked(&world, "a");
    wait_for("the command", || {
        hook_status(&world, "script")["delivered"] == 1
    });
    let notice: Value = serde_json::from_str(read("notices").trim()).expect("one notice");
    assert_eq!(notice["event"], "request");
    assert!(
        read("cgroup")
            .trim()
            .ends_with("/enforcer-helpers/script-1"),
        "{}",
        read("cgroup")
    );
    assert_eq!(
        (read("uid").trim(), read("groups").trim()),
        ("4001", "4001")
    );
    assert_eq!(read("argument").trim(), "good");
    assert!(read("privileges").contains('1'));
    assert_eq!(
        read("connected").trim(),
        libc::EPERM.to_string(),
        "it is refused BigQuery like everybody"
    );
    let environment = read("environment");
    let names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    assert!(
        names
            .iter()
            .all(|name| ["PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)),
        "{names:?}"
    );
    let child_is_gone = || !PathBuf::from(format!("/proc/{}", read("child").trim())).exists();
    let helpers = world.stage.cgroups.root().join("enforcer-helpers");
    let is_empty = || {
        let left = std::fs::read_dir(&helpers).expect("is there").flatten();
        left.filter(|entry| entry.path().is_dir()).count() == 0
    };
    wait_for("nothing to be left", || child_is_gone() && is_empty());

    // One that hangs is killed when its time is up, and tried again.
    std::fs::write(out.join("hang"), "").expect("writes");
    let _ = asked(&world, "b");
    wait_for("its time to be up", || {
        hook_status(&world, "script")["trouble"] == "it was killed after 2 s"
    });
    std::fs::remove_file(out.join("hang")).expect("removes");
    wait_for("the second", || {
        hook_status(&world, "script")["delivered"] == 2
    });
    wait_for("nothing to be left", || child_is_gone() && is_empty());
    assert!(
        world.events("health_changed").is_empty(),
        "nobody was seen in the daemon's own cgroup"
    );

    // What a killed daemon leaves the next one ends.
    std::fs::write(out.join("hang"), "").expect("writes");
    let _ = asked(&world, "c");
    wait_for("the third to run", || !is_empty());
    world.kill_daemon();
    std::fs::remove_file(out.join("hang")).expect("removes");
    world.start_daemon();
    wait_for("nothing to be left", || child_is_gone() && is_empty());
}

#[test]
fn a_restarted_daemon_goes_on_where_hooks_stopped() {
    let mut world = world_with(&webhook("pager", ""));
    world.start_daemon();
    let ask = |reason: &str| {
        let args = [
            "request",
            "--scope",
            "demo-project.finance:read",
            "--reason",
            reason,
        ];
        let _ = world.json(Who::Agent, &args);
    };
    ask("first");
    wait_for("the first", || {
        hook_status(&world, "pager")["delivered"] == 1
    });
    world.set_faults(&json!({"example": "down"}));
    ask("second");
    wait_for("an attempt", || {
        hook_status(&world, "pager")["trouble"].is_string()
    });
    // Long enough for it to be kept that the first has arrived.
    std::thread::sleep(Duration::from_millis(1500));
    world.kill_daemon();
    let before = posted(&world, "pager").len();
    world.set_faults(&json!({}));
    world.start_daemon();
    wait_for("the rest", || told(&world, "pager", "daemon"));
    let later = notices(&world, "pager").split_off(before);
    let seqs: Vec<_> = later
        .iter()
        .filter_map(|notice| notice["seq"].as_u64())
        .collect();
    assert_eq!(
        later[0]["reason"], "second",
        "and the first not again: {later:?}"
    );
    assert!(seqs.is_sorted());
    assert_eq!(later.last().expect("some")["event"], "daemon");
}
