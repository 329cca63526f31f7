//! `enforcer gcp doctor`: each link of the way to Google is looked at live; what is broken is named with its cure, what needs it is not tried.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use harness::world::{Family, Who, World};
use serde_json::{Value, json};

use crate::issuer::SoftHsm;

const ACCOUNT: &str = "finance-reader@demo-project.iam.gserviceaccount.com";
const POOL: &str =
    "iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents";

fn run(world: &World, who: Who, more: &[&str]) -> Output {
    let config = world.config().display().to_string();
    let args = [&["gcp", "doctor", "--config", &config], more].concat();
    let output = world.cli(who, &args);
    holds_no_secret(world, &output);
    output
}

/// No token that was ever minted, and no assertion.
#[track_caller]
fn holds_no_secret(world: &World, output: &Output) {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = format!("{}{}", String::from_utf8_lossy(&said), world.daemon_log());
    for token in world.tokens() {
        let token = token["token"].as_str().expect("a token");
        assert!(!said.contains(token), "a token is printed");
    }
    assert!(!said.contains("eyJ"), "an assertion is printed");
}

/// What it prints, and its exit code.
fn doctor(world: &World) -> (Option<i32>, String) {
    let output = run(world, Who::Operator, &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said)
}

/// The line that begins so, whatever the blanks between its words.
#[track_caller]
fn line<'a>(said: &'a str, mark: &str, link: &str, of: &str) -> &'a str {
    let begin = format!("{mark:<9}  {link:<7}  {of}");
    let found = said.lines().find(|line| line.starts_with(&begin));
    found.unwrap_or_else(|| panic!("no line {begin}: {said}"))
}

#[track_caller]
fn fails(world: &World, (link, of): (&str, &str), found: &str, cure: &str) -> String {
    let (status, said) = doctor(world);
    assert_eq!(status, Some(1), "{said}");
    let line = line(&said, "FAIL", link, of);
    let (what, how) = line.split_once(". Cure: ").expect("a cure");
    assert!(what.contains(found), "{line}");
    assert!(how.contains(cure), "{line}");
    said
}

/// A world whose IAM is set up as `enforcer gcp setup` says.
fn world() -> World {
    let world = World::start(Family::V4);
    world.set_faults(&json!({"iam": {}}));
    world
}

#[test]
fn where_all_is_well_each_link_is_named_and_nothing_is_run_read_or_written() {
    let world = world();
    let (status, said) = doctor(&world);
    assert_eq!(status, Some(0), "{said}");
    for (link, of) in [
        ("files", "configuration: host host-a, agents: 2"),
        ("files", "policy: rules: 1"),
        ("names", "sts.googleapis.com: "),
        ("names", "bigquery.googleapis.com: "),
        ("tls", "sts.googleapis.com: its certificate is good"),
        ("tls", "bigquery.googleapis.com: its certificate is good"),
        ("issuer", "key: "),
        ("issuer", "published keys: "),
        ("issuer", "clock: "),
        ("token", "agent finance-bot: minted by federation"),
        ("jobs", "agent finance-bot in demo-project: a dry run"),
        (
            "dataset",
            "demo-project.finance for agent finance-bot: refused without a window",
        ),
        (
            "dataset",
            "demo-project.finance for agent finance-bot: allowed within a window",
        ),
        (
            "dataset",
            "demo-project.scratch for agent finance-bot: allowed within a window",
        ),
        ("token", "agent ops-bot: minted by federation"),
    ] {
        let _ = line(&said, "ok", link, of);
    }
    let writes = "demo-project.scratch for agent finance-bot: whether it may be written to";
    let _ = line(&said, "not tried", "dataset", writes);
    let _ = line(&said, "not tried", "jobs", "agent ops-bot: no rule");
    let buckets =
        "buckets of agent finance-bot: what it may do to gs://demo-exports, gs://demo-imports";
    let _ = line(&said, "not tried", "dataset", buckets);
    assert!(said.ends_with("0 notes\n"), "{said}");

    for request in world.far_requests() {
        if request["host"] != "bigquery.googleapis.com" {
            continue;
        }
        let path = request["path"].as_str().expect("a path");
        let body = request["body"].as_str().expect("a body");
        let is_seen = path == "/"
            || path.ends_with("?datasetView=METADATA")
            || path.ends_with("/tables?maxResults=1");
        let is_dry = body.contains("\"dryRun\":true") && body.contains("\"SELECT 1\"");
        assert!(
            is_dry || (request["method"] == "GET" && is_seen),
            "{request}"
        );
    }
    let is_for_none = |token: &Value| {
        let claims = &token["claims"];
        claims["grant"] == "none" && claims["reason"] == "none" && claims["approver"] == "none"
    };
    let tokens = world.tokens();
    assert!(tokens.iter().all(is_for_none), "{tokens:?}");
    let of_none = tokens
        .iter()
        .filter(|token| token["claims"]["datasets"] == json!([]));
    assert_eq!((tokens.len(), of_none.count()), (4, 2));
    let looked = world.events("way_examined");
    assert_eq!(looked.len(), 1, "{looked:?}");
    assert_eq!(
        (&looked[0]["process"]["uid"], &looked[0]["of"]),
        (&json!(0), &Value::Null)
    );
}

