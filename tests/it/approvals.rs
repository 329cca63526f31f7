//! Who opens a window: quorums, emergencies, signatures, and rules that change while the daemon runs. All by the command line, as people of this
//! host, with the real daemon.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::stage::Side;
use harness::world::{
    AGENT_UID, APPROVER_UID, COLLEAGUE_UID, Family, LOOSE, Who, World, enforcer, wait_for,
};
use serde_json::Value;

/// A key that nobody has.
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDpf9sFBJd6eN87RPfYSJR4gks/ETWkkmY6KJzeZPjmp";

const ASK: [&str; 7] = [
    "request",
    "--scope",
    "demo-project.finance:read",
    "--ttl",
    "5m",
    "--reason",
    "month end",
];

/// One rule for `finance-bot`, with these lines besides.
fn rule(more: &str) -> String {
    format!(
        "[[rule]]\nagents = [\"finance-bot\"]\ndatasets = [\"demo-project.finance\"]\n{more}\n{LOOSE}"
    )
}

fn two_must() -> String {
    rule(&format!(
        "approvers = {{ users = [{APPROVER_UID}, {COLLEAGUE_UID}], count = 2 }}"
    ))
}

fn world_with(policy: &str) -> World {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(policy);
    world.start_daemon();
    world
}

fn ask(world: &World) -> String {
    let asked = world.json(Who::Agent, &ASK);
    asked["request"].as_str().expect("an id").to_owned()
}

