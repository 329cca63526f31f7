//! The host's own identity, where agents' service accounts are become from it: each source of it at work in a world, and none that hangs holds up
//! anything.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::programs::said;
use harness::stage::Side;
use harness::world::{Family, Who, World, enforcer};
use serde_json::{Value, json};

use crate::token::{ACCOUNT, DAILY, asked, header, name_too};

/// A world whose host is a machine of Google's, with a metadata server that gives the machine's own identity to who can reach it.
pub(crate) fn on_a_machine_of_googles() -> World {
    let world = World::without_daemon(Family::V4);
    for (side, args) in [
        (Side::Internet, "addr add 169.254.169.254/32 dev lo"),
        (Side::Host, "route add 169.254.169.254 dev wire0"),
    ] {
        let mut command = world.stage.command(side, "ip");
        let status = command.args(args.split(' ')).status().expect("ip runs");
        assert!(status.success(), "{args}");
    }
    world.set_names(
        &json!({"metadata.google.internal": {"addresses": ["169.254.169.254"], "ttl_s": 60}}),
    );
    world
}

#[test]
fn the_base_identity_is_that_of_a_key_file_where_the_daemon_is_given_one() {
    let mut world = World::without_daemon(Family::V4);
    name_too(&world, &[("oauth2.googleapis.com", "sts")]);
    let impersonates =
        format!("uid = 2001\ntoken = \"impersonation\"\nservice_account = \"{ACCOUNT}\"");
    world.edit_config("uid = 2001", &impersonates);
    let dir = world.own_folder(Who::Operator, "base");
    let (key, file) = (dir.join("key.pem"), dir.join("account.json"));
    let openssl = |args: &[&str]| said(std::process::Command::new("openssl").args(args));
    let path = key.to_string_lossy();
    let _ = openssl(&["genpkey", "-algorithm", "RSA", "-out", &path]);
    let public = openssl(&["pkey", "-in", &path, "-pubout"]);
    std::fs::write(world.stage.dir().join("google/base.pub"), public).expect("written");
    let account = json!({
        "type": "service_account", "project_id": "demo-project", "private_key_id": "k",
        "private_key": std::fs::read_to_string(&key).expect("reads"), "client_id": "1",
        "client_email": "host-a@demo-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(&file, account.to_string()).expect("written");
    world.set_daemon_environment("GOOGLE_APPLICATION_CREDENTIALS", &file);
    let roots = world.stage.dir().join("google/world-ca.pem");
    world.set_daemon_environment("SSL_CERT_FILE", &roots);
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "10m");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");
    let tokens = world.tokens();
    let base = tokens.iter().find(|token| token["kind"] == "base");
    let base = base.expect("of the key");
    assert_eq!(base["sub"], "host-a@demo-project.iam.gserviceaccount.com");
    let requests = world.far_requests();
    let with_base = format!("Bearer {}", base["token"].as_str().expect("a token"));
    let asked = asked(&requests, 0, &["iamcredentials.googleapis.com"]);
    assert_eq!(header(asked[0], "authorization"), with_base);
}

#[test]
fn the_machines_own_identity_is_the_daemons_alone() {
    let mut world = on_a_machine_of_googles();
    world.start_daemon();
    let ask = "import urllib.request\nask = urllib.request.Request('http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token', headers={'Metadata-Flavor': 'Google'})\nprint(urllib.request.urlopen(ask, timeout=3).read().decode())";
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let got = said(command.args(["-c", ask]));
    assert!(got.contains("enforcer-placeholder"), "{got}");
    assert_eq!(world.tokens(), Vec::<Value>::new(), "the stand-in answered");
}

/// A world where `finance-bot` becomes a service account from the host's own identity, which is looked for below this home.
fn from_the_home(home: &Path) -> World {
    let mut world = World::without_daemon(Family::V4);
    name_too(&world, &[("accounts.google.com", "sts")]);
    let impersonates =
        format!("uid = 2001\ntoken = \"impersonation\"\nservice_account = \"{ACCOUNT}\"");
    world.edit_config("uid = 2001", &impersonates);
    let roots = world.stage.dir().join("google/world-ca.pem");
    world.set_daemon_environment("SSL_CERT_FILE", &roots);
    world.set_daemon_environment("HOME", home);
    let known = world.stage.dir().join("google/user.json");
    std::fs::write(known, person().to_string()).expect("written");
    world
}

/// Who is logged in on the host, as Google knows it.
fn person() -> Value {
    json!({
        "type": "authorized_user", "client_id": "a client", "client_secret": "what it is known by",
        "refresh_token": "1//a-refresh-token-of-a-person", "quota_project_id": "demo-project",
    })
}

/// As the Cloud SDK does, it gets a token by a refresh token of its own.
const LOGIN: &str = r#"curl --silent --fail --cacert "$SSL_CERT_FILE" --data '{"grant_type":"refresh_token","client_id":"a client","client_secret":"what it is known by","refresh_token":"1//a-refresh-token-of-a-person"}' https://accounts.google.com/o/oauth2/token | sed 's/.*"access_token": *"\([^"]*\)".*/\1/'"#;

/// Puts a program in the Cloud SDK's place, and says what `PATH` is with it.
fn with_gcloud(world: &World, script: &str) -> String {
    let dir = world.own_folder(Who::Operator, "sdk");
    let program = dir.join("gcloud");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("runs");
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display())
}

