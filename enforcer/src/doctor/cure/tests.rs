//! Each failure has a cure that names what is to be changed, and by what.

use enforcer_proto::principal::AgentName;

use super::*;
use crate::config::{Config, load_policy};
use crate::token::Bearer;

const ACCOUNT: &str = "bot@p.iam.gserviceaccount.com";
const POOL: &str =
    "iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents";

/// The example's configuration, and what Google is told for it.
fn example() -> (Config, Plan) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["enforcer.toml", "policy.toml"] {
        // A copy, whose owner is whoever runs this.
        std::fs::write(
            folder.path().join(name),
            std::fs::read(dir.join(name)).expect("an example"),
        )
        .expect("written");
    }
    let config = Config::load(&folder.path().join("enforcer.toml")).expect("good");
    let policy = load_policy(&config.policy, Some(&config.known_agents())).expect("good");
    let plan = Plan::of(&config, &policy).expect("a plan");
    (config, plan)
}

fn agent() -> AgentName {
    "finance-bot".parse().expect("a name")
}

fn who<'a>(name: &'a AgentName, account: Option<&'a str>) -> Who<'a> {
    Who {
        bearer: Bearer::Agent,
        name,
        minter: MinterKind::Federation,
        account,
        quota_project: None,
    }
}

/// Of each refusal whose doing it is, and what the cure says.
type Cured<'a> = (u16, Option<&'static str>, &'static str, &'a str);

