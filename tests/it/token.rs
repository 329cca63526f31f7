//! Tokens stay where they belong: the agent's never go out, the real one never comes in, and without one nothing is forwarded.

use std::path::PathBuf;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
use cryptoki::session::UserType;
use harness::programs::said;
use harness::stage::Side;
use harness::world::{AGENTS_OWN_TOKEN, Family, Who, World, enforcer, policy, wait_for};
use serde_json::{Value, json};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A client that keeps every byte it was sent, and sends a credential in every place there is.
const RAW: &str = r#"
import http.client, json, ssl, sys
connection = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=sys.argv[1]))
body = json.dumps({"configuration": {"query": {"query": "SELECT COUNT(*) FROM finance.daily", "useLegacySql": False}}})
secret = {"authorization": "Bearer agents-own-secret", "x-goog-api-key": "agents-own-secret", "cookie": "a=agents-own-secret",
          "x-goog-user-project": "agents-own-secret", "proxy-authorization": "Basic agents-own-secret", "content-type": "application/json"}
connection.request("POST", "/bigquery/v2/projects/demo-project/jobs?key=agents-own-secret&access_token=agents-own-secret", body, secret)
answer = connection.getresponse()
print(answer.status, answer.getheaders(), answer.read().decode())
"#;

/// A client that agrees on TLS, and asks nothing.
const SILENT: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with context.wrap_socket(socket.create_connection(("bigquery.googleapis.com", 443)), server_hostname="bigquery.googleapis.com") as agreed:
    print(agreed.version())
"#;

fn raw(world: &World) -> String {
    run(world, RAW)
}

fn run(world: &World, client: &str) -> String {
    let bundle = world.stage.dir().join("run/ca.pem");
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    said(command.args(["-c", client]).arg(bundle))
}

#[test]
fn a_token_is_on_its_way_before_the_first_request_has_come_and_only_within_a_window() {
    let world = World::start(Family::V4);
    assert!(run(&world, SILENT).starts_with("TLS"));
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert_eq!(world.tokens(), Vec::<Value>::new());
    assert!(run(&world, SILENT).starts_with("TLS"));
    wait_for("a token", || world.tokens().len() == 1);
    assert!(raw(&world).starts_with("200"));
    assert_eq!(world.tokens().len(), 1, "the one that was begun is used");
}

fn stay_where_they_belong(family: Family) {
    let world = World::start(family);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let seen = raw(&world);
    assert!(seen.starts_with("200"), "{seen}");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]));

    let requests = world.far_requests();
    let here = world.bigquery_here().to_string();
    assert!(
        requests
            .iter()
            .filter(|request| request["host"] == "bigquery.googleapis.com")
            .all(|request| request["at"] == here.as_str()),
        "BigQuery was reached where this world has it"
    );
    let sent: String = requests.iter().map(ToString::to_string).collect();
    assert!(
        !sent.contains("agents-own-secret") && !sent.contains(AGENTS_OWN_TOKEN),
        "the far side saw the agent's credential"
    );
    let minted = world.tokens();
    assert!(!minted.is_empty());
    for token in minted
        .iter()
        .map(|token| token["token"].as_str().expect("a token"))
    {
        assert!(
            sent.contains(token),
            "the far side was sent the token it minted"
        );
        let inside = [
            seen.clone(),
            served.to_string(),
            world.daemon_log(),
            world.records().iter().map(ToString::to_string).collect(),
        ];
        assert!(
            inside.iter().all(|text| !text.contains(token)),
            "the token is where it must not be"
        );
    }
}

#[test]
fn the_agents_own_credentials_never_leave_and_the_real_token_never_arrives_on_ipv4() {
    stay_where_they_belong(Family::V4);
}

#[test]
fn the_agents_own_credentials_never_leave_and_the_real_token_never_arrives_on_ipv6() {
    stay_where_they_belong(Family::V6);
}