/// A query is served, with a token that was got by the person's.
fn serves_by_the_person(world: &World) {
    let _ = world.open_window("demo-project.finance:read", "10m");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");
    let tokens = world.tokens();
    let base = tokens.iter().find(|token| token["kind"] == "base");
    let base = base.expect("of the person");
    assert_eq!(base["sub"], "a person");
    let token = base["token"].as_str().expect("a token");
    let requests = world.far_requests();
    let shown = asked(&requests, 0, &["iamcredentials.googleapis.com"]);
    assert_eq!(header(shown[0], "authorization"), format!("Bearer {token}"));
}

/// What a start says that comes to nothing.
fn refused_start(world: &World, home: &Path, path: &str) -> String {
    let mut command = world.stage.command(Side::Host, enforcer());
    command.arg("daemon").arg("--config").arg(world.config());
    let roots = world.stage.dir().join("google/world-ca.pem");
    let command = command.env("SSL_CERT_FILE", roots);
    let started = command.env("HOME", home).env("PATH", path).output();
    let started = started.expect("starts");
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    String::from_utf8_lossy(&started.stderr).into_owned()
}

#[test]
fn the_base_identity_is_a_persons_where_application_default_credentials_are_there_and_then_nobody_elses()
 {
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join(".config/gcloud");
    std::fs::create_dir_all(&dir).expect("made");
    let file = dir.join("application_default_credentials.json");
    std::fs::write(&file, person().to_string()).expect("written");
    let mut world = from_the_home(home.path());
    world.start_daemon();
    serves_by_the_person(&world);
    let log = world.daemon_log();
    let said = "own identity is that of application-default credentials";
    assert!(log.contains(said), "{log}");
    world.stop_daemon();

    // Google has forgotten the person: the host does not become somebody else.
    std::fs::write(world.stage.dir().join("google/user.json"), "{}").expect("written");
    let path = with_gcloud(&world, "echo a-token-of-somebody-else");
    let said = refused_start(&world, home.path(), &path);
    assert!(said.contains("no usable base identity"), "{said}");
}

#[test]
fn the_base_identity_is_that_of_gclouds_login_where_there_is_no_other() {
    let home = tempfile::tempdir().expect("a folder");
    let mut world = from_the_home(home.path());
    let path = with_gcloud(&world, LOGIN);
    world.set_daemon_environment("PATH", path);
    world.start_daemon();
    serves_by_the_person(&world);
    let log = world.daemon_log();
    assert!(
        log.contains("own identity is that of gcloud's login"),
        "{log}"
    );
}

#[test]
fn a_metadata_server_that_is_there_and_fails_is_not_passed_over_for_gclouds_login() {
    let home = tempfile::tempdir().expect("a folder");
    for (fault, says) in [
        ("down", "metadata server is there and gives no token"),
        ("hang", "the host's base identity did not answer in time"),
    ] {
        let world = on_a_machine_of_googles();
        let impersonates =
            format!("uid = 2001\ntoken = \"impersonation\"\nservice_account = \"{ACCOUNT}\"");
        world.edit_config("uid = 2001", &impersonates);
        world.set_faults(&json!({"metadata": fault}));
        let mark = home.path().join("run");
        let path = with_gcloud(&world, &format!("touch {}; echo somebody", mark.display()));
        let said = refused_start(&world, home.path(), &path);
        assert!(said.contains(says), "{said}");
        assert!(!mark.exists(), "nobody else was asked");
    }
}

