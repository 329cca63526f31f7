//! The issuer's key, wherever it is kept: a file, a credential of the service manager's, an HSM. It signs, it changes without a gap, and its private
//! half is nowhere else.

use std::path::PathBuf;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
use cryptoki::session::UserType;
use harness::programs::said;
use harness::stage::Side;
use harness::world::{Family, Who, World, enforcer, wait_for};
use serde_json::{Value, json};

use crate::token::DAILY;

#[test]
fn the_issuers_key_changes_without_a_gap_and_the_next_window_is_signed_for_by_the_new_one() {
    let world = World::start(Family::V4);
    let config = world.config().to_string_lossy().into_owned();
    let gcp = |args: &[&str]| {
        let args: Vec<&str> = ["gcp"].iter().chain(args).copied().collect();
        world.cli(Who::Operator, &[&args[..], &["--config", &config]].concat())
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let keys = || -> Value { serde_json::from_str(&said(&gcp(&["jwks"]))).expect("JSON") };
    let first = keys()["keys"][0].clone();
    let grant = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));

    let begun = gcp(&["rotate-key"]);
    assert!(
        begun.status.success() && said(&begun).contains("--jwk-json-path="),
        "{begun:?}"
    );
    let early = gcp(&["rotate-key", "--switch"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&early.stderr).contains("too soon"),
        "{early:?}"
    );
    assert!(gcp(&["rotate-key", "--switch", "--now"]).status.success());
    let both = keys();
    assert_eq!(
        (both["keys"].as_array().map(Vec::len), &both["keys"][1]),
        (Some(2), &first)
    );

    // Google knows the new key alone now: what the old one had signed would be refused.
    let new = json!({"keys": [both["keys"][0]]});
    let published = world.stage.dir().join("run/jwks.json");
    std::fs::write(published, new.to_string()).expect("written");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    assert!(gcp(&["rotate-key", "--end", "--now"]).status.success());
    assert_eq!(keys(), new);
    wait_for("both on record", || {
        world.events("issuer_key_signs").len() == 2
    });
    let kids = world.events("issuer_key_signs");
    assert_eq!(kids[0]["kid"], first["kid"]);
    assert_eq!(kids[1]["kid"], new["keys"][0]["kid"]);
}

/// Where Debian puts it; `cargo xtask test` installs it.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "926535";

/// A software HSM of this test's own, with one token.
pub(crate) struct SoftHsm {
    conf: PathBuf,
    tokens: PathBuf,
}

impl SoftHsm {
    /// Has the world's daemon sign by it from its start on.
    pub(crate) fn of(world: &mut World) -> Self {
        let dir = world.stage.dir().join("hsm");
        let hsm = Self {
            conf: dir.join("softhsm2.conf"),
            tokens: dir.join("tokens"),
        };
        std::fs::create_dir_all(&hsm.tokens).expect("makes folders");
        let conf = format!("directories.tokendir = {}\n", hsm.tokens.display());
        std::fs::write(&hsm.conf, conf).expect("writes");
        let pin = dir.join("pin");
        std::fs::write(&pin, PIN).expect("writes");
        std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("closes");
        let made = std::process::Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", "enforcer"])
            .args(["--so-pin", "5678", "--pin", PIN])
            .env("SOFTHSM2_CONF", &hsm.conf)
            .output()
            .expect("apt-get install softhsm2");
        assert!(made.status.success(), "{made:?}");
        let next = "[[agent]]\nname = \"finance-bot\"";
        let named = format!(
            "signer = {{ module = \"{SOFTHSM}\", token = \"enforcer\", key = \"issuer\", pin_file = \"{}\" }}\n{next}",
            pin.display()
        );
        world.edit_config(next, &named);
        world.set_daemon_environment("SOFTHSM2_CONF", &hsm.conf);
        hsm
    }