#[test]
fn as_json_each_check_is_an_object_on_a_line() {
    let world = world();
    let output = run(&world, Who::Operator, &["--json", "--agent", "finance-bot"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("a text");
    let checks: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let token = checks.iter().find(|check| check["link"] == "token");
    let token = token.expect("a token");
    assert_eq!(token["mark"], "ok");
    assert_eq!(token["of"], "agent finance-bot");
    assert_eq!(token["cure"], Value::Null);
    assert!(!said.contains("ops-bot"), "only the one that was named");
    let not_tried = checks.iter().any(|check| check["mark"] == "not_tried");
    assert!(not_tried, "{said}");

    let output = run(&world, Who::Operator, &["--json", "--agent", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no such agent"));
}

#[test]
fn keys_that_google_does_not_know_are_named_and_what_needs_a_token_is_not_tried() {
    let world = world();
    let published = world.stage.dir().join("run/jwks.json");
    std::fs::write(&published, r#"{"keys":[]}"#).expect("written");
    let said = fails(
        &world,
        ("token", "agent finance-bot"),
        "misconfigured: token could not be had: the security token service refused with status 400 (invalid_grant)",
        "give it what `enforcer gcp jwks` prints",
    );
    let keys = line(&said, "FAIL", "issuer", "published keys");
    assert!(
        keys.contains("has no key") && keys.contains("restart the daemon"),
        "{keys}"
    );
    for (link, of) in [
        (
            "jobs",
            "agent finance-bot in demo-project: it needs a token",
        ),
        (
            "dataset",
            "demo-project.finance for agent finance-bot: it needs a token",
        ),
    ] {
        let _ = line(&said, "not tried", link, of);
    }
}

#[test]
fn an_audience_that_names_no_provider_of_googles_is_the_configurations_fault() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config(
        "workloadIdentityPools/agents/",
        "workloadIdentityPools/others/",
    );
    world.start_daemon();
    let _ = fails(
        &world,
        ("token", "agent finance-bot"),
        "misconfigured: token could not be had: the security token service refused with status 400 (invalid_target)",
        "`token.audience` must name a pool and provider",
    );
}

#[test]
fn without_iam_set_up_the_role_the_member_and_the_place_are_named() {
    let world = world();
    world.set_faults(&json!({"iam": {"no_jobs": true, "denied": ["demo-project.finance"]}}));
    let said = fails(
        &world,
        ("jobs", "agent finance-bot in demo-project"),
        "refused with status 403 (accessDenied)",
        &format!(
            "roles/bigquery.jobUser on project demo-project to principalSet://{POOL}/attribute.host/host-a"
        ),
    );
    let _ = line(
        &said,
        "ok",
        "dataset",
        "demo-project.finance for agent finance-bot: refused without",
    );
    let within = line(
        &said,
        "FAIL",
        "dataset",
        "demo-project.finance for agent finance-bot: within a window",
    );
    let binding = format!(
        "roles/bigquery.dataViewer on dataset demo-project.finance to principalSet://{POOL}/group/ds:demo-project.finance"
    );
    assert!(within.contains(&binding), "{within}");
    let _ = line(
        &said,
        "ok",
        "dataset",
        "demo-project.scratch for agent finance-bot: allowed within",
    );
}

#[test]
fn a_dataset_that_is_open_without_a_window_is_a_failure() {
    let world = world();
    world.set_faults(&json!({"iam": {"standing": ["demo-project.finance"]}}));
    let said = fails(
        &world,
        ("dataset", "demo-project.finance for agent finance-bot"),
        "standing access: tables.list is allowed without a window's group",
        &format!("take away what principal://{POOL}/subject/host-a/agent/finance-bot"),
    );
    assert!(said.contains("1 failed"), "{said}");
}

#[test]
fn who_was_not_judged_was_not_refused_as_it_must_be_and_the_cure_is_for_what_was_said() {
    let world = World::start(Family::V4);
    for (word, cure) in [
        ("rateLimitExceeded", "quotas of bigquery.googleapis.com"),
        (
            "accessNotConfigured",
            "enable bigquery.googleapis.com in demo-project",
        ),
        (
            "invalid",
            "look at what lies between this host and BigQuery",
        ),
    ] {
        world.set_faults(&json!({"iam": {"word": word}}));
        let found = format!("without a window datasets.get: refused with status 403 ({word})");
        let of = "demo-project.finance for agent finance-bot";
        let said = fails(&world, ("dataset", of), &found, cure);
        assert!(!said.contains("as it must be"), "{said}");
    }
}

#[test]
fn a_name_without_an_address_is_named_and_what_needs_it_is_not_tried() {
    let world = world();
    world.set_names(&json!({"bigquery.googleapis.com": {"addresses": [], "ttl_s": 1}}));
    let said = fails(
        &world,
        ("names", "bigquery.googleapis.com"),
        "it has no address",
        "the servers under [names] resolvers must answer for it",
    );
    let _ = line(
        &said,
        "not tried",
        "tls",
        "bigquery.googleapis.com: its name has no address",
    );
    let _ = line(&said, "ok", "token", "agent finance-bot");
    let _ = line(
        &said,
        "not tried",
        "jobs",
        "agent finance-bot in demo-project: it needs BigQuery's API",
    );
}

#[test]
fn a_clock_that_is_not_googles_is_noted_and_fails_past_a_minute() {
    let world = world();
    world.set_faults(&json!({"iam": {}, "ahead_s": 30}));
    let (status, said) = doctor(&world);
    assert_eq!(status, Some(0), "{said}");
    let noted = line(&said, "note", "issuer", "clock");
    assert!(noted.contains("behind the token service's"), "{noted}");
    world.set_faults(&json!({"iam": {}, "ahead_s": -120}));
    let _ = fails(
        &world,
        ("issuer", "clock"),
        "ahead of the token service's",
        "set this host's clock by NTP",
    );
}

#[test]
fn a_service_account_holds_its_datasets_always_and_who_may_not_become_it_is_told_which_role() {
    let mut world = World::without_daemon(Family::V4);
    let account = format!("uid = 2001\nservice_account = \"{ACCOUNT}\"");
    world.edit_config("uid = 2001", &account);
    world.start_daemon();
    world.set_faults(&json!({"iam": {}}));
    let (status, said) = doctor(&world);
    assert_eq!(status, Some(0), "{said}");
    let held = "demo-project.finance for agent finance-bot: allowed, and always so";
    let _ = line(&said, "note", "dataset", held);
    let _ = line(&said, "ok", "tls", "iamcredentials.googleapis.com");

    world.set_faults(&json!({"iamcredentials": "denied"}));
    let _ = fails(
        &world,
        ("token", "agent finance-bot"),
        "denied: token could not be had: IAM Credentials refused with status 403 (PERMISSION_DENIED)",
        &format!(
            "roles/iam.workloadIdentityUser on service account {ACCOUNT} to principal://{POOL}/subject/host-a/agent/finance-bot"
        ),
    );
    world.set_faults(&json!({"sts": "down"}));
    let _ = fails(
        &world,
        ("token", "agent finance-bot"),
        "unreachable: token could not be had: the security token service refused with status 503",
        "Google's service has failed",
    );
}

#[test]
fn the_estimator_sees_what_the_policy_names_and_a_pattern_is_noted() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config(
        "[upstream]",
        "[estimator]\nname = \"estimator\"\n[upstream]",
    );
    world.start_daemon();
    world.set_faults(&json!({"iam": {}}));
    let policy = world.stage.dir().join("policy.toml");
    let text = std::fs::read_to_string(&policy).expect("reads");
    let text = text.replace(
        "datasets = [\"demo-project.finance\"]",
        "datasets = [\"demo-project.finance\", \"demo-project.team_*\"]",
    );
    std::fs::write(&policy, text).expect("written");
    let output = run(&world, Who::Operator, &["--agent", "estimator"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let seen = "demo-project.finance for estimator estimator: allowed: the estimator sees it";
    let _ = line(&said, "ok", "dataset", seen);
    let noted = line(
        &said,
        "note",
        "dataset",
        "demo-project.team_* for estimator estimator",
    );
    assert!(noted.contains("enforcer gcp setup"), "{noted}");
}

#[test]
fn only_root_outside_every_workload_has_it_look() {
    let world = world();
    for who in [Who::Approver, Who::Agent] {
        let output = run(&world, who, &[]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(why.contains("only root may"), "{why}");
    }
    assert!(world.tokens().is_empty(), "nothing was minted for them");
}

#[test]
fn without_a_daemon_the_command_looks_and_makes_no_key() {
    let mut world = World::without_daemon(Family::V4);
    let said = fails(
        &world,
        ("issuer", "key"),
        "there is no issuer key",
        "start the daemon: it makes the key",
    );
    let _ = line(&said, "note", "files", "daemon: none answers at");
    let needs = "agent finance-bot: it needs the issuer's key";
    let _ = line(&said, "not tried", "token", needs);
    assert!(!world.state_dir().join("issuer.pem").exists());

    // What the kernel goes on refusing without its daemon is told from what a network refuses.
    world.start_daemon();
    world.kill_daemon();
    world.set_faults(&json!({"iam": {}}));
    let said = fails(
        &world,
        ("tls", "bigquery.googleapis.com"),
        "connecting to bigquery.googleapis.com failed",
        "where this host is enforced on, the kernel refuses it to everybody but the daemon",
    );
    let _ = line(&said, "ok", "issuer", "key");
    let _ = line(&said, "ok", "token", "agent finance-bot");
}

#[test]
fn a_file_that_is_broken_or_has_changed_since_the_start_is_said() {
    let world = world();
    world.edit_config("uid = 2002", "uid = 2003");
    let (status, said) = doctor(&world);
    assert_eq!(status, Some(0), "{said}");
    let noted = line(&said, "note", "files", "configuration");
    assert!(noted.contains("restart the daemon"), "{noted}");

    let policy = world.stage.dir().join("policy.toml");
    std::fs::write(&policy, "[[rule]]\nagents = 1").expect("written");
    let said = fails(
        &world,
        ("files", "policy"),
        "policy.toml cannot be used",
        "correct",
    );
    let _ = line(&said, "ok", "token", "agent finance-bot");
    let needs = "agent finance-bot: it needs the policy";
    let _ = line(&said, "not tried", "jobs", needs);

    let config = world.config();
    std::fs::set_permissions(&config, PermissionsExt::from_mode(0o666)).expect("set");
    let said = fails(
        &world,
        ("files", "configuration"),
        "others than root can change it",
        "correct the file",
    );
    let _ = line(&said, "not tried", "names", "everything else");
}

#[test]
fn a_key_in_an_hsm_is_looked_at_by_who_uses_it_and_signs_on() {
    let mut world = World::without_daemon(Family::V4);
    let _hsm = SoftHsm::of(&mut world);
    world.start_daemon();
    world.set_faults(&json!({"iam": {}}));
    for _ in 0..2 {
        let (status, said) = doctor(&world);
        assert_eq!(status, Some(0), "{said}");
        let key = line(&said, "ok", "issuer", "key");
        assert!(key.contains("enforcer"), "{key}");
    }
    let _ = world.open_window("demo-project.finance:read", "1m");
    let served = world
        .query(&["SELECT COUNT(*) FROM finance.daily"])
        .remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");
    let log = world.daemon_log();
    assert!(!log.contains("session is opened anew"), "{log}");
}
