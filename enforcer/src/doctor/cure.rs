//! What to do about what failed: one sentence for each, with the role, the account and the member where Google is to be told of one. Pure text.

use std::io::ErrorKind;

use enforcer_proto::refusal::Code;
use enforcer_proto::scope::DatasetRef;

use super::Who;
use super::google::Said;
use crate::config::{Config, KeyStore, MinterKind, TokenSource};
use crate::gcp::Plan;
use crate::token::{Endpoint, TokenError};
use crate::upstream::UpstreamError;

/// Where what Google must be told is printed.
const SETUP: &str = "as `enforcer gcp setup` prints it";

/// Whose doing it is that there is no token, by the code of why; of any other code nothing usable was heard.
const CLASSES: [(Code, &str); 3] = [
    (Code::TokenDenied, "denied"),
    (Code::TokenThrottled, "throttled"),
    (Code::TokenMisconfigured, "misconfigured"),
];

/// What cures are made of.
#[derive(Debug)]
pub(super) struct Cures<'a> {
    pub(super) config: &'a Config,
    /// What Google must be told; absent where the files do not say.
    pub(super) plan: Option<&'a Plan>,
    /// Whether no daemon looks, but a command.
    pub(super) is_alone: bool,
}

impl Cures<'_> {
    /// Whose doing it is that there is no token, in a word.
    pub(super) fn class(&self, error: &TokenError) -> &'static str {
        let code = error.code();
        let known = CLASSES.iter().find(|(of, _)| *of == code);
        known.map_or("unreachable", |(_, class)| class)
    }

    /// Of a connection that did not come to be.
    pub(super) fn of_way(&self, error: &UpstreamError, is_protected: bool) -> String {
        match error {
            UpstreamError::Handshake { .. } => {
                "somebody between may be breaking TLS open; if that is meant, name its root as `upstream.ca_file`, otherwise let this host through".to_owned()
            }
            UpstreamError::Connect { source, .. }
                if self.is_alone && is_protected && is_the_kernels(source.kind()) =>
            {
                "where this host is enforced on, the kernel refuses it to everybody but the daemon: start the daemon, and have it look".to_owned()
            }
            UpstreamError::Connect { .. } | UpstreamError::ConnectTimeout { .. } => {
                "let this host through to it by TCP 443: look at the firewall, and at the route to its addresses".to_owned()
            }
            UpstreamError::Names { .. } | UpstreamError::NoAddress { .. } => {
                "look at the servers under [names] resolvers".to_owned()
            }
            UpstreamError::Roots { .. }
            | UpstreamError::NoRoots
            | UpstreamError::Tls(_)
            | UpstreamError::NotHttps
            | UpstreamError::Busy { .. }
            | UpstreamError::Http { .. }
            | UpstreamError::Forgotten { .. } => {
                "look at what answers there: it is reached, and does not answer as Google does".to_owned()
            }
        }
    }

    /// Of a token that could not be had.
    pub(super) fn of_token(&self, error: &TokenError, who: &Who<'_>) -> String {
        match error {
            TokenError::Refused {
                endpoint: Endpoint::Sts,
                status,
                code,
            } => self.of_sts(*status, *code),
            TokenError::Refused {
                endpoint: Endpoint::IamCredentials,
                status,
                code,
            } => self.of_iam(*status, *code, who),
            TokenError::Refused {
                endpoint: Endpoint::Base,
                ..
            }
            | TokenError::NoBaseIdentity
            | TokenError::NoMinter(MinterKind::Impersonation) => {
                "give this host an identity of its own: run it on a machine with a service account, or name a key by GOOGLE_APPLICATION_CREDENTIALS; then restart the daemon".to_owned()
            }
            TokenError::BaseNotThere(_) => {
                "name another source by token.base, or have that one there; then restart the daemon".to_owned()
            }
            TokenError::NoMinter(MinterKind::Federation) if self.is_alone => format!(
                "start the daemon, and run this again; or {}",
                where_the_key_is(self.config)
            ),
            TokenError::NoMinter(MinterKind::Federation) => {
                "restart the daemon: its configuration had nobody who federates when it started".to_owned()
            }
            TokenError::SubjectTooLong(_) | TokenError::ClaimsTooLarge(_) => {
                "shorten `host`, or the agent's name".to_owned()
            }
            TokenError::Sign | TokenError::SignerAway => where_the_key_is(self.config),
            TokenError::NoServiceAccount | TokenError::BadServiceAccount => {
                format!("write NAME@PROJECT.iam.gserviceaccount.com as `service_account` of {who}")
            }
            TokenError::Unreachable { source, .. } => self.of_way(source, false),
            TokenError::Timeout { endpoint } => {
                format!("run it again; if it stays so, look at what lies between this host and {endpoint}")
            }
            TokenError::Unusable {
                endpoint: Endpoint::Base,
                ..
            } => "look at what the daemon says of this host's own identity in its log, and name its source by token.base".to_owned(),
            TokenError::Unusable { endpoint, .. } => {
                format!("look at who answers as {endpoint}, and at this host's clock: what came is not what Google sends")
            }
            TokenError::Closed => "run it again".to_owned(),
        }
    }

    fn of_sts(&self, status: u16, code: Option<&str>) -> String {
        let (audience, host) = match &self.config.token {
            TokenSource::Federation { audience, .. } => (audience.as_str(), &self.config.host),
            TokenSource::Impersonation { .. } => ("", &self.config.host),
        };
        match (status, code) {
            (429, _) | (_, Some("RESOURCE_EXHAUSTED")) => throttled("sts.googleapis.com"),
            (500.., _) => "run it again in a minute: Google's service has failed".to_owned(),
            (_, Some("invalid_grant")) => {
                "Google does not believe the assertion: the keys that it was given are old (give it what `enforcer gcp jwks` prints, and wait 5 min), `token.issuer` is not the provider's, or this host's clock is wrong".to_owned()
            }
            (_, Some("invalid_target")) => {
                format!("`token.audience` must name a pool and provider that are there and enabled; it is {audience}")
            }
            (_, Some("unauthorized_client")) => {
                format!("the provider's attribute condition refuses it: it must let subjects pass that begin with {host}/, and assertions of 900 s, {SETUP}")
            }
            (_, Some("invalid_request")) => {
                format!("the provider's attribute mapping does not fit the claims: set it {SETUP}")
            }
            (403, _) | (_, Some("PERMISSION_DENIED")) => {
                "enable sts.googleapis.com in the pool's project, and look at VPC Service Controls around it".to_owned()
            }
            _ => format!("compare the pool and the provider with what this host says of itself, {SETUP}"),
        }
    }

    fn of_iam(&self, status: u16, code: Option<&str>, who: &Who<'_>) -> String {
        let account = who.account.unwrap_or_default();
        match (status, code) {
            (429, _) | (_, Some("RESOURCE_EXHAUSTED")) => throttled("iamcredentials.googleapis.com"),
            (500.., _) => "run it again in a minute: Google's service has failed".to_owned(),
            (401, _) | (_, Some("UNAUTHENTICATED")) => {
                "IAM Credentials does not take the token that it is shown: see that the pool is enabled, and `token.iam_url`".to_owned()
            }
            (403, _) | (_, Some("PERMISSION_DENIED")) => {
                let binding = self.plan.map(|plan| plan.to_become(account, &who.somebody()));
                format!("grant {}, and see that iamcredentials.googleapis.com is enabled", or_setup(binding))
            }
            (404, _) | (_, Some("NOT_FOUND")) => {
                format!("make the service account {account}, or correct `service_account` of {who}")
            }
            (400, _) => format!("see that {account} is there and enabled, and that no constraint forbids a life of 300 to 600 s"),
            _ => format!("look at {account} in IAM"),
        }
    }

    /// Of a dry run that was not allowed.
    pub(super) fn of_jobs(&self, said: &Said, who: &Who<'_>, project: &str) -> String {
        let binding = self
            .plan
            .map(|plan| plan.to_run_jobs(project, &who.somebody()));
        self.of_said(said, who, project, &or_setup(binding))
    }

    /// Of a dataset that is not open where it should be.
    pub(super) fn of_dataset(&self, said: &Said, who: &Who<'_>, dataset: &DatasetRef) -> String {
        let binding = self.plan.map(|plan| plan.to_see(dataset, &who.somebody()));
        if let Said::Refused { status: 404, .. } = said {
            return format!(
                "make {dataset}, or correct the policy; if it is there, grant {}",
                or_setup(binding)
            );
        }
        self.of_said(said, who, dataset.project(), &or_setup(binding))
    }

    /// Of a dataset that is open without a window.
    pub(super) fn of_standing(&self, who: &Who<'_>, dataset: &DatasetRef) -> String {
        let member = self.plan.map(|plan| plan.member(&who.somebody()));
        let member = member.unwrap_or_else(|| format!("{who}"));
        format!(
            "take away what {member}, its pool or everybody (allUsers, allAuthenticatedUsers) has on {dataset} or its project besides roles/bigquery.jobUser: bind the dataset to the group ds:{dataset} alone, {SETUP}"
        )
    }

    /// Of an answer that is neither yes nor no.
    pub(super) fn of_silence(&self, said: &Said) -> String {
        match said {
            Said::Refused { status: 401, .. } => not_taken(),
            Said::Refused { status: 429, .. } => throttled("bigquery.googleapis.com"),
            Said::Allowed | Said::Refused { .. } | Said::Nothing(_) => {
                "run it again; if it stays so, look at what lies between this host and BigQuery"
                    .to_owned()
            }
        }
    }

    /// Of a "no" that is not IAM's, where that was wanted: whether somebody may was not judged.
    pub(super) fn of_unjudged(&self, said: &Said, who: &Who<'_>, dataset: &DatasetRef) -> String {
        let cure = self.of_word(said, who, dataset.project());
        cure.unwrap_or_else(|| self.of_silence(said))
    }

    fn of_said(&self, said: &Said, who: &Who<'_>, project: &str, binding: &str) -> String {
        let cure = self.of_word(said, who, project);
        cure.unwrap_or_else(|| match said {
            Said::Refused { status: 403, .. } => format!("grant {binding}, and wait up to 5 min"),
            Said::Refused { status: 404, .. } => {
                format!("see that project {project} is there, and what the policy names in it")
            }
            Said::Allowed | Said::Refused { .. } | Said::Nothing(_) => self.of_silence(said),
        })
    }

    /// Of what is known by Google's word for it, and is no question of who may.
    fn of_word(&self, said: &Said, who: &Who<'_>, project: &str) -> Option<String> {
        let Said::Refused { status, word } = said else {
            return None;
        };
        Some(match (*status, *word) {
            (_, Some("SERVICE_DISABLED" | "accessNotConfigured")) => {
                let counted = who.quota_project.unwrap_or(project);
                format!("enable bigquery.googleapis.com in {counted}")
            }
            (_, Some("USER_PROJECT_DENIED" | "CONSUMER_INVALID")) => {
                let counted = who.quota_project.unwrap_or(project);
                format!("grant roles/serviceusage.serviceUsageConsumer on project {counted}, {SETUP}, or correct `quota_project`")
            }
            (_, Some("SECURITY_POLICY_VIOLATED")) => {
                "let this identity into the perimeter (VPC Service Controls); one that knows service accounts alone needs `service_account`".to_owned()
            }
            (_, Some("billingNotEnabled" | "BILLING_DISABLED")) => {
                format!("turn billing on for project {project}")
            }
            (429, _) | (_, Some("quotaExceeded" | "rateLimitExceeded")) => {
                throttled("bigquery.googleapis.com")
            }
            (401, _) | (_, Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT" | "ACCESS_TOKEN_TYPE_UNSUPPORTED")) => {
                not_taken()
            }
            _ => return None,
        })
    }
}

/// Without a daemon the kernel refuses, or leads to its port, at which nobody listens.
const fn is_the_kernels(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused
    )
}

fn not_taken() -> String {
    "BigQuery does not take the token: see that the pool is enabled, and that `names.universe_domain` is the one that it was made in".to_owned()
}

/// Where whoever mends the issuer's key looks.
pub(super) fn where_the_key_is(config: &Config) -> String {
    match config.token.keys() {
        KeyStore::File => format!("look at issuer.pem in {}", config.state_dir.display()),
        KeyStore::Credential(name) => {
            format!("look at LoadCredentialEncrypted={name}: in the daemon's unit, and restart it")
        }
        KeyStore::Hsm(hsm) => format!("see that {hsm} is there and takes its PIN (token.signer)"),
    }
}

fn throttled(service: &str) -> String {
    format!("wait, and run it again; if it stays so, look at the quotas of {service}")
}

fn or_setup(binding: Option<String>) -> String {
    binding.map_or_else(
        || format!("the role {SETUP}"),
        |binding| format!("{binding}, {SETUP}"),
    )
}

#[cfg(test)]
mod tests;