    /// Whether the value of each private key in the token can be read by who has the PIN.
    fn values(&self) -> Vec<AttributeInfo> {
        #[expect(
            clippy::disallowed_methods,
            reason = "SoftHSM takes it from nowhere else, and each test has a process of its own"
        )]
        // SAFETY: nothing else in this test reads or writes the environment at this moment.
        unsafe {
            std::env::set_var("SOFTHSM2_CONF", &self.conf);
        }
        let module = Pkcs11::new(SOFTHSM).expect("loads");
        let flags = CInitializeFlags::OS_LOCKING_OK;
        module
            .initialize(CInitializeArgs::new(flags))
            .expect("begins");
        let slots = module.get_slots_with_initialized_token().expect("lists");
        let session = module.open_ro_session(slots[0]).expect("opens");
        session
            .login(UserType::User, Some(&PIN.into()))
            .expect("logs in");
        let private = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
        let keys = session.find_objects(&private).expect("finds");
        let value = |key| session.get_attribute_info(key, &[AttributeType::Value]);
        keys.into_iter()
            .flat_map(|key| value(key).expect("is told"))
            .collect()
    }
}

/// What `enforcer gcp` says, in the environment of the daemon's unit.
fn gcp_by(world: &World, hsm: &SoftHsm, args: &[&str]) -> String {
    let mut command = world.run_as(Who::Operator, enforcer());
    command.arg("gcp").args(args).arg("--config");
    said(command.arg(world.config()).env("SOFTHSM2_CONF", &hsm.conf))
}

#[test]
fn a_key_in_an_hsm_signs_and_changes_as_one_on_disk_and_cannot_be_read() {
    let mut world = World::without_daemon(Family::V4);
    let hsm = SoftHsm::of(&mut world);
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    assert!(
        !world.state_dir().join("issuer.pem").exists(),
        "no key is on disk"
    );
    let keys = |world: &World| -> Value {
        let said = gcp_by(world, &hsm, &["jwks"]);
        serde_json::from_str(&said).expect("JSON")
    };
    let published = world.stage.dir().join("run/jwks.json");
    let text = std::fs::read_to_string(&published).expect("published");
    let first = keys(&world);
    assert_eq!(first, serde_json::from_str::<Value>(&text).expect("JSON"));

    assert!(gcp_by(&world, &hsm, &["rotate-key"]).contains("--jwk-json-path="));
    gcp_by(&world, &hsm, &["rotate-key", "--switch", "--now"]);
    let both = keys(&world);
    assert_eq!(both["keys"][1], first["keys"][0]);
    // Google knows the new key alone now: what the old one had signed would be refused.
    let new = json!({"keys": [both["keys"][0]]});
    std::fs::write(&published, new.to_string()).expect("written");
    let grant = world.events("opened")[0]["grant"].clone();
    let grant = grant.as_str().expect("a grant").to_owned();
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    assert!(matches!(
        hsm.values().as_slice(),
        [AttributeInfo::Sensitive, AttributeInfo::Sensitive]
    ));
    gcp_by(&world, &hsm, &["rotate-key", "--end", "--now"]);
    assert_eq!(keys(&world), new);
    world.stop_daemon();
    world.start_daemon();
    let text = std::fs::read_to_string(&published).expect("published");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), new);
}

#[test]
fn with_a_pin_that_its_hsm_refuses_the_daemon_does_not_start_and_tries_it_once_however_often_it_is_started()
 {
    let mut world = World::without_daemon(Family::V4);
    let hsm = SoftHsm::of(&mut world);
    std::fs::write(hsm.conf.with_file_name("pin"), "314159").expect("writes");
    let memory = world.state_dir().join("hsm-pin-refused");
    let start = || {
        let mut command = world.stage.command(Side::Host, enforcer());
        command.arg("daemon").arg("--config").arg(world.config());
        let started = command.env("SOFTHSM2_CONF", &hsm.conf).output();
        let started = started.expect("starts");
        assert_eq!(started.status.code(), Some(1), "{started:?}");
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(
            said.contains("token enforcer does not take the PIN, which is not tried again")
                && !said.contains("314159"),
            "{said}"
        );
        std::fs::metadata(&memory)
            .and_then(|memory| memory.modified())
            .expect("remembered")
    };
    // It is written where the token is asked.
    assert_eq!(start(), start());
}

