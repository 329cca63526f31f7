//! What this host signs is what others take: Google's own client, two JWT libraries and OpenSSL, none of which shares code with the product.

use std::process::Command;

use harness::programs::said;
use harness::world::{Family, Who, World, venv_python};
use serde_json::{Value, json};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// Google's own client with the host's assertion in each way that a file for it can name, straight and as a service account. Prints what tokens it
/// got, or why none.
const GOOGLE_AUTH: &str = r##"
import http.server, json, os, pathlib, sys, threading
import google.auth.transport.requests
from google.auth import identity_pool, pluggable
folder, assertion, account = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(folder / "assertion").write_text(assertion)
(folder / "assertion.json").write_text(json.dumps({"id_token": assertion}))
program = folder / "print"
answer = {"version": 1, "success": True, "token_type": "urn:ietf:params:oauth:token-type:jwt", "id_token": assertion, "expiration_time": 4102444800}
program.write_text("#!/bin/sh\ncat <<'END'\n" + json.dumps(answer) + "\nEND\n")
program.chmod(0o700)
os.environ["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"] = "1"

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200 if self.headers.get("x-own") == "yes" else 403)
        self.end_headers()
        self.wfile.write(json.dumps({"id_token": assertion}).encode())

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
as_json = {"type": "json", "subject_token_field_name": "id_token"}
sources = {
    "file": {"file": str(folder / "assertion")},
    "json": {"file": str(folder / "assertion.json"), "format": as_json},
    "url": {"url": f"http://127.0.0.1:{server.server_port}/", "headers": {"x-own": "yes"}, "format": as_json},
    "executable": {"executable": {"command": str(program), "timeout_millis": 5000}},
}
audience = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/providers/host-a"
got = {}
for name, source in sources.items():
    for becomes in ("itself", "account"):
        file = {"type": "external_account", "universe_domain": "googleapis.com", "audience": audience,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token",
                "credential_source": source}
        if becomes == "account":
            file["service_account_impersonation_url"] = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
            file["service_account_impersonation"] = {"token_lifetime_seconds": 600}
        try:
            scope = "https://www.googleapis.com/auth/bigquery"
            kind = pluggable if name == "executable" else identity_pool
            credentials = kind.Credentials.from_info(file, scopes=[scope])
            credentials.refresh(google.auth.transport.requests.Request())
            got[f"{name} {becomes}"] = credentials.token
        except Exception as error:
            got[f"{name} {becomes}"] = f"refused: {error}"
print(json.dumps(got))
"##;

/// The claims, by two libraries, from the published keys alone.
const VERIFY: &str = r#"
import json, sys
import jwt
from joserfc import jwk, jwt as jose
keys, assertion, audience = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
head = jwt.get_unverified_header(assertion)
own = [key for key in keys["keys"] if key["kid"] == head["kid"]]
first = jwt.decode(assertion, jwt.PyJWK(own[0]), algorithms=["ES256"], audience=audience)
key = jwk.KeySet.import_key_set(keys)
second = jose.decode(assertion, key, algorithms=["ES256"])
claims = jose.JWTClaimsRegistry(aud={"essential": True, "value": audience}, iss={"essential": True}, exp={"essential": True})
claims.validate(second.claims)
thumbprint = jwk.import_key({name: own[0][name] for name in ("kty", "crv", "x", "y")}).thumbprint()
print(json.dumps({"same": first == second.claims, "kid": head["kid"], "thumbprint": thumbprint, "claims": first}))
"#;

/// The assertion that the daemon has shown last.
fn assertion(world: &World) -> String {
    let requests = world.far_requests();
    let asked = requests
        .iter()
        .rfind(|request| request["host"] == "sts.googleapis.com")
        .expect("STS was asked");
    let body = asked["body"].as_str().expect("a form");
    let mut form = form_urlencoded::parse(body.as_bytes());
    let found = form.find(|(name, _)| name == "subject_token");
    found.expect("an assertion").1.into_owned()
}

/// What Google's own client gets for an assertion.
fn google_auth(world: &World, assertion: &str) -> Value {
    let account = "finance-bot@demo-project.iam.gserviceaccount.com";
    let folder = world.own_folder(Who::Operator, "external");
    let mut command = world.run_as(Who::Operator, venv_python());
    let roots = world.stage.dir().join("google/world-ca.pem");
    command.env("REQUESTS_CA_BUNDLE", roots);
    command
        .args(["-c", GOOGLE_AUTH])
        .arg(&folder)
        .args([assertion, account]);
    let got = serde_json::from_str(&said(&mut command)).expect("JSON");
    // It held what nobody but STS is to be shown.
    std::fs::remove_dir_all(folder).expect("removed");
    got
}