fn are_cured(endpoint: Endpoint, expected: &[Cured<'_>]) {
    let (config, plan) = example();
    let cures = Cures {
        config: &config,
        plan: Some(&plan),
        is_alone: false,
    };
    let name = agent();
    let who = who(&name, Some(ACCOUNT));
    for (status, code, class, cure) in expected {
        let error = TokenError::Refused {
            endpoint,
            status: *status,
            code: *code,
        };
        assert_eq!(cures.class(&error), *class, "{error}");
        let said = cures.of_token(&error, &who);
        assert!(said.contains(cure), "{error}: {said}");
    }
}

#[test]
fn what_sts_refuses_is_told_apart_and_each_has_its_cure() {
    let expected = [
        (
            400,
            Some("invalid_grant"),
            "misconfigured",
            "`enforcer gcp jwks`",
        ),
        (
            400,
            Some("invalid_target"),
            "misconfigured",
            "`token.audience`",
        ),
        (
            400,
            Some("unauthorized_client"),
            "denied",
            "attribute condition",
        ),
        (
            400,
            Some("invalid_request"),
            "misconfigured",
            "attribute mapping",
        ),
        (
            403,
            Some("PERMISSION_DENIED"),
            "denied",
            "enable sts.googleapis.com",
        ),
        (429, None, "throttled", "quotas of sts.googleapis.com"),
        (503, None, "unreachable", "run it again in a minute"),
    ];
    are_cured(Endpoint::Sts, &expected);
}

#[test]
fn what_iam_credentials_refuses_is_told_apart_and_each_has_its_cure() {
    let became = format!(
        "grant roles/iam.workloadIdentityUser on service account {ACCOUNT} to principal://{POOL}/subject/host-a/agent/finance-bot"
    );
    let expected = [
        (403, Some("PERMISSION_DENIED"), "denied", became.as_str()),
        (
            404,
            Some("NOT_FOUND"),
            "misconfigured",
            "make the service account",
        ),
        (
            429,
            Some("RESOURCE_EXHAUSTED"),
            "throttled",
            "quotas of iamcredentials",
        ),
        (
            401,
            Some("UNAUTHENTICATED"),
            "misconfigured",
            "`token.iam_url`",
        ),
    ];
    are_cured(Endpoint::IamCredentials, &expected);
}

#[test]
fn what_keeps_a_token_away_on_this_side_has_its_cure() {
    let (config, _) = example();
    let cures = Cures {
        config: &config,
        plan: None,
        is_alone: false,
    };
    let name = agent();
    let who = who(&name, Some(ACCOUNT));
    let late = TokenError::Timeout {
        endpoint: Endpoint::Sts,
    };
    for (error, class, cure) in [
        (
            TokenError::NoMinter(MinterKind::Impersonation),
            "misconfigured",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (TokenError::Sign, "misconfigured", "issuer.pem"),
        (
            TokenError::BadServiceAccount,
            "misconfigured",
            "agent finance-bot",
        ),
        (late, "unreachable", "the security token service"),
    ] {
        assert_eq!(cures.class(&error), class, "{error}");
        let said = cures.of_token(&error, &who);
        assert!(said.contains(cure), "{error}: {said}");
    }
}

#[test]
fn what_bigquery_refuses_is_cured_by_the_role_the_member_and_where() {
    let (config, plan) = example();
    let cures = Cures {
        config: &config,
        plan: Some(&plan),
        is_alone: false,
    };
    let name = agent();
    let (federated, account) = (who(&name, None), who(&name, Some(ACCOUNT)));
    let dataset: DatasetRef = "demo-project.finance".parse().expect("a dataset");
    let no = |word| Said::Refused { status: 403, word };
    let denied = no(Some("accessDenied"));
    let jobs = cures.of_jobs(&denied, &federated, "demo-project");
    assert!(
        jobs.contains(&format!("roles/bigquery.jobUser on project demo-project to principalSet://{POOL}/attribute.host/host-a")),
        "{jobs}"
    );
    let seen = cures.of_dataset(&denied, &federated, &dataset);
    assert!(
        seen.contains(&format!("roles/bigquery.dataViewer on dataset demo-project.finance to principalSet://{POOL}/group/ds:demo-project.finance")),
        "{seen}"
    );
    let seen = cures.of_dataset(&denied, &account, &dataset);
    assert!(
        seen.contains(&format!("to serviceAccount:{ACCOUNT}")),
        "{seen}"
    );
    let standing = cures.of_standing(&federated, &dataset);
    assert!(
        standing.contains("group ds:demo-project.finance alone"),
        "{standing}"
    );
    for (said, cure) in [
        (
            no(Some("SERVICE_DISABLED")),
            "enable bigquery.googleapis.com in demo-project",
        ),
        (
            no(Some("USER_PROJECT_DENIED")),
            "roles/serviceusage.serviceUsageConsumer on project demo-project",
        ),
        (no(Some("SECURITY_POLICY_VIOLATED")), "perimeter"),
        (
            no(Some("rateLimitExceeded")),
            "quotas of bigquery.googleapis.com",
        ),
        (
            Said::Refused {
                status: 401,
                word: None,
            },
            "the pool is enabled",
        ),
        (
            Said::Refused {
                status: 404,
                word: None,
            },
            "project demo-project is there",
        ),
        (Said::Nothing("late".into()), "run it again"),
    ] {
        let jobs = cures.of_jobs(&said, &federated, "demo-project");
        assert!(jobs.contains(cure), "{said}: {jobs}");
    }
}

#[test]
fn without_a_plan_the_cure_leads_to_where_the_role_is_printed_and_without_a_daemon_to_the_daemon() {
    let (config, _) = example();
    let cures = Cures {
        config: &config,
        plan: None,
        is_alone: true,
    };
    let name = agent();
    let denied = Said::Refused {
        status: 403,
        word: None,
    };
    let said = cures.of_jobs(&denied, &who(&name, None), "demo-project");
    assert!(said.contains("`enforcer gcp setup`"), "{said}");
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ConnectionRefused] {
        let refused = UpstreamError::Connect {
            host: "bigquery.googleapis.com".into(),
            source: kind.into(),
        };
        assert!(cures.of_way(&refused, true).contains("start the daemon"));
        assert!(cures.of_way(&refused, false).contains("TCP 443"));
    }
}