#[test]
fn without_its_hsm_a_query_is_refused_in_one_sentence_and_nothing_is_forwarded_until_it_is_back() {
    let mut world = World::without_daemon(Family::V4);
    let hsm = SoftHsm::of(&mut world);
    world.start_daemon();
    let away = hsm.tokens.with_extension("away");
    std::fs::rename(&hsm.tokens, &away).expect("is taken out");
    let _ = world.open_window("demo-project.finance:read", "10m");
    let refused = world.query(&[DAILY]).remove(0);
    let error = refused["error"].as_str().expect("refused");
    assert!(
        error.starts_with("403")
            && error.contains("[token.unavailable]")
            && error.contains("the HSM that has the issuer key does not answer"),
        "{error}"
    );
    assert_eq!(world.far_requests(), Vec::<Value>::new());
    let recorded = world.events("query_refused");
    assert!(
        recorded
            .iter()
            .any(|event| event["refusal"]["code"] == "token.unavailable" && event["sql"] == DAILY),
        "{recorded:?}"
    );
    std::fs::rename(&away, &hsm.tokens).expect("is put back");
    // A failure is repeated for a moment before anybody is asked again.
    wait_for("a token", || {
        world.query(&[DAILY]).remove(0)["error"].is_null()
    });
    let told = json!([world.records(), world.daemon_log()]).to_string();
    assert!(!told.contains(PIN), "the PIN is told nowhere");
}

/// What `enforcer gcp rotate-key` gives away, put where the service manager would have it for the daemon.
fn hand_over(world: &World, name: &str) {
    let mut command = world.stage.command(Side::Host, enforcer());
    command.args(["gcp", "rotate-key", "--config"]);
    let made = command.arg(world.config()).output().expect("runs");
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(
        made.status.success() && told.contains("--jwk-json-path="),
        "{told}"
    );
    let path = credentials(world).join(name);
    std::fs::write(&path, made.stdout).expect("handed over");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400))
        .expect("closed");
}

fn credentials(world: &World) -> PathBuf {
    world.own_folder(Who::Operator, "credentials")
}

