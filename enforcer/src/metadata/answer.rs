//! What the stand-in says to one request. Pure. The paths are those that clients of Google's ask for; whatever else the real server has is
//! not there, as on a host that was not given it. An identity token is one of those: clients go on without it, but not after a refusal.

use bytes::Bytes;
use enforcer_proto::principal::AgentName;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::config::Metadata;

/// How long clients keep it, seconds; it is as good afterwards.
const LASTS_S: u32 = 3599;
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/bigquery",
    "https://www.googleapis.com/auth/cloud-platform",
];
/// Says that the server is this kind of one, and that the client knows it. A page that a browser was led to cannot set it.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("application/text");

/// A status and a text of one of the two kinds that clients tell apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    status: StatusCode,
    kind: HeaderValue,
    body: String,
}

impl Reply {
    fn text(body: impl Into<String>) -> Self {
        Self::of(StatusCode::OK, TEXT, body.into())
    }

    fn json(body: &serde_json::Value) -> Self {
        Self::of(StatusCode::OK, JSON, body.to_string())
    }

    fn not_there() -> Self {
        Self::of(StatusCode::NOT_FOUND, TEXT, "Not Found\n".to_owned())
    }

    fn refused(why: &str) -> Self {
        Self::of(StatusCode::FORBIDDEN, TEXT, format!("{why}\n"))
    }

    /// Its agent asks faster than it may.
    pub(super) fn too_many() -> Self {
        let why = "Too many requests\n".to_owned();
        Self::of(StatusCode::TOO_MANY_REQUESTS, TEXT, why)
    }

    const fn of(status: StatusCode, kind: HeaderValue, body: String) -> Self {
        Self { status, kind, body }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, self.kind);
        response.headers_mut().insert(FLAVOR, GOOGLE);
        response
    }
}

/// Answers one request of `agent`'s, to whom `token` is given for one.
pub(super) fn answer<B>(
    config: &Metadata,
    agent: &AgentName,
    token: impl FnOnce() -> String,
    request: &Request<B>,
) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let why = "Only GET is served\n".to_owned();
        return Reply::of(StatusCode::METHOD_NOT_ALLOWED, TEXT, why);
    }
    if request.headers().contains_key(FORWARDED) {
        return Reply::refused("Requests that were passed on are not answered");
    }
    let path = request.uri().path();
    if path == "/" {
        // Clients look only at the header of the answer.
        return Reply::text("computeMetadata/\n");
    }
    if request.headers().get(FLAVOR) != Some(&GOOGLE) {
        return Reply::refused("Missing Metadata-Flavor:Google header");
    }
    let Some(path) = path.strip_prefix("/computeMetadata/v1") else {
        return Reply::not_there();
    };
    let recursive = request.uri().query().is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair.eq_ignore_ascii_case("recursive=true"))
    });
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => Reply::text("instance/\nproject/\nuniverse/\n"),
        ["instance"] => Reply::text("service-accounts/\n"),
        ["project"] => Reply::text("numeric-project-id\nproject-id\n"),
        ["project", "project-id"] => config
            .project
            .as_ref()
            .map_or_else(Reply::not_there, Reply::text),
        // Digits, or a client takes this for no such host; and it had better do so where there is no project: the Cloud SDK ends without one.
        ["project", "numeric-project-id"] if config.project.is_some() => {
            Reply::text(config.project_number.unwrap_or(0).to_string())
        }
        ["universe", "universe-domain"] => Reply::text(config.universe.clone()),
        ["instance", "service-accounts"] => Reply::text(format!("default/\n{}/\n", email(agent))),
        ["instance", "service-accounts", account, rest @ ..]
            if *account == "default" || *account == email(agent) =>
        {
            of_account(agent, token, rest, recursive)
        }
        _ => Reply::not_there(),
    }
}

/// The one account there is.
fn of_account(
    agent: &AgentName,
    token: impl FnOnce() -> String,
    rest: &[&str],
    recursive: bool,
) -> Reply {
    match rest {
        [] if recursive => Reply::json(&json!({
            "aliases": ["default"],
            "email": email(agent),
            "scopes": SCOPES,
        })),
        [] => Reply::text("aliases\nemail\nidentity\nscopes\ntoken\n"),
        ["aliases"] => Reply::text("default\n"),
        ["email"] => Reply::text(email(agent)),
        ["scopes"] => Reply::text(format!("{}\n", SCOPES.join("\n"))),
        ["token"] => Reply::json(&json!({
            "access_token": token(),
            "expires_in": LASTS_S,
            "token_type": "Bearer",
        })),
        _ => Reply::not_there(),
    }
}