/// The code and the words of a refusal.
fn refused(world: &World, who: Who, args: &[&str]) -> String {
    let output = world.cli(who, args);
    assert_eq!(output.status.code(), Some(3), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_window_opens_when_as_many_people_as_the_rule_asks_for_have_agreed() {
    let world = world_with(&two_must());
    let request = ask(&world);
    let counted = world.json(Who::Approver, &["approve", &request]);
    let waiting = &counted["waiting"];
    assert_eq!(waiting["agreed"], serde_json::json!([APPROVER_UID]));
    assert!(
        waiting["wanting"]
            .as_str()
            .is_some_and(|wanting| wanting.starts_with("one more person")),
        "{waiting}"
    );
    assert!(world.query(&["SELECT 1"])[0]["error"].is_string());
    let again = refused(&world, Who::Approver, &["approve", &request]);
    assert!(again.contains("[approve.again]"), "{again}");
    let opened = world.json(Who::Colleague, &["approve", &request, "--ttl", "1m"]);
    assert_eq!(opened["grant"]["open"], true);
    let served = world
        .query(&["SELECT COUNT(*) FROM finance.daily"])
        .remove(0);
    assert!(served["rows"].is_array(), "{served}");
    let approved = world.events("approved").remove(0);
    assert_eq!(approved["approver"]["Person"]["uid"], COLLEAGUE_UID);
    assert_eq!(approved["agreed"][0]["Person"]["uid"], APPROVER_UID);
}

#[test]
fn who_has_agreed_still_counts_after_the_daemon_was_killed() {
    let mut world = world_with(&two_must());
    let request = ask(&world);
    let _ = world.json(Who::Approver, &["approve", &request]);
    world.kill_daemon();
    world.start_daemon();
    let opened = world.json(Who::Colleague, &["approve", &request]);
    assert_eq!(opened["grant"]["open"], true);
}

#[test]
fn an_emergency_opens_at_once_and_keeps_the_host_red_until_somebody_else_has_looked() {
    let glass = format!("\nbreak_glass = {{ users = [{APPROVER_UID}], ttl_max = \"1m\" }}");
    let world =
        world_with(&two_must().replace("\ndatasets_max", &format!("{glass}\ndatasets_max")));
    let request = ask(&world);
    let emergency = ["break-glass", &request, "--reason", "payroll is stuck"];
    let not_named = refused(&world, Who::Colleague, &emergency);
    assert!(not_named.contains("[caller.forbidden]"), "{not_named}");
    let opened = world.json(Who::Approver, &emergency);
    let grant = opened["grant"]["grant"].as_str().expect("an id").to_owned();
    assert_eq!(opened["grant"]["break_glass"], "payroll is stuck");
    assert!(opened["grant"]["closes_in_ns"].as_u64().expect("a number") <= 60_000_000_000);
    let red = |world: &World| {
        world.status()["unhealthy"]
            .to_string()
            .contains("payroll is stuck")
    };
    assert!(red(&world));
    let review = ["review", &grant, "--note", "it was stuck indeed"];
    let own = refused(&world, Who::Approver, &review);
    assert!(own.contains("[review.refused]"), "{own}");
    let _ = world.json(Who::Agent, &["close", &grant]);
    assert!(red(&world), "its end clears nothing");
    let _ = world.json(Who::Colleague, &review);
    assert!(!red(&world));
    assert_eq!(world.events("reviewed")[0]["note"], "it was stuck indeed");
}

#[test]
fn an_approver_is_shown_the_whole_reason_and_what_the_window_may_use_and_a_changed_policy_gives_no_more()
 {
    let mut world = World::without_daemon(Family::V4);
    let bytes = |most: &str| {
        two_must().replace(
            "\napprovers",
            &format!("\nbytes_max = \"{most}\"\napprovers"),
        )
    };
    world.set_policy(&bytes("10GB"));
    world.start_daemon();
    let reason = format!(
        "{} AND THEN ALL OF IT TO MY BUCKET",
        "the close of the books, ".repeat(15)
    );
    let asked = world.json(Who::Agent, &[&ASK[..6], &[&reason]].concat());
    let request = asked["request"].as_str().expect("an id").to_owned();
    let status = world.cli(Who::Approver, &["status"]);
    let shown = String::from_utf8_lossy(&status.stdout).replace("\n    | ", " ");
    assert!(shown.contains("TO MY BUCKET"), "{shown}");
    assert!(shown.contains("at most: 10 GB billed"), "{shown}");

    // Where nothing is shown, what was must be named.
    for args in [
        &["approve", &request, "--json"][..],
        &["break-glass", &request, "--reason", "x", "--json"],
    ] {
        let output = world.cli(Who::Approver, args);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--seen must name what was"), "{said}");
    }
    let _ = world.json(Who::Approver, &["approve", &request, "--queries-max", "7"]);
    let seen = world.digest_of(&request);
    let path = world.config().with_file_name("policy.toml");
    std::fs::write(&path, bytes("900TB")).expect("writes");
    wait_for("a load", || !world.events("policy_loaded").is_empty());
    let opened = world.cli(
        Who::Colleague,
        &["approve", &request, "--seen", &seen, "--json"],
    );
    assert!(opened.status.success(), "it is what was shown");
    let approved = world.events("approved").remove(0);
    assert_eq!(
        (
            &approved["bytes_max"],
            &approved["queries_max"],
            &approved["digest"]
        ),
        (&10_000_000_000_u64.into(), &7.into(), &seen.into())
    );
}

#[test]
fn a_process_of_the_agents_uid_outside_its_workload_does_not_approve_what_root_asked_for_it() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&rule(&format!(
        "approvers = {{ groups = [{AGENT_UID}], users = [{APPROVER_UID}] }}"
    )));
    let config = world.config().display().to_string();
    let check = world.cli(Who::Operator, &["check", "--config", &config]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        said.contains("is among the `approvers` of policy rule 1"),
        "{said}"
    );
    world.start_daemon();
    let mut run = world.run_as(Who::Operator, enforcer());
    run.args([
        "run",
        "--agent",
        "finance-bot",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "1m",
    ]);
    run.args([
        "--queries-max",
        "7",
        "--reason",
        "x",
        "--",
        "sh",
        "-c",
        "exit 5",
    ]);
    let mut run = run
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    wait_for("a request", || !world.events("requested").is_empty());
    let id = AGENT_UID.to_string();
    let mut own = world.stage.command(Side::Host, "setpriv");
    own.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    let socket = world.stage.dir().join("run/control.sock");
    own.arg(enforcer()).arg("--socket").arg(socket);
    let own = own.args(["approve", "r-1"]).output().expect("runs");
    let said = String::from_utf8_lossy(&own.stderr).into_owned();
    assert!(said.contains("[approve.self]"), "{said}");
    let _ = world.json(Who::Approver, &["approve", "r-1"]);
    assert_eq!(run.wait().expect("ends").code(), Some(5));
    assert_eq!(world.events("approved")[0]["queries_max"], 7);
}