#[test]
fn a_key_that_the_service_manager_hands_over_signs_and_changes_and_is_in_no_file_of_the_hosts() {
    let mut world = World::without_daemon(Family::V4);
    let next = "[[agent]]\nname = \"finance-bot\"";
    world.edit_config(next, &format!("key_credential = \"issuer-key\"\n{next}"));
    let folder = credentials(&world);
    world.set_daemon_environment("CREDENTIALS_DIRECTORY", &folder);
    let config = world.config().to_string_lossy().into_owned();
    let start = || {
        let mut command = world.stage.command(Side::Host, enforcer());
        command.args(["daemon", "--config", &config]);
        let started = command.env("CREDENTIALS_DIRECTORY", &folder).output();
        let started = started.expect("starts");
        assert_eq!(started.status.code(), Some(1), "{started:?}");
        String::from_utf8_lossy(&started.stderr).into_owned()
    };
    let cure = "enforcer gcp rotate-key --output /etc/enforcer/issuer-key.cred";
    let none = start();
    assert!(none.contains(cure), "{none}");

    hand_over(&world, "issuer-key");
    world.start_daemon();
    let gcp = |world: &World, args: &[&str]| {
        let args: Vec<&str> = ["gcp"].iter().chain(args).copied().collect();
        world.cli(Who::Operator, &[&args[..], &["--config", &config]].concat())
    };
    let keys = |world: &World| -> Value {
        let said = gcp(world, &["jwks"]);
        serde_json::from_slice(&said.stdout).expect("JSON")
    };
    let grant = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    let first = keys(&world);

    hand_over(&world, "next");
    let early = gcp(&world, &["rotate-key", "--switch"]);
    let told = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(told.contains("too soon"), "{told}");
    assert!(
        gcp(&world, &["rotate-key", "--switch", "--now"])
            .status
            .success()
    );
    let both = keys(&world);
    assert_eq!(
        both["keys"][0], first["keys"][0],
        "it signs until it is handed over"
    );
    // Google knows the new key alone now: what the old one had signed would be refused.
    let new = json!({"keys": [both["keys"][1]]});
    world.stop_daemon();
    std::fs::rename(folder.join("next"), folder.join("issuer-key")).expect("in its place");
    world.start_daemon();
    let published = world.stage.dir().join("run/jwks.json");
    std::fs::write(published, new.to_string()).expect("written");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    assert_eq!(keys(&world)["keys"][1], first["keys"][0]);
    assert!(
        gcp(&world, &["rotate-key", "--end", "--now"])
            .status
            .success()
    );
    assert_eq!(keys(&world), new);
    for entry in std::fs::read_dir(world.state_dir()).expect("lists") {
        let entry = entry.expect("is there").path();
        let text = std::fs::read(&entry).unwrap_or_default();
        let is_there = String::from_utf8_lossy(&text).contains("PRIVATE KEY");
        assert!(
            !is_there || entry.ends_with("ca.key"),
            "{}",
            entry.display()
        );
    }
    let report = gcp(&world, &["doctor"]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(
        report.contains("signs, in the credential issuer-key"),
        "{report}"
    );
}

/// A world whose issuer's key is a credential, that nobody has handed over yet.
fn with_a_credential() -> (World, PathBuf) {
    let mut world = World::without_daemon(Family::V4);
    let next = "[[agent]]\nname = \"finance-bot\"";
    world.edit_config(next, &format!("key_credential = \"issuer-key\"\n{next}"));
    let folder = credentials(&world);
    world.set_daemon_environment("CREDENTIALS_DIRECTORY", &folder);
    (world, folder)
}

fn rotate_key(world: &World) -> std::process::Command {
    let mut command = world.stage.command(Side::Host, enforcer());
    command.args(["gcp", "rotate-key", "--config"]);
    command.arg(world.config());
    command
}

#[test]
fn a_key_is_encrypted_into_a_file_that_was_not_there_and_where_that_fails_none_was_made() {
    let (world, folder) = with_a_credential();
    let (file, stub) = (folder.join("issuer-key.cred"), folder.join("systemd-creds"));
    let made = || world.state_dir().join("issuer-next.jwk").exists();
    std::fs::write(&stub, "#!/bin/sh\ncat >/dev/null\nexit 1\n").expect("written");
    std::fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("runs");
    let mut command = rotate_key(&world);
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let failed = command
        .arg("--output")
        .arg(&file)
        .env("PATH", path)
        .output();
    let failed = failed.expect("runs");
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        !failed.status.success() && told.contains("systemd-creds ended with"),
        "{told}"
    );
    assert!(!file.exists() && !made(), "nothing is left");

    let said = said(rotate_key(&world).arg("--output").arg(&file));
    assert!(said.is_empty(), "the key is in no other place: {said}");
    let mut decrypt = std::process::Command::new("systemd-creds");
    let key = harness::programs::said(
        decrypt
            .args(["decrypt", "--name=issuer-key"])
            .arg(&file)
            .arg("-"),
    );
    assert!(key.contains("BEGIN PRIVATE KEY"), "it is what signs");
    let before = std::fs::read(&file).expect("reads");
    assert!(!String::from_utf8_lossy(&before).contains("PRIVATE"));
    let kept = std::fs::read(world.state_dir().join("issuer-next.jwk")).expect("kept");
    for (more, why) in [
        (&["--again"][..], "is there already, and is not overwritten"),
        (&[], "say --again where it is lost"),
    ] {
        let mut command = rotate_key(&world);
        let again = command.args(more).arg("--output").arg(&file).output();
        let again = again.expect("runs");
        let told = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(!again.status.success() && told.contains(why), "{told}");
    }
    assert_eq!(std::fs::read(&file).expect("reads"), before);
    let now = std::fs::read(world.state_dir().join("issuer-next.jwk")).expect("kept");
    assert_eq!(now, kept, "Google is told of the one that is there");
}

