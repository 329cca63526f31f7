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

fn refused(endpoint: Endpoint, status: u16, code: Option<&'static str>) -> TokenError {
    TokenError::Refused {
        endpoint,
        status,
        code,
    }
}

#[test]
fn what_keeps_a_token_away_is_told_apart_and_each_has_its_cure() {
    let (config, plan) = example();
    let cures = Cures {
        config: &config,
        plan: Some(&plan),
        is_alone: false,
    };
    let name = agent();
    let who = who(&name, Some(ACCOUNT));
    let (sts, iam) = (Endpoint::Sts, Endpoint::IamCredentials);
    let became = format!(
        "grant roles/iam.workloadIdentityUser on service account {ACCOUNT} to principal://{POOL}/subject/host-a/agent/finance-bot"
    );
    for (endpoint, status, code, class, cure) in [
        (
            sts,
            400,
            Some("invalid_grant"),
            "misconfigured",
            "`enforcer gcp jwks`",
        ),
        (
            sts,
            400,
            Some("invalid_target"),
            "misconfigured",
            "`token.audience`",
        ),
        (
            sts,
            400,
            Some("unauthorized_client"),
            "denied",
            "attribute condition",
        ),
        (
            sts,
            400,
            Some("invalid_request"),
            "misconfigured",
            "attribute mapping",
        ),
        (
            sts,
            403,
            Some("PERMISSION_DENIED"),
            "denied",
            "enable sts.googleapis.com",
        ),
        (sts, 429, None, "throttled", "quotas of sts.googleapis.com"),
        (sts, 503, None, "unreachable", "run it again in a minute"),
        (
            iam,
            403,
            Some("PERMISSION_DENIED"),
            "denied",
            became.as_str(),
        ),
        (
            iam,
            404,
            Some("NOT_FOUND"),
            "misconfigured",
            "make the service account",
        ),
        (
            iam,
            429,
            Some("RESOURCE_EXHAUSTED"),
            "throttled",
            "quotas of iamcredentials",
        ),
        (
            iam,
            401,
            Some("UNAUTHENTICATED"),
            "misconfigured",
            "`token.iam_url`",
        ),
    ] {
        let error = refused(endpoint, status, code);
        assert_eq!(cures.class(&error), class, "{error}");
        let said = cures.of_token(&error, &who);
        assert!(said.contains(cure), "{error}: {said}");
    }
    let error = TokenError::NoMinter(MinterKind::Impersonation);
    assert!(
        cures
            .of_token(&error, &who)
            .contains("GOOGLE_APPLICATION_CREDENTIALS")
    );
    let late = TokenError::Timeout {
        endpoint: Endpoint::Sts,
    };
    assert_eq!(cures.class(&late), "unreachable");
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