#[test]
fn the_source_that_is_named_is_the_one_that_is_asked_whatever_else_there_is() {
    let home = tempfile::tempdir().expect("a folder");
    let mut world = on_a_machine_of_googles();
    let known = world.stage.dir().join("google/user.json");
    std::fs::write(known, person().to_string()).expect("written");
    let impersonates =
        format!("uid = 2001\ntoken = \"impersonation\"\nservice_account = \"{ACCOUNT}\"");
    world.edit_config("uid = 2001", &impersonates);
    world.edit_config(
        "kind = \"federation\"",
        "kind = \"federation\"\nbase = \"key-file\"",
    );
    let said = refused_start(&world, home.path(), "/usr/bin:/bin");
    assert!(
        said.contains("`token.base` names the key file") && said.contains("none on this host"),
        "{said}"
    );
    world.edit_config("base = \"key-file\"", "base = \"metadata\"");
    let path = with_gcloud(&world, "echo somebody");
    world.set_daemon_environment("PATH", path);
    world.set_daemon_environment("HOME", home.path());
    world.start_daemon();
    let log = world.daemon_log();
    assert!(
        log.contains("is that of the machine's metadata server"),
        "{log}"
    );
}

/// The processes whose command has this word.
fn processes_of(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("lists").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&command).replace('\0', " ");
        if words.contains(word) {
            found.push(words);
        }
    }
    found
}

#[test]
fn a_gcloud_that_hangs_ends_the_start_in_bounded_time_and_nothing_of_it_is_in_the_next_ones_way() {
    let home = tempfile::tempdir().expect("a folder");
    let mut world = from_the_home(home.path());
    // What it starts of its own, in a session of its own, is its too.
    let known = format!("{}.5", 86_000 + std::process::id() % 1000);
    let path = with_gcloud(
        &world,
        &format!("setsid sleep {known} & exec sleep {known}"),
    );
    let said = refused_start(&world, home.path(), &path);
    assert!(said.contains("no usable base identity"), "{said}");
    assert_eq!(world.far_requests(), Vec::<Value>::new());
    assert_eq!(processes_of(&known), Vec::<String>::new());

    let path = with_gcloud(&world, LOGIN);
    world.set_daemon_environment("PATH", path);
    world.start_daemon();
    serves_by_the_person(&world);
}

#[test]
fn a_login_whose_token_has_ended_before_its_time_is_asked_once_more_and_once_only() {
    let home = tempfile::tempdir().expect("a folder");
    let mut world = from_the_home(home.path());
    let calls = home.path().join("calls");
    let (count, often) = (calls.display(), "[ $(wc -l <\"$HOME/calls\")");
    // What it has kept for a while, before it gets one that is good.
    let script =
        format!("echo call >>{count}\n{often} = 1 ] && exec echo ya29.has-ended-since\n{LOGIN}");
    let path = with_gcloud(&world, &script);
    world.set_daemon_environment("PATH", path);
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "10m");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");
    let called = || {
        std::fs::read_to_string(&calls)
            .expect("reads")
            .lines()
            .count()
    };
    assert_eq!(called(), 2);
    world.stop_daemon();

    // One that never has a good one.
    let script = format!("echo call >>{count}\necho ya29.has-ended-since");
    let _ = with_gcloud(&world, &script);
    std::fs::remove_file(&calls).expect("removed");
    world.start_daemon();
    let before = called();
    let refused = world.query(&[DAILY]).remove(0);
    let error = refused["error"].as_str().expect("refused");
    assert!(
        error.contains("IAM Credentials refused with status 401"),
        "{error}"
    );
    assert_eq!(called(), before + 1);
}

#[test]
fn gcloud_runs_outside_the_daemons_cgroup_with_its_own_environment_alone() {
    let home = tempfile::tempdir().expect("a folder");
    let mut world = from_the_home(home.path());
    let told = home.path().join("told");
    let script = format!(
        "{{ cat /proc/self/cgroup; env; }} >{}\n{LOGIN}",
        told.display()
    );
    let path = with_gcloud(&world, &script);
    world.set_daemon_environment("PATH", path);
    world.set_daemon_environment("CREDENTIALS_DIRECTORY", "/run/credentials/enforcer");
    world.start_daemon();
    let told = std::fs::read_to_string(&told).expect("told");
    assert!(told.contains("-helpers/gcloud-"), "{told}");
    assert!(
        told.contains("HOME=") && !told.contains("CREDENTIALS"),
        "{told}"
    );
}