#[test]
fn an_answer_that_echoes_the_token_is_not_passed_on() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    world.set_faults(&json!({"echo_authorization": true}));
    let seen = raw(&world);
    assert!(
        seen.starts_with("403") && seen.contains("upstream.failed"),
        "{seen}"
    );
    for token in world.tokens() {
        assert!(!seen.contains(token["token"].as_str().expect("a token")));
    }
}

fn without_sts_nothing_is_forwarded(family: Family) {
    let world = World::start(family);
    world.set_faults(&json!({"sts": "down"}));
    let _ = world.open_window("demo-project.finance:read", "1m");
    let refused = world.query(&[DAILY]).remove(0);
    let error = refused["error"].as_str().expect("refused");
    assert!(
        error.starts_with("403")
            && error.contains("token could not be had")
            && error.contains("[token.unavailable]"),
        "{error}"
    );
    assert!(
        world
            .far_requests()
            .iter()
            .all(|request| request["host"] != "bigquery.googleapis.com")
    );
    let recorded = world.events("query_refused");
    assert!(
        recorded
            .iter()
            .any(|event| event["refusal"]["code"] == "token.unavailable" && event["sql"] == DAILY),
        "{recorded:?}"
    );
    let is_fault = |world: &World| {
        let faults = world.status()["unhealthy"].to_string();
        faults.contains("finance-bot: token could not be had")
    };
    assert!(is_fault(&world), "{}", world.status()["unhealthy"]);
    world.set_faults(&json!({}));
    // A failure is repeated for a moment before anybody is asked again.
    wait_for("a token", || {
        world.query(&[DAILY]).remove(0)["error"].is_null()
    });
    assert!(!is_fault(&world), "one was had");
}

#[test]
fn without_sts_a_query_is_refused_with_its_own_code_and_nothing_is_forwarded_on_ipv4() {
    without_sts_nothing_is_forwarded(Family::V4);
}

#[test]
fn without_sts_a_query_is_refused_with_its_own_code_and_nothing_is_forwarded_on_ipv6() {
    without_sts_nothing_is_forwarded(Family::V6);
}

const ACCOUNT: &str = "finance-reader@demo-project.iam.gserviceaccount.com";

/// A world where `finance-bot` becomes a service account.
fn with_a_service_account() -> World {
    let mut world = World::without_daemon(Family::V4);
    let service_account = format!("uid = 2001\nservice_account = \"{ACCOUNT}\"");
    world.edit_config("uid = 2001", &service_account);
    world.start_daemon();
    world
}

#[test]
fn a_credential_of_the_agents_own_is_on_record_by_its_kind_and_hash_and_is_nowhere_else() {
    const OWN: &str = "ya29.a0AfB_byC-the-agents-own-access-token";
    const KEY: &str = "AIzaSyA-the-agents-own-api-key-0123456789";
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let client = RAW
        .replace("Bearer agents-own-secret", &format!("Bearer {OWN}"))
        .replace("?key=agents-own-secret", &format!("?key={KEY}"));
    let seen = run(&world, &client);
    assert!(
        seen.starts_with("200"),
        "the identity is the kernel's to say: {seen}"
    );
    wait_for("both", || world.events("credential_presented").len() == 2);
    for (what, own) in [
        ("an access token, in authorization", OWN),
        ("an API key, in the parameter key", KEY),
    ] {
        let events = world.events("credential_presented");
        let event = events.iter().find(|event| event["what"] == what);
        let event = event.unwrap_or_else(|| panic!("{what}: {events:?}"));
        assert_eq!(
            (&event["agent"], &event["count"]),
            (&json!("finance-bot"), &json!(1))
        );
        let hash = enforcer_proto::audit::sha256_hex(own.as_bytes());
        assert_eq!(event["fingerprint"], hash[..16], "{event}");
        let inside: String = world.records().iter().map(ToString::to_string).collect();
        let sent: String = world
            .far_requests()
            .iter()
            .map(ToString::to_string)
            .collect();
        for text in [inside, sent, world.daemon_log()] {
            assert!(!text.contains(own), "it is where it must not be");
        }
    }
    let told = world.cli(Who::Operator, &["log"]);
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let said = "own key  1 times finance-bot sent an access token, in authorization";
    assert!(told.contains(said), "{told}");
}

