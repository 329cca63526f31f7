//! Tokens stay where they belong: the agent's never go out, the real one never comes in, and without one nothing is forwarded.

use harness::programs::said;
use harness::world::{AGENTS_OWN_TOKEN, Family, Who, World, policy, wait_for};
use serde_json::{Value, json};

use crate::identity::on_a_machine_of_googles;

pub(crate) const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

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

pub(crate) const ACCOUNT: &str = "finance-reader@demo-project.iam.gserviceaccount.com";

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

/// What the far side was asked under these names, since it had had `before` requests.
pub(crate) fn asked<'a>(requests: &'a [Value], before: usize, names: &[&str]) -> Vec<&'a Value> {
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

/// Runs a query as the agent, at another name than BigQuery's usual one.
fn raw_at(world: &World, name: &str) -> String {
    run(world, &RAW.replace("bigquery.googleapis.com", name))
}

/// Has the far side's addresses under other names of theirs too.
pub(crate) fn name_too(world: &World, names: &[(&str, &str)]) {
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

pub(crate) fn header<'a>(request: &'a Value, name: &str) -> &'a str {
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
