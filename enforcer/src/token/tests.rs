//! The minters against a strict STS and IAM Credentials over real TLS, and a window's tokens under virtual time.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use enforcer_proto::time::{NS_PER_S, Now};
use gcp_auth::TokenProvider;
use http::{Request, Response};
use http_body_util::Full;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::config::{KeyStore, MinterKind};
use crate::upstream::tests::{Answers, Server};

const AUDIENCE: &str = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/providers/host-a";
const ISSUER: &str = "https://enforcer.example.com/host-a";
const FEDERATED: &str = "ya29.d.federated-token-that-must-not-leak";
const IMPERSONATED: &str = "ya29.c.service-account-token-that-must-not-leak";
const ACCOUNT: &str = "finance-bot@demo-project.iam.gserviceaccount.com";

fn request(remaining_s: u64) -> MintRequest {
    MintRequest {
        bearer: Bearer::Agent,
        agent: "finance-bot".to_owned(),
        host: "host-a".to_owned(),
        grant: "g-7".to_owned(),
        session: "boot-g-7-1".to_owned(),
        datasets: vec!["demo-project.finance".to_owned()],
        writable: vec!["demo-project.finance".to_owned()],
        approver: "alice".to_owned(),
        reason_digest: Some("d".repeat(64)),
        minter: MinterKind::Federation,
        service_account: None,
        remaining: Duration::from_secs(remaining_s),
        now: SystemClock.now(),
    }
}

fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    response.body(Full::from(body.to_string())).unwrap()
}

fn form(request: &Request<Bytes>) -> BTreeMap<String, String> {
    form_urlencoded::parse(request.body())
        .into_owned()
        .collect()
}

/// Verifies as Google does and answers with a token, or says `invalid_grant` and echoes the assertion, as real servers do.
fn strict_sts(jwks: Value, seen: Arc<Mutex<Vec<Value>>>) -> Answers {
    let keys: JwkSet = serde_json::from_value(jwks).unwrap();
    Arc::new(move |request| {
        if request.uri().path() != "/v1/token" {
            return iam(&request);
        }
        assert!(request.headers().get("authorization").is_none());
        let form = form(&request);
        let jwt = &form["subject_token"];
        let header = jsonwebtoken::decode_header(jwt).unwrap();
        let key = keys.find(&header.kid.unwrap()).expect("a published kid");
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        let verified =
            jsonwebtoken::decode::<Value>(jwt, &DecodingKey::from_jwk(key).unwrap(), &rules);
        match verified {
            Ok(token) => {
                seen.lock().unwrap().push(json!({"claims": token.claims, "scope": form["scope"], "audience": form["audience"]}));
                reply(
                    200,
                    &json!({"access_token": FEDERATED, "token_type": "Bearer", "expires_in": 599,
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}),
                )
            }
            Err(_) => reply(
                400,
                &json!({"error": "invalid_grant", "error_description": jwt}),
            ),
        }
    })
}

/// generateAccessToken: refuses lives under 600 s once, so that the second try is seen.
fn iam(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    assert_eq!(
        request.uri().path(),
        format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken")
    );
    assert_eq!(
        request.headers()["authorization"],
        format!("Bearer {FEDERATED}").as_str()
    );
    let body: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(
        body["scope"],
        json!(["https://www.googleapis.com/auth/bigquery"])
    );
    let life: i64 = body["lifetime"]
        .as_str()
        .unwrap()
        .trim_end_matches('s')
        .parse()
        .unwrap();
    if life < 600 {
        return reply(
            400,
            &json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": FEDERATED}}),
        );
    }
    let now_s = i64::try_from(SystemClock.now().unix_ns / NS_PER_S).unwrap();
    let expires = jiff::Timestamp::from_second(now_s + life).unwrap();
    reply(
        200,
        &json!({"accessToken": IMPERSONATED, "expireTime": expires.to_string()}),
    )
}

struct World {
    server: Server,
    federation: Federation,
    seen: Arc<Mutex<Vec<Value>>>,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    world_with(|| None).await
}