/// A world whose host is a machine of Google's, with a metadata server that gives the machine's own identity to who can reach it.
fn on_a_machine_of_googles() -> World {
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

/// What the far side was asked under these names, since it had had `before` requests.
fn asked<'a>(requests: &'a [Value], before: usize, names: &[&str]) -> Vec<&'a Value> {
    let is_of_them = |request: &&Value| names.iter().any(|name| request["host"] == *name);
    requests[before..].iter().filter(is_of_them).collect()
}

#[test]
fn each_agents_tokens_are_made_as_its_own_configuration_says_and_counted_against_its_own_project() {
    let mut world = on_a_machine_of_googles();
    let for_both = policy("15m", false).replace("finance-bot", "finance-bot\", \"ops-bot");
    world.set_policy(&for_both);
    let impersonates = format!(
        "uid = 2001\ntoken = \"impersonation\"\nservice_account = \"{ACCOUNT}\"\nquota_project = \"finance-billing\""
    );
    world.edit_config("uid = 2001", &impersonates);
    world.edit_config("[upstream]", "[upstream]\nquota_project = \"everybodys\"");
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "10m");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");

    let requests = world.far_requests();
    let tokens = world.tokens();
    let of_kind = |kind: &str| format!("Bearer {}", token_of(&tokens, kind));
    assert_eq!(asked(&requests, 0, &["sts.googleapis.com"]).len(), 0);
    for request in asked(&requests, 0, &["iamcredentials.googleapis.com"]) {
        assert_eq!(header(request, "authorization"), of_kind("base"));
    }
    let queries = asked(&requests, 0, &["bigquery.googleapis.com"]);
    assert!(queries.len() >= 2, "a dry run, and the query");
    for request in queries {
        assert_eq!(header(request, "authorization"), of_kind("service account"));
        assert_eq!(header(request, "x-goog-user-project"), "finance-billing");
    }

    // The other agent is the host's own issuer's, as [token] says, and counted as [upstream] says.
    let asked_for = [
        "request",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "1m",
        "--reason",
        "r",
    ];
    let request = world.json(Who::OtherAgent, &asked_for);
    let number = request["request"].as_str().expect("a number");
    let _ = world.json(Who::Approver, &["approve", number]);
    let bundle = world.stage.dir().join("run/ca.pem");
    let mut command = world.run_as(Who::OtherAgent, "/usr/bin/python3");
    let seen = said(command.args(["-c", RAW]).arg(bundle));
    assert!(seen.starts_with("200"), "{seen}");
    let all = world.far_requests();
    assert_eq!(
        asked(&all, requests.len(), &["sts.googleapis.com"]).len(),
        1
    );
    let not = ["iamcredentials.googleapis.com", "metadata"];
    assert_eq!(asked(&all, requests.len(), &not).len(), 0);
    for request in asked(&all, requests.len(), &["bigquery.googleapis.com"]) {
        assert_eq!(header(request, "x-goog-user-project"), "everybodys");
    }
    let claims = &world.tokens().pop().expect("minted")["claims"];
    assert_eq!(
        claims["reason"],
        enforcer_proto::audit::sha256_hex(b"r"),
        "{claims}"
    );
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

/// Runs a query as the agent, at another name than BigQuery's usual one.
fn raw_at(world: &World, name: &str) -> String {
    run(world, &RAW.replace("bigquery.googleapis.com", name))
}