#[test]
fn of_steps_that_are_taken_at_once_one_makes_a_key() {
    let (world, _) = with_a_credential();
    let begin = |_| {
        let mut command = rotate_key(&world);
        let piped = std::process::Stdio::piped;
        command
            .stdout(piped())
            .stderr(piped())
            .spawn()
            .expect("starts")
    };
    let begun: Vec<std::process::Child> = (0..6).map(begin).collect();
    let ended = begun
        .into_iter()
        .map(|child| child.wait_with_output().expect("ends"));
    let (made, refused): (Vec<_>, Vec<_>) = ended.partition(|output| output.status.success());
    assert_eq!(made.len(), 1, "{made:?}");
    for output in refused {
        assert!(output.stdout.is_empty(), "no key");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            told.contains("was made and given away")
                || told.contains("is being taken at this moment"),
            "{told}"
        );
    }
}

#[test]
fn a_key_that_takes_over_unannounced_is_said_until_google_takes_what_it_signs() {
    let (mut world, folder) = with_a_credential();
    hand_over(&world, "issuer-key");
    world.start_daemon();
    let published = world.stage.dir().join("run/jwks.json");
    let known = std::fs::read(&published).expect("published");
    world.stop_daemon();
    // Of somebody who made it without a word to Google.
    let file = folder.join("issuer-key");
    let mut openssl = std::process::Command::new("openssl");
    let made = openssl.args([
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    let key = said(made);
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, key).expect("handed over");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400))
        .expect("closed");
    for _ in 0..2 {
        world.start_daemon();
        let doubt = "took over without `enforcer gcp rotate-key` having announced it";
        assert!(world.daemon_log().contains(doubt), "{}", world.daemon_log());
        let told = world.status()["unhealthy"].to_string();
        assert!(
            told.contains(doubt) && told.contains("enforcer gcp jwks"),
            "{told}"
        );
        world.stop_daemon();
    }
    world.start_daemon();
    let both = std::fs::read(&published).expect("published");
    std::fs::write(&published, known).expect("written");
    let _ = world.open_window("demo-project.finance:read", "10m");
    let refused = world.query(&[DAILY]).remove(0)["error"].to_string();
    assert!(refused.contains("invalid_grant"), "{refused}");
    let is_said = |world: &World| {
        world.status()["unhealthy"]
            .to_string()
            .contains("took over without")
    };
    assert!(is_said(&world));

    std::fs::write(&published, both).expect("written");
    wait_for("a token", || {
        world.query(&[DAILY]).remove(0)["error"].is_null()
    });
    assert!(!is_said(&world), "{}", world.status()["unhealthy"]);
}

#[test]
fn a_private_key_is_given_away_to_no_screen_and_in_no_report() {
    let world = World::without_daemon(Family::V4);
    let next = "[[agent]]\nname = \"finance-bot\"";
    world.edit_config(next, &format!("key_credential = \"issuer-key\"\n{next}"));
    let config = world.config().to_string_lossy().into_owned();
    let asked = ["gcp", "rotate-key", "--json", "--config", &config];
    let refused = world.cli(Who::Operator, &asked);
    let told = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        !refused.status.success() && told.contains("this prints a private key"),
        "{told}"
    );
    // `script` gives it a terminal.
    let line = format!("{} gcp rotate-key --config {config}", enforcer().display());
    let mut command = world.stage.command(Side::Host, "script");
    let on_a_screen = command.args(["-qec", &line, "/dev/null"]).output();
    let on_a_screen = on_a_screen.expect("runs");
    let told = String::from_utf8_lossy(&on_a_screen.stdout).into_owned();
    assert!(
        told.contains("this prints a private key") && !told.contains("PRIVATE KEY"),
        "{told}"
    );
}