/// An address that can belong to nobody (RFC 2606) and says whose it would be.
fn email(agent: &AgentName) -> String {
    format!("{agent}@enforcer.invalid")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "enforcer-placeholder-0123456789abcdef";

    fn ask(path: &str, headers: &[(&'static str, &'static str)]) -> Reply {
        let config = Metadata {
            port: 843,
            project: Some("demo-project".to_owned()),
            project_number: None,
            universe: "googleapis.com".to_owned(),
        };
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(
            &config,
            &"bot".parse().unwrap(),
            || TOKEN.to_owned(),
            &request.body(()).unwrap(),
        )
    }

    #[test]
    fn where_no_project_is_known_there_is_no_metadata_server_for_the_cloud_sdk() {
        let config = Metadata {
            port: 843,
            project: None,
            project_number: None,
            universe: "googleapis.com".to_owned(),
        };
        for path in ["project-id", "numeric-project-id"] {
            let uri = format!("/computeMetadata/v1/project/{path}");
            let request = Request::builder()
                .uri(uri)
                .header("Metadata-Flavor", "Google");
            let reply = answer(
                &config,
                &"bot".parse().unwrap(),
                || TOKEN.to_owned(),
                &request.body(()).unwrap(),
            );
            assert_eq!(reply, Reply::not_there(), "{path}");
        }
    }

    fn google(path: &str) -> Reply {
        ask(path, &[("Metadata-Flavor", "Google")])
    }

    #[test]
    fn what_clients_ask_for_is_there() {
        let account = "/computeMetadata/v1/instance/service-accounts";
        for (path, wanted) in [
            (
                "/computeMetadata/v1/project/project-id".to_owned(),
                "demo-project",
            ),
            (
                "/computeMetadata/v1/project/numeric-project-id".to_owned(),
                "0",
            ),
            (
                "/computeMetadata/v1/universe/universe-domain".to_owned(),
                "googleapis.com",
            ),
            (format!("{account}/"), "default/\nbot@enforcer.invalid/\n"),
            (format!("{account}/default/email"), "bot@enforcer.invalid"),
        ] {
            assert_eq!(google(&path), Reply::text(wanted), "{path}");
        }
        // With and without the last slash.
        for path in [
            "/computeMetadata/v1/instance",
            "/computeMetadata/v1/instance/",
            "/computeMetadata/v1/",
        ] {
            assert_eq!(google(path).status, StatusCode::OK, "{path}");
        }
    }

    #[test]
    fn the_token_is_a_placeholder_for_either_name_of_the_account() {
        for account in ["default", "bot@enforcer.invalid"] {
            let path =
                format!("/computeMetadata/v1/instance/service-accounts/{account}/token?scopes=a,b");
            let reply = google(&path);
            assert_eq!(reply.kind, JSON);
            assert!(reply.body.contains(TOKEN), "{}", reply.body);
        }
        let whole = google("/computeMetadata/v1/instance/service-accounts/default/?recursive=true");
        assert_eq!(whole.kind, JSON);
        assert!(whole.body.contains("bot@enforcer.invalid"));
    }

    #[test]
    fn an_identity_token_is_not_there_and_that_is_no_refusal() {
        let path = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=x&format=standard";
        assert_eq!(google(path).status, StatusCode::NOT_FOUND);
        let other = "/computeMetadata/v1/instance/service-accounts/somebody@else/token";
        assert_eq!(google(other).status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn only_who_says_the_flavor_is_answered_and_nothing_that_was_passed_on() {
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        assert_eq!(ask("/", &[]).status, StatusCode::OK, "the first look");
        assert_eq!(ask(path, &[]).status, StatusCode::FORBIDDEN);
        let passed = [
            ("Metadata-Flavor", "Google"),
            ("X-Forwarded-For", "10.0.0.1"),
        ];
        assert_eq!(ask(path, &passed).status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn every_answer_says_the_flavor() {
        for path in ["/", "/nothing", "/computeMetadata/v1/project/project-id"] {
            let response = google(path).into_response();
            assert_eq!(response.headers().get(FLAVOR), Some(&GOOGLE), "{path}");
        }
    }
}