/// Has the far side's addresses under other names of theirs too.
fn name_too(world: &World, names: &[(&str, &str)]) {
    let lead = |(name, to): &(&str, &str)| {
        let address = match *to {
            "bigquery" => world.bigquery_here(),
            _ => world.tokens_here(),
        };
        let answer = json!({"addresses": [address.to_string()], "ttl_s": 60});
        ((*name).to_owned(), answer)
    };
    world.set_names(
        &names
            .iter()
            .map(lead)
            .collect::<serde_json::Map<_, _>>()
            .into(),
    );
}

#[test]
fn in_another_universe_all_is_at_its_names_and_googles_own_are_no_way_out() {
    let mut world = World::without_daemon(Family::V4);
    let names = [
        ("bigquery.googleapis.cloud.example", "bigquery"),
        ("sts.googleapis.cloud.example", "sts"),
        ("iamcredentials.googleapis.cloud.example", "sts"),
    ];
    name_too(&world, &names);
    world.edit_config(
        "protected = [\"bigquery.googleapis.com\"]",
        "universe_domain = \"googleapis.cloud.example\"",
    );
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "1m");
    let seen = raw_at(&world, names[0].0);
    assert!(seen.starts_with("200"), "{seen}");
    let asked: Vec<String> = hosts(&world.far_requests())
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert!(asked.contains(&names[1].0.to_owned()), "{asked:?}");
    assert!(
        asked.iter().all(|host| host.ends_with(".cloud.example")),
        "{asked:?}"
    );
    // Google's own BigQuery is not this cloud's: no token goes there, and nothing of the agent's either.
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let bundle = world.stage.dir().join("run/ca.pem");
    let refused = command
        .args(["-c", RAW])
        .arg(bundle)
        .output()
        .expect("runs");
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(world.far_requests().len(), asked.len());
    let told = "import urllib.request\nprint(urllib.request.urlopen(urllib.request.Request('http://169.254.169.254/computeMetadata/v1/universe/universe-domain', headers={'Metadata-Flavor': 'Google'}), timeout=3).read().decode())";
    assert_eq!(run(&world, told).trim(), "googleapis.cloud.example");
}

#[test]
fn endpoints_of_the_customers_own_network_are_used_where_they_are_named() {
    let mut world = World::without_daemon(Family::V4);
    let names = [
        ("bigquery-mine.p.googleapis.com", "bigquery"),
        ("sts-mine.p.googleapis.com", "sts"),
        ("iamcredentials-mine.p.googleapis.com", "sts"),
    ];
    name_too(&world, &names);
    world.edit_config(
        "protected = [\"bigquery.googleapis.com\"]",
        "protected = [\"bigquery-mine.p.googleapis.com\"]",
    );
    world.edit_config(
        "kind = \"federation\"",
        "kind = \"federation\"\nsts_url = \"https://sts-mine.p.googleapis.com/v1/token\"\niam_url = \"https://iamcredentials-mine.p.googleapis.com\"",
    );
    // Within a perimeter of VPC Service Controls, whose rules know service accounts alone.
    let account = format!("uid = 2001\nservice_account = \"{ACCOUNT}\"");
    world.edit_config("uid = 2001", &account);
    world.start_daemon();
    let grant = world.open_window("demo-project.finance:read", "1m");
    let seen = raw_at(&world, names[0].0);
    assert!(seen.starts_with("200"), "{seen}");
    let _ = world.json(Who::Agent, &["close", &grant]);
    wait_for("what came of the jobs", || {
        world.events("query_settled").len() + world.events("query_finished").len() > 0
    });
    let requests = world.far_requests();
    let hosts = hosts(&requests);
    assert!(
        hosts
            .iter()
            .all(|host| host.ends_with("-mine.p.googleapis.com")),
        "{hosts:?}"
    );
    for (name, _) in names {
        assert!(hosts.contains(&name), "{name}: {hosts:?}");
    }
}

fn hosts(requests: &[Value]) -> Vec<&str> {
    requests
        .iter()
        .map(|request| request["host"].as_str().expect("a host"))
        .collect()
}