#[test]
fn googles_own_client_takes_the_hosts_assertion_from_a_file_an_address_and_a_program() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    let got = google_auth(&world, &assertion(&world));
    let got = got.as_object().expect("by source");
    assert_eq!(got.len(), 8);
    let minted: Vec<Value> = world
        .tokens()
        .into_iter()
        .map(|token| token["token"].clone())
        .collect();
    for (source, token) in got {
        assert!(minted.contains(token), "{source}: {token}");
    }
}

#[test]
fn an_assertion_that_is_shown_again_past_its_end_is_refused_to_googles_own_client() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    let assertion = assertion(&world);
    let _ = world.json(Who::Agent, &["close", &grant]);
    let before = world.tokens().len();
    // The window's minute, what cancelling may take, and no more.
    world.set_faults(&json!({"sts_clock_s": 60 + 60 + 1}));
    let got = google_auth(&world, &assertion);
    for (source, refused) in got.as_object().expect("by source") {
        let why = refused.as_str().expect("a sentence");
        assert!(
            why.starts_with("refused") && why.contains("invalid_grant"),
            "{source}: {why}"
        );
    }
    assert_eq!(world.tokens().len(), before);
}

#[test]
fn no_assertion_is_shown_twice_and_who_shows_one_again_is_refused_by_a_service_that_remembers() {
    let mut world = World::start(Family::V4);
    world.set_faults(&json!({"jti": "once"}));
    let grant = world.open_window("demo-project.finance:read", "10m");
    for _ in 0..2 {
        // Each daemon has another made for the same window.
        assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
        world.stop_daemon();
        world.start_daemon();
    }
    let assertion = assertion(&world);
    let _ = world.json(Who::Agent, &["close", &grant]);
    let before = world.tokens().len();
    let got = google_auth(&world, &assertion);
    for (source, refused) in got.as_object().expect("by source") {
        let why = refused.as_str().expect("a sentence");
        assert!(why.contains("invalid_grant"), "{source}: {why}");
    }
    assert_eq!(world.tokens().len(), before);
}

#[test]
fn two_libraries_read_the_same_claims_by_the_published_keys_and_the_keys_name_is_its_thumbprint() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read,demo-project.scratch:ddl", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    let config = world.config().to_string_lossy().into_owned();
    let keys = world.cli(Who::Operator, &["gcp", "jwks", "--config", &config]);
    let keys = String::from_utf8(keys.stdout).expect("a text");
    let audience = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/providers/host-a";
    let mut command = Command::new(venv_python());
    command.args(["-c", VERIFY, &keys, &assertion(&world), audience]);
    let read: Value = serde_json::from_str(&said(&mut command)).expect("JSON");
    assert_eq!(read["same"], true, "{read}");
    assert_eq!(read["kid"], read["thumbprint"]);
    let claims = &read["claims"];
    assert_eq!(claims["sub"], "host-a/agent/finance-bot");
    let datasets = [
        "ds:demo-project.finance",
        "ds:demo-project.scratch",
        "dsw:demo-project.scratch",
    ];
    assert_eq!(claims["datasets"], json!(datasets));
    let life = claims["exp"].as_u64().expect("a time") - claims["iat"].as_u64().expect("a time");
    assert!(
        (600..=690).contains(&life),
        "the window, and a little: {life} s"
    );
}

#[test]
fn openssl_finds_the_authority_confined_to_googles_names() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert_eq!(world.query(&[DAILY])[0]["rows"], json!([["1000"]]));
    let (pem, key) = (
        world.state_dir().join("ca.pem"),
        world.state_dir().join("ca.key"),
    );
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-text", "-in"]).arg(&pem);
    let text = said(&mut command);
    for part in [
        "CA:TRUE, pathlen:0",
        "X509v3 Name Constraints: critical",
        "Permitted:",
        "DNS:googleapis.com",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A certificate that it would sign for another name is none to OpenSSL.
    let folder = world.own_folder(Who::Operator, "forged");
    let run = |args: &[&str]| {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(&folder)
            .output();
        output.expect("openssl runs")
    };
    let (pem, key) = (pem.to_string_lossy(), key.to_string_lossy());
    for (name, is_taken) in [
        ("bigquery.googleapis.com", true),
        ("bank.example.com", false),
    ] {
        let subject = format!("/CN={name}");
        let names = format!("subjectAltName=DNS:{name}");
        let made = run(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "leaf.pem",
            "-subj",
            &subject,
            "-addext",
            &names,
            "-CA",
            &pem,
            "-CAkey",
            &key,
            "-days",
            "1",
        ]);
        assert!(made.status.success(), "{made:?}");
        let verified = run(&["verify", "-CAfile", &pem, "leaf.pem"]);
        assert_eq!(verified.status.success(), is_taken, "{name}: {verified:?}");
    }
}