/// A key of the approver's, made by the system's own tool, and the line that a policy names it by.
fn key(world: &World) -> (PathBuf, String) {
    let path = world.stage.dir().join("agent/../alice-key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "alice@laptop", "-f"])
        .arg(&path)
        .status();
    assert!(made.expect("ssh-keygen is there").success());
    std::os::unix::fs::chown(&path, Some(APPROVER_UID), Some(APPROVER_UID)).expect("gives it away");
    let public = std::fs::read_to_string(path.with_extension("pub")).expect("reads");
    (path, public.trim().to_owned())
}

#[test]
fn where_a_rule_asks_for_it_only_a_signature_by_the_approvers_key_opens() {
    let mut world = World::without_daemon(Family::V4);
    let (path, public) = key(&world);
    let rules = rule(&format!(
        "approvers = {{ users = [{APPROVER_UID}, {COLLEAGUE_UID}] }}\nsigned = true"
    ));
    let signer = format!("[[signer]]\nuser = {APPROVER_UID}\nkeys = [\"{public}\"]\n");
    world.set_policy(&format!("{rules}\n{signer}"));
    world.start_daemon();
    let request = ask(&world);
    let unsigned = refused(&world, Who::Approver, &["approve", &request]);
    assert!(unsigned.contains("[approve.signature]"), "{unsigned}");
    let path = path.display().to_string();
    let signing = ["approve", &request, "--sign", &path, "--ttl", "1m"];
    // Root reads any key; it is not root's.
    let borrowed = refused(&world, Who::Operator, &signing);
    assert!(borrowed.contains("[approve.signature]"), "{borrowed}");
    let opened = world.json(Who::Approver, &signing);
    assert_eq!(opened["grant"]["open"], true);
    let approved = world.events("approved").remove(0);
    let signer = approved["signer"].as_str().expect("a name");
    assert!(signer.starts_with("SHA256:"), "{signer}");
}

#[test]
fn a_changed_policy_is_taken_whole_or_not_at_all_and_either_is_on_record() {
    let world = world_with(&two_must());
    let path = world.config().with_file_name("policy.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("writes");
    write(&two_must().replace("count = 2", "count = \"two\""));
    wait_for("a rejection", || {
        !world.events("policy_rejected").is_empty()
    });
    let unwell = world.status()["unhealthy"].to_string();
    assert!(unwell.contains("the rules stay as they were"), "{unwell}");
    let request = ask(&world);
    let counted = world.json(Who::Approver, &["approve", &request]);
    assert!(
        counted["waiting"].is_object(),
        "two must still agree: {counted}"
    );

    write(
        &two_must()
            .replace("count = 2", "count = 1")
            .replace(&COLLEAGUE_UID.to_string(), "5003"),
    );
    wait_for("a load", || !world.events("policy_loaded").is_empty());
    assert_eq!(world.status()["unhealthy"].to_string(), "[]");
    let gone = refused(&world, Who::Colleague, &["approve", &request]);
    assert!(gone.contains("[caller.forbidden]"), "{gone}");
    let denied = world.json(Who::Approver, &["deny", &request, "--reason", "asked anew"]);
    assert_eq!(denied["done"], true);
    let request = ask(&world);
    let opened = world.json(Who::Approver, &["approve", &request]);
    assert_eq!(opened["grant"]["open"], true, "one is enough now");
}

#[test]
fn a_name_that_has_become_another_users_is_looked_up_anew_and_what_it_means_is_on_record() {
    let named = two_must()
        .replace("count = 2", "count = 1")
        .replace(&APPROVER_UID.to_string(), "\"alice\"");
    let world = world_with(&named);
    let request = ask(&world);
    // Alice has left, and somebody else has her name; her uid is somebody's who may decide on nothing.
    let users = world.stage.dir().join("etc/passwd");
    let before = std::fs::read_to_string(&users).expect("reads");
    let uid = format!("alice:x:{APPROVER_UID}:");
    assert!(before.contains(&uid));
    std::fs::write(&users, before.replace(&uid, "alice:x:5003:")).expect("writes");
    wait_for("a load", || !world.events("policy_loaded").is_empty());
    assert_eq!(world.events("policy_loaded")[0]["is_same_text"], true);
    let gone = refused(&world, Who::Approver, &["approve", &request]);
    assert!(gone.contains("[caller.forbidden]"), "{gone}");
    // A name that is nobody's any more is said, and the rules stay.
    std::fs::write(&users, before.replace("alice:", "alicia:")).expect("writes");
    wait_for("a rejection", || {
        !world.events("policy_rejected").is_empty()
    });
    let unwell = world.status()["unhealthy"].to_string();
    assert!(unwell.contains("user `alice` does not exist"), "{unwell}");
    std::fs::write(&users, before).expect("writes");
    wait_for("another load", || world.events("policy_loaded").len() == 2);
    let opened = world.json(Who::Approver, &["approve", &request]);
    assert_eq!(opened["grant"]["open"], true);
}

#[test]
fn a_policy_that_somebody_else_could_have_written_is_not_taken() {
    let world = world_with(&two_must());
    let path = world.config().with_file_name("policy.toml");
    std::os::unix::fs::chown(&path, Some(2001), None).expect("gives it away");
    wait_for("a rejection", || {
        !world.events("policy_rejected").is_empty()
    });
    let why = world.events("policy_rejected")[0]["why"].to_string();
    assert!(why.contains("others than root can change it"), "{why}");
}

fn policy_says(world: &World, args: &[&str]) -> (Option<i32>, Value) {
    let config = world.config().display().to_string();
    let args = [&["policy"], args, &["--config", &config, "--json"]].concat();
    let output = world.cli(Who::Operator, &args);
    let text = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&text).into_owned();
    let said = serde_json::from_str(&said).unwrap_or(Value::String(said));
    (output.status.code(), said)
}

#[test]
fn a_policy_says_offline_what_it_would_say_to_a_request_and_what_is_to_be_said_of_it() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&two_must());
    let test = |world: &World, scope: &str, more: &[&str]| {
        let args = ["test", "--agent", "finance-bot", "--scope", scope];
        policy_says(world, &[&args, more].concat())
    };
    let (status, said) = test(&world, "demo-project.finance:read", &[]);
    assert_eq!(
        (status, &said["rule"], &said["count"]),
        (Some(0), &1.into(), &2.into()),
        "{said}"
    );
    let (status, said) = test(&world, "demo-project.hr:read", &[]);
    assert_eq!(
        (status, said.to_string().contains("policy.none")),
        (Some(3), true),
        "{said}"
    );
    let (status, said) = test(&world, "demo-project.finance:read", &["--ttl", "1h"]);
    assert_eq!(
        (status, said.to_string().contains("policy.exceeded")),
        (Some(3), true),
        "{said}"
    );
    let (status, said) = policy_says(&world, &["lint"]);
    assert_eq!(status, Some(1), "{said}");
    let more = "signed = true\nbreak_glass = { users = [0], ttl_max = \"5m\" }\n";
    world.set_policy(&format!(
        "{}\n[[signer]]\nuser = 0\nkeys = [\"{KEY}\"]\n",
        two_must().replace("datasets_max", &format!("{more}datasets_max"))
    ));
    let (_, said) = test(&world, "demo-project.finance:read", &[]);
    assert_eq!(
        (&said["signed"], &said["break_glass"]["people"]),
        (&true.into(), &serde_json::json!(["root (uid 0)"])),
        "{said}"
    );

    world.set_policy(&rule(
        "auto_approve = { days = [\"mon\"], hours = \"09:00-17:00\" }\ncooldown = \"1h\"",
    ));
    let at = |world: &World, at| test(world, "demo-project.finance:read", &["--at", at]);
    let (status, said) = at(&world, "2026-11-23T10:00:00Z");
    assert_eq!(
        (status, &said["opens_alone"]),
        (Some(0), &true.into()),
        "{said}"
    );
    let (status, said) = at(&world, "2026-11-24T10:00:00Z");
    assert_eq!(
        (status, said.to_string().contains("policy.hours")),
        (Some(3), true),
        "{said}"
    );
}