fn header<'a>(request: &'a Value, name: &str) -> &'a str {
    let headers = request["headers"].as_array().expect("a list");
    let found = headers.iter().find(|header| header[0] == name);
    found
        .and_then(|header| header[1].as_str())
        .unwrap_or_else(|| panic!("{name} in {request}"))
}

fn token_of<'a>(tokens: &'a [Value], kind: &str) -> &'a str {
    let mut found = tokens.iter().filter(|token| token["kind"] == kind);
    let token = found.next().expect("minted");
    assert!(found.next().is_none(), "one {kind} token for one window");
    token["token"].as_str().expect("a token")
}

#[test]
fn an_agent_with_a_service_account_is_served_as_that_account_and_by_no_other_token() {
    let world = with_a_service_account();
    let _ = world.open_window("demo-project.finance:read", "10m");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");

    let requests = world.far_requests();
    let (sts, iam) = (&requests[0], &requests[1]);
    assert_eq!(
        hosts(&requests)[..3],
        [
            "sts.googleapis.com",
            "iamcredentials.googleapis.com",
            "bigquery.googleapis.com"
        ]
    );
    let tokens = world.tokens();
    let federated = format!("Bearer {}", token_of(&tokens, "federated"));
    let impersonated = format!("Bearer {}", token_of(&tokens, "service account"));
    assert_eq!(sts["path"], "/v1/token");
    assert_eq!(
        iam["path"],
        format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken")
    );
    assert_eq!(header(iam, "authorization"), federated);
    for request in &requests[2..] {
        assert_eq!(request["host"], "bigquery.googleapis.com");
        assert_eq!(header(request, "authorization"), impersonated);
    }
}

#[test]
fn a_service_accounts_token_lives_as_long_as_the_window_needs_within_googles_bounds() {
    let world = with_a_service_account();
    let asked = |ttl: &str| {
        let grant = world.open_window("demo-project.finance:read", ttl);
        assert!(world.query(&[DAILY])[0]["rows"].is_array());
        let _ = world.json(Who::Agent, &["close", &grant]);
        let requests = world.far_requests();
        let last = requests
            .iter()
            .rfind(|request| request["host"] == "iamcredentials.googleapis.com")
            .expect("asked");
        let body: Value =
            serde_json::from_str(last["body"].as_str().expect("a body")).expect("JSON");
        let life = body["lifetime"]
            .as_str()
            .and_then(|text| text.strip_suffix('s'));
        life.and_then(|text| text.parse::<u64>().ok())
            .expect("seconds")
    };
    assert_eq!(asked("1m"), 300, "Google gives none that is shorter");
    let for_ten_minutes = asked("10m");
    assert!(
        (600..=660).contains(&for_ten_minutes),
        "the window and what its cancellations need: {for_ten_minutes} s"
    );
}

#[test]
fn without_iam_credentials_a_query_is_refused_with_its_own_code_and_nothing_is_forwarded() {
    let world = with_a_service_account();
    world.set_faults(&json!({"iamcredentials": "down"}));
    let _ = world.open_window("demo-project.finance:read", "1m");
    let refused = world.query(&[DAILY]).remove(0);
    let error = refused["error"].as_str().expect("refused");
    assert!(
        error.starts_with("403") && error.contains("[token.unavailable]"),
        "{error}"
    );
    let requests = world.far_requests();
    assert!(
        hosts(&requests).contains(&"iamcredentials.googleapis.com"),
        "it was asked: {requests:?}"
    );
    assert!(
        !hosts(&requests).contains(&"bigquery.googleapis.com"),
        "the token of the exchange is no way around: {requests:?}"
    );
    let recorded = world.events("query_refused");
    assert!(
        recorded
            .iter()
            .any(|event| event["refusal"]["code"] == "token.unavailable" && event["sql"] == DAILY),
        "{recorded:?}"
    );
}

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