/// A world whose STS answers as `other` says, where it says something.
async fn world_with(other: impl FnOnce() -> Option<Answers>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let keys = IssuerKeys::open(dir.path(), &KeyStore::File).await.unwrap();
    let seen = Arc::default();
    let jwks = keys.jwks().await.unwrap();
    let answers = other().unwrap_or_else(|| strict_sts(jwks, Arc::clone(&seen)));
    let server = Server::start("sts.test", &["h2", "http/1.1"], answers).await;
    let url = server.url("sts.test", "");
    let options = FederationOptions::new(
        AUDIENCE.to_owned(),
        ISSUER.to_owned(),
        format!("{url}/v1/token"),
        url,
    );
    let upstream = Arc::new(server.client());
    World {
        federation: Federation::new(options, keys, upstream),
        server,
        seen,
        _dir: dir,
    }
}

#[tokio::test]
async fn the_assertion_verifies_against_the_published_keys_and_carries_every_claim() {
    let world = world().await;
    let request = request(300);
    let minted = world.federation.mint(&request).await.unwrap();
    assert_eq!(minted.token.expose(), FEDERATED);
    assert_eq!(minted.expires_boot_ns, plus(request.now.boot_ns, 599));
    assert_eq!(
        minted.principal,
        "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/subject/host-a/agent/finance-bot"
    );
    let seen = world.seen.lock().unwrap();
    let claims = &seen[0]["claims"];
    let now_s = request.now.unix_ns / NS_PER_S;
    assert_eq!(claims["sub"], "host-a/agent/finance-bot");
    assert_eq!(claims["iat"], now_s - 10);
    assert_eq!(claims["exp"], now_s + 360);
    assert_eq!(
        claims["datasets"],
        json!(["ds:demo-project.finance", "dsw:demo-project.finance"])
    );
    for (name, value) in [
        ("host", "host-a"),
        ("agent", "finance-bot"),
        ("grant", "g-7"),
        ("approver", "alice"),
        ("session", "boot-g-7-1"),
        ("jti", "boot-g-7-1"),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    assert_eq!(seen[0]["scope"], SCOPE_BIGQUERY);
}

#[tokio::test]
async fn an_assertion_for_a_long_window_lives_fifteen_minutes_and_no_longer() {
    let world = world().await;
    world.federation.mint(&request(12 * 3600)).await.unwrap();
    let seen = world.seen.lock().unwrap();
    let life =
        seen[0]["claims"]["exp"].as_u64().unwrap() - seen[0]["claims"]["iat"].as_u64().unwrap();
    assert_eq!(life, 900);
}

#[tokio::test]
async fn with_a_service_account_the_federated_token_is_exchanged_once_more_and_a_short_life_is_retried()
 {
    let world = world().await;
    let request = MintRequest {
        service_account: Some(ACCOUNT.to_owned()),
        ..request(60)
    };
    let minted = world.federation.mint(&request).await.unwrap();
    assert_eq!(minted.token.expose(), IMPERSONATED);
    assert_eq!(minted.principal, format!("serviceAccount:{ACCOUNT}"));
    assert_eq!(world.seen.lock().unwrap()[0]["scope"], SCOPE_CLOUD_PLATFORM);
    let life_s = (minted.expires_boot_ns - request.now.boot_ns) / NS_PER_S;
    assert!((598..=602).contains(&life_s), "{life_s}");
}

#[tokio::test]
async fn a_service_account_that_would_change_the_path_is_never_sent() {
    let world = world().await;
    for account in [
        "a@b/../c", "a b@c.d", "a@b?x", "a@b#", "@b", "a@", "a", "a%2f@b", "a@b..c",
    ] {
        let request = MintRequest {
            service_account: Some(account.to_owned()),
            ..request(60)
        };
        let refused = world.federation.mint(&request).await;
        assert!(
            matches!(refused, Err(TokenError::BadServiceAccount)),
            "{account}"
        );
    }
}

#[tokio::test]
async fn the_estimator_has_a_subject_that_no_agent_can_have_and_names_no_window() {
    let world = world().await;
    let of = |bearer, agent: &str| MintRequest {
        bearer,
        agent: agent.to_owned(),
        grant: "none".to_owned(),
        approver: "none".to_owned(),
        datasets: Vec::new(),
        writable: Vec::new(),
        ..request(600)
    };
    for bearer in [Bearer::Estimator, Bearer::Agent] {
        let minted = world.federation.mint(&of(bearer, "bot")).await;
        minted.expect("a token");
    }
    let seen = world.seen.lock().unwrap();
    let claims = &seen[0]["claims"];
    assert_eq!(claims["sub"], "host-a/estimator/bot");
    assert_eq!(claims["agent"], "estimator/bot");
    assert_eq!(
        (&claims["grant"], &claims["approver"]),
        (&json!("none"), &json!("none"))
    );
    assert_eq!(claims["datasets"], json!([]));
    assert_eq!(seen[1]["claims"]["sub"], "host-a/agent/bot");
    assert_eq!(seen[0]["scope"], SCOPE_BIGQUERY);
}

#[tokio::test]
async fn subjects_and_claims_beyond_googles_limits_are_refused_before_they_are_sent() {
    let world = world().await;
    let long = MintRequest {
        host: "h".repeat(120),
        ..request(60)
    };
    assert!(matches!(
        world.federation.mint(&long).await,
        Err(TokenError::SubjectTooLong(138))
    ));
    let many = MintRequest {
        datasets: vec!["demo-project.finance".to_owned(); 500],
        ..request(60)
    };
    assert!(matches!(
        world.federation.mint(&many).await,
        Err(TokenError::ClaimsTooLarge(_))
    ));
    assert!(world.seen.lock().unwrap().is_empty());
}

/// One scripted answer to every request.
fn always(status: u16, body: &str) -> Answers {
    let body = body.to_owned();
    Arc::new(move |_| {
        let response = Response::builder().status(status);
        response.body(Full::from(body.clone())).unwrap()
    })
}

async fn failure(other: impl FnOnce() -> Option<Answers>) -> String {
    let error = world_with(other)
        .await
        .federation
        .mint(&request(60))
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("token could not be had: "));
    error.to_string()
}

/// An answer of STS's that says this of its token's life, where it says anything.
fn with_life(expires_in: &str) -> Answers {
    always(
        200,
        &format!(r#"{{"access_token":"t","token_type":"bearer"{expires_in}}}"#),
    )
}

#[tokio::test]
async fn a_life_is_a_number_or_a_text_and_never_longer_than_googles_longest() {
    for (said, life_s) in [
        (r#","expires_in":599"#, 599),
        (r#","expires_in":"599""#, 599),
        (r#","expires_in":599.0"#, 599),
        (r#","expires_in":"599.9""#, 599),
        (r#","expires_in":3601"#, 3600),
        (r#","expires_in":18446744073709551615"#, 3600),
        (r#","expires_in":99999999999999999999999"#, 3600),
    ] {
        let world = world_with(|| Some(with_life(said))).await;
        let request = request(60);
        let minted = world.federation.mint(&request).await.unwrap();
        let wanted = plus(request.now.boot_ns, life_s);
        assert_eq!(minted.expires_boot_ns, wanted, "{said}");
    }
}

#[tokio::test]
async fn a_life_that_is_not_said_is_what_is_left_of_the_assertion() {
    for said in ["", r#","expires_in":null"#] {
        for (window_s, life_s) in [(60, 120), (12 * 3600, 890)] {
            let world = world_with(|| Some(with_life(said))).await;
            let request = request(window_s);
            let minted = world.federation.mint(&request).await.unwrap();
            let wanted = plus(request.now.boot_ns, life_s);
            assert_eq!(minted.expires_boot_ns, wanted, "{said}");
        }
    }
}

#[tokio::test]
async fn a_life_that_is_over_or_no_time_at_all_is_refused_in_one_sentence() {
    for said in ["0", "-5", "\"-5\"", "0.4", "\"0\""] {
        let said = format!(r#","expires_in":{said}"#);
        let error = failure(|| Some(with_life(&said))).await;
        assert!(
            error.contains("its token has ended already"),
            "{said}: {error}"
        );
    }
    for said in [
        "\"soon\"", "\"\"", "\"NaN\"", "\"inf\"", "true", "[599]", "{}",
    ] {
        let said = format!(r#","expires_in":{said}"#);
        let error = failure(|| Some(with_life(&said))).await;
        assert!(error.contains("life is no time"), "{said}: {error}");
    }
}

#[tokio::test]
async fn an_answer_with_another_kind_of_token_is_refused() {
    let mac = failure(|| {
        Some(always(
            200,
            r#"{"access_token":"t","token_type":"mac","expires_in":9}"#,
        ))
    })
    .await;
    assert!(mac.contains("no bearer token"), "{mac}");
    let broken = failure(|| {
        Some(always(
            200,
            r#"{"access_token":"a\r\nb","token_type":"Bearer","expires_in":9}"#,
        ))
    })
    .await;
    assert!(broken.contains("cannot stand in a header"), "{broken}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_no_json_is_refused() {
    let large = failure(|| {
        Some(Arc::new(|_| {
            Response::new(Full::from(vec![b' '; exchange::ANSWER_BYTES_MAX + 1]))
        }))
    })
    .await;
    assert!(large.contains("too large"), "{large}");
    let text = failure(|| Some(always(200, "<html>secret</html>"))).await;
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_refusal_repeats_only_the_standards_words() {
    let known = failure(|| {
        Some(always(
            400,
            r#"{"error":"invalid_target","error_description":"pool ya29.secret"}"#,
        ))
    })
    .await;
    assert_eq!(
        known,
        "token could not be had: the security token service refused with status 400 (invalid_target)"
    );
    let unknown = failure(|| Some(always(500, r#"{"error":"ya29.secret"}"#))).await;
    assert_eq!(
        unknown,
        "token could not be had: the security token service refused with status 500"
    );
}

#[tokio::test]
async fn a_service_that_is_down_is_an_error_in_one_sentence() {
    let world = world().await;
    let World {
        server, federation, ..
    } = world;
    drop(server);
    tokio::task::yield_now().await;
    let error = federation.mint(&request(60)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "token could not be had: the security token service cannot be reached"
    );
}

#[test]
fn the_issuer_key_is_kept_its_kid_is_stable_and_the_jwks_has_only_members_google_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("issuer.pem");
    let first = IssuerKey::open(&path).unwrap();
    let again = IssuerKey::open(&path).unwrap();
    assert_eq!(first.public(), again.public());
    let jwk = first.public().jwk();
    let mut members: Vec<&str> = jwk
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    members.sort_unstable();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    let pem = std::fs::read_to_string(&path).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    assert!(!format!("{first:?}{jwk}").contains(secret));
}

#[test]
fn an_issuer_key_that_others_can_read_or_of_another_kind_is_refused_with_its_cure() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("issuer.pem");
    IssuerKey::open(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = IssuerKey::open(&path).unwrap_err().to_string();
    assert!(error.contains("chmod 0600"), "{error}");
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    crate::keyfile::write(&path, &p384.serialize_pem()).unwrap();
    assert!(matches!(
        IssuerKey::open(&path),
        Err(IssuerError::Unusable { .. })
    ));
}

/// Everything that was logged, at every level, by this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_debug_nor_errors_nor_the_log_at_its_finest_hold_a_token_or_an_assertion() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let mut text = String::new();
    for account in [None, Some(ACCOUNT.to_owned())] {
        let world = world().await;
        let request = MintRequest {
            service_account: account,
            ..request(60)
        };
        let minted = world.federation.mint(&request).await.unwrap();
        text += &format!(
            "{minted:?} {:?} {:?} {:?}",
            minted.token,
            minted.token.bearer(),
            world.federation
        );
    }
    // The strict server echoes the assertion in its refusal: its clock is far from this one.
    let world = world().await;
    let stale = MintRequest {
        now: Now {
            boot_ns: 0,
            unix_ns: NS_PER_S,
        },
        ..request(60)
    };
    let error = world.federation.mint(&stale).await.unwrap_err();
    assert!(error.to_string().ends_with("(invalid_grant)"), "{error}");
    text += &format!("{error:?} {error}");
    drop(guard);
    text += &String::from_utf8_lossy(&logged.0.lock().unwrap());
    for secret in [FEDERATED, IMPERSONATED, "eyJ"] {
        assert!(!text.contains(secret), "{secret} leaked");
    }
    assert!(
        text.contains("h2") || text.contains("rustls"),
        "the log was captured"
    );
}

/// A base identity with a fixed token.
struct Base;

#[async_trait]
impl TokenProvider for Base {
    async fn token(&self, _: &[&str]) -> Result<Arc<gcp_auth::Token>, gcp_auth::Error> {
        let token = json!({"access_token": FEDERATED, "expires_in": 3600});
        Ok(Arc::new(serde_json::from_value(token).unwrap()))
    }
    async fn project_id(&self) -> Result<Arc<str>, gcp_auth::Error> {
        Err(gcp_auth::Error::Str("none"))
    }
}

#[tokio::test]
async fn the_base_identity_becomes_the_agents_service_account() {
    let world = world().await;
    let upstream = Arc::new(world.server.client());
    let minter = Impersonation::new(
        BaseIdentity::new(Arc::new(Base)),
        world.server.url("sts.test", "/"),
        upstream,
    );
    let with = MintRequest {
        service_account: Some(ACCOUNT.to_owned()),
        ..request(900)
    };
    assert_eq!(
        minter.mint(&with).await.unwrap().token.expose(),
        IMPERSONATED
    );
    assert!(matches!(
        minter.mint(&request(900)).await,
        Err(TokenError::NoServiceAccount)
    ));
}

/// A minter under the test's control.
#[derive(Debug)]
struct Counting {
    clock: Arc<ManualClock>,
    life_s: AtomicU64,
    fails: AtomicBool,
    count: AtomicUsize,
    gate: tokio::sync::Semaphore,
}

#[async_trait]
impl Minter for Counting {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.unwrap().forget();
        self.gate.add_permits(1);
        if self.fails.load(Ordering::SeqCst) {
            return Err(TokenError::NoBaseIdentity);
        }
        Ok(Minted {
            token: AccessToken::new(SecretString::from(format!("token-{number}"))).unwrap(),
            expires_boot_ns: plus(self.clock.now().boot_ns, self.life_s.load(Ordering::SeqCst)),
            principal: format!("principal of {}", request.session),
        })
    }
}

struct Window {
    clock: Arc<ManualClock>,
    minter: Arc<Counting>,
    tokens: Arc<WindowTokens>,
}

fn window(length_s: u64, life_s: u64) -> Window {
    let clock = Arc::new(ManualClock::at(Now {
        boot_ns: 0,
        unix_ns: 0,
    }));
    let minter = Arc::new(Counting {
        clock: Arc::clone(&clock),
        life_s: AtomicU64::new(life_s),
        fails: AtomicBool::new(false),
        count: AtomicUsize::new(0),
        gate: tokio::sync::Semaphore::new(1),
    });
    let tokens = WindowTokens::new(minter.clone(), clock.clone(), request(0), plus(0, length_s));
    Window {
        clock,
        minter,
        tokens: Arc::new(tokens),
    }
}

impl Window {
    fn pass(&self, seconds: u64) {
        self.clock.advance_ns(seconds * NS_PER_S);
    }
    fn minted(&self) -> usize {
        self.minter.count.load(Ordering::SeqCst)
    }
    async fn text(&self) -> String {
        self.tokens.token().await.unwrap().expose().to_owned()
    }
}

#[tokio::test]
async fn a_token_is_minted_once_and_kept_until_shortly_before_its_end() {
    let window = window(3600, 600);
    assert_eq!(window.text().await, "token-1");
    window.pass(579);
    assert_eq!(window.text().await, "token-1");
    window.pass(1);
    assert_eq!(window.text().await, "token-2");
    assert_eq!(window.minted(), 2);
}

#[tokio::test]
async fn a_token_that_bigquery_does_not_take_is_replaced_but_not_one_after_the_other() {
    let window = window(3600, 600);
    let credential = |token: &AccessToken| Credential::new(token, None);
    let first = window.tokens.token().await.unwrap();
    window.tokens.refused(&credential(&first)).await;
    assert_eq!(window.text().await, "token-2");
    // Of a request that was on its way with the first one.
    window.pass(60);
    window.tokens.refused(&credential(&first)).await;
    assert_eq!(window.text().await, "token-2");
    let second = window.tokens.token().await.unwrap();
    window.tokens.refused(&credential(&second)).await;
    let third = window.tokens.token().await.unwrap();
    assert_eq!(third.expose(), "token-3");
    for _ in 0..9 {
        window.pass(1);
        window.tokens.refused(&credential(&third)).await;
        assert_eq!(window.text().await, "token-3", "no more often than that");
    }
    window.pass(1);
    window.tokens.refused(&credential(&third)).await;
    assert_eq!(window.text().await, "token-4");
}

#[tokio::test]
async fn a_wall_clock_that_is_set_keeps_no_token_longer_and_a_suspend_drops_it() {
    const DAY_NS: u64 = 86400 * NS_PER_S;
    let window = window(3600, 600);
    assert_eq!(window.text().await, "token-1");
    for unix_ns in [0, DAY_NS, 7] {
        let now = window.clock.now();
        window.clock.set(Now { unix_ns, ..now });
        window.pass(100);
        assert_eq!(window.text().await, "token-1");
    }
    window.pass(280);
    assert_eq!(
        window.text().await,
        "token-2",
        "its end is on the boot clock"
    );
    // The boot clock goes on in suspend.
    window.pass(86400);
    assert!(matches!(
        window.tokens.token().await,
        Err(TokenError::Closed)
    ));
    assert!(matches!(
        window.tokens.for_cancel().await,
        Err(TokenError::Closed)
    ));
}

#[tokio::test]
async fn an_assertion_made_by_a_wrong_wall_clock_lives_no_longer_and_its_token_ends_on_the_boot_clock()
 {
    for unix_s in [86400_u64, 1_700_000_000, 4_000_000_000] {
        // Google's clock is its own: it refuses what this host's gets wrong. Here nobody looks.
        let world = world_with(|| Some(always(200, LONG))).await;
        let right = request(300);
        let wrong = MintRequest {
            now: Now {
                unix_ns: unix_s * NS_PER_S,
                ..right.now
            },
            ..right
        };
        let minted = world.federation.mint(&wrong).await.unwrap();
        assert_eq!(minted.expires_boot_ns, plus(wrong.now.boot_ns, 599));
    }
}

/// An answer of STS's.
const LONG: &str = r#"{"access_token": "a.long-one", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 599}"#;

#[tokio::test]
async fn a_token_that_outlives_its_window_is_never_replaced_and_short_lives_do_not_mint_per_call() {
    let outliving = window(60, 65);
    outliving.text().await;
    outliving.pass(59);
    outliving.text().await;
    assert_eq!(outliving.minted(), 1);
    let short = window(3600, 8);
    for _ in 0..6 {
        short.text().await;
        short.pass(1);
    }
    assert_eq!(short.minted(), 1);
    short.text().await;
    assert_eq!(short.minted(), 2);
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_minting_and_share_its_failure() {
    let window = window(3600, 600);
    let ask = || futures_util::future::join_all((0..20).map(|_| window.tokens.token()));
    assert!(ask().await.iter().all(Result::is_ok));
    assert_eq!(window.minted(), 1);
    window.pass(600);
    window.minter.fails.store(true, Ordering::SeqCst);
    assert!(ask().await.iter().all(Result::is_err));
    assert_eq!(window.minted(), 2);
    window.pass(1);
    assert!(window.tokens.token().await.is_err());
    assert_eq!(window.minted(), 3);
}

#[tokio::test]
async fn a_failed_refresh_uses_what_is_still_valid() {
    let window = window(3600, 600);
    window.text().await;
    window.minter.fails.store(true, Ordering::SeqCst);
    window.pass(590);
    assert_eq!(window.text().await, "token-1");
    window.pass(10);
    assert!(matches!(
        window.tokens.token().await,
        Err(TokenError::NoBaseIdentity)
    ));
}

#[tokio::test]
async fn from_the_close_on_nothing_is_handed_out_though_it_is_cached() {
    let window = window(3600, 600);
    window.text().await;
    window.tokens.close();
    assert!(matches!(
        window.tokens.token().await,
        Err(TokenError::Closed)
    ));
    assert_eq!(
        window.tokens.for_cancel().await.unwrap().expose(),
        "token-1"
    );
    // Until its jobs cannot run any more: their timeouts end with the window as it was granted.
    window.pass(3659);
    window.tokens.close();
    assert!(window.tokens.for_cancel().await.is_ok());
    window.pass(1);
    assert!(matches!(
        window.tokens.for_cancel().await,
        Err(TokenError::Closed)
    ));
    assert!(window.tokens.principal().await.is_none(), "it was dropped");
}

#[tokio::test]
async fn at_the_deadline_nothing_is_handed_out_though_nobody_closed() {
    let window = window(60, 600);
    window.text().await;
    window.pass(60);
    assert!(matches!(
        window.tokens.token().await,
        Err(TokenError::Closed)
    ));
    window.pass(59);
    assert!(window.tokens.for_cancel().await.is_ok());
    window.pass(1);
    assert!(window.tokens.for_cancel().await.is_err());
}

#[tokio::test]
async fn a_request_that_waits_while_the_window_closes_gets_nothing() {
    let window = window(3600, 600);
    window.minter.gate.forget_permits(1);
    let tokens = Arc::clone(&window.tokens);
    let waiting = tokio::spawn(async move { tokens.token().await });
    while window.minted() == 0 {
        tokio::task::yield_now().await;
    }
    window.tokens.close();
    window.minter.gate.add_permits(1);
    assert!(matches!(waiting.await.unwrap(), Err(TokenError::Closed)));
    assert!(window.tokens.for_cancel().await.is_ok());
}

#[tokio::test]
async fn a_closed_window_that_holds_no_token_gets_one_for_cancelling_alone() {
    let window = window(3600, 300);
    assert!(window.tokens.for_cancel().await.is_err());
    window.pass(7200);
    window.tokens.close();
    let ask = || window.tokens.for_cancel();
    let (one, other) = futures_util::join!(ask(), ask());
    assert_eq!(one.unwrap().expose(), other.unwrap().expose());
    assert_eq!(window.minted(), 1);
    assert!(matches!(
        window.tokens.token().await,
        Err(TokenError::Closed)
    ));
    window.pass(60);
    assert!(window.tokens.for_cancel().await.is_err());
    assert!(window.tokens.principal().await.is_none(), "it was dropped");
}

#[tokio::test]
async fn cancelling_mints_nothing_in_an_open_window_and_forgetting_leaves_nothing() {
    let window = window(3600, 600);
    assert!(window.tokens.for_cancel().await.is_err());
    assert_eq!(window.minted(), 0);
    window.text().await;
    window.tokens.forget().await;
    assert!(window.tokens.for_cancel().await.is_err());
    assert!(window.tokens.token().await.is_err());
}

#[tokio::test]
async fn a_window_is_a_token_provider_until_it_closes() {
    let window = window(3600, 600);
    let provider: Arc<dyn TokenProvider> = window.tokens.clone();
    assert_eq!(provider.token(&[]).await.unwrap().as_str(), "token-1");
    window.tokens.close();
    assert!(provider.token(&[]).await.is_err());
}

#[test]
fn a_token_is_masked_and_its_header_is_sensitive() {
    let token = AccessToken::new(SecretString::from("ya29.x")).unwrap();
    assert!(token.bearer().is_sensitive());
    assert_eq!(token.bearer().as_bytes(), b"Bearer ya29.x");
    assert!(!format!("{token:?}{:?}", token.bearer()).contains("ya29"));
    for bad in ["", "a b", "a\r\nb", "é"] {
        assert!(
            AccessToken::new(SecretString::from(bad)).is_none(),
            "{bad:?}"
        );
    }
    assert!(AccessToken::new(SecretString::from("x".repeat(TOKEN_BYTES_MAX + 1))).is_none());
}

#[test]
fn a_hardened_process_dumps_no_core_and_cannot_be_read_by_its_equals() {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
    harden().unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
}

#[test]
fn what_kind_of_failure_it_was_is_told_by_its_code() {
    let refused = |status, code| TokenError::Refused {
        endpoint: Endpoint::Sts,
        status,
        code,
    };
    for (error, code) in [
        (
            refused(400, Some("invalid_grant")),
            Code::TokenMisconfigured,
        ),
        (
            refused(401, Some("invalid_client")),
            Code::TokenMisconfigured,
        ),
        (refused(404, Some("NOT_FOUND")), Code::TokenMisconfigured),
        (refused(403, None), Code::TokenDenied),
        (refused(400, Some("unauthorized_client")), Code::TokenDenied),
        (refused(403, Some("PERMISSION_DENIED")), Code::TokenDenied),
        (refused(429, None), Code::TokenThrottled),
        (
            refused(400, Some("RESOURCE_EXHAUSTED")),
            Code::TokenThrottled,
        ),
        (refused(503, Some("UNAVAILABLE")), Code::TokenUnavailable),
        (refused(302, None), Code::TokenUnavailable),
        (
            TokenError::Timeout {
                endpoint: Endpoint::Sts,
            },
            Code::TokenUnavailable,
        ),
        (TokenError::NoBaseIdentity, Code::TokenMisconfigured),
        (TokenError::SubjectTooLong(200), Code::TokenMisconfigured),
        (TokenError::Closed, Code::WindowClosed),
    ] {
        assert_eq!(error.code(), code, "{error}");
        let is_of_window = code == Code::WindowClosed;
        assert_eq!(code.is_without_token(), !is_of_window, "{error}");
    }
}
