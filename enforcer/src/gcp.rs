//! What Google must be told for a configuration and a policy to work, and no more: a plan of pool, provider and bindings, made from the files alone. It is
//! printed as commands and as Terraform; nothing here asks or changes anything.

mod gcloud;
mod needed;
mod terraform;

use std::collections::BTreeSet;

use enforcer_proto::policy::Policy;
use enforcer_proto::scope::{Access, DatasetPattern};

use crate::config::{Agent, Config, Estimator, MinterKind, TokenSource};
use crate::dns::protected::Universe;
use crate::token::ASSERTION_LIFE_MAX;

pub use needed::Somebody;

/// The APIs that are called in projects that queries run in.
const SERVICES: [&str; 5] = [
    "bigquery.googleapis.com",
    "bigquerystorage.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
];
/// Those that are called in the pool's own project.
const POOL_SERVICES: [&str; 4] = [
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
];
/// Those whose calls are to be in the audit log of a project that queries run in.
const AUDITED: [&str; 4] = [
    "bigquery.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
];
/// Those whose calls are to be in that of the pool's own project.
const POOL_AUDITED: [&str; 3] = [
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
];
/// How claims become what IAM knows: who it is, what the window holds, and what bindings may name.
const MAPPING: [(&str, &str); 7] = [
    ("google.subject", "assertion.sub"),
    ("google.groups", "assertion.datasets"),
    ("attribute.host", "assertion.host"),
    ("attribute.agent", "assertion.agent"),
    ("attribute.session", "assertion.session"),
    ("attribute.grant", "assertion.grant"),
    ("attribute.reason", "assertion.reason"),
];
/// The base identity of a host that has no key of its own is not in its configuration.
const BASE_IDENTITY: &str = "serviceAccount:THE-HOSTS-OWN-SERVICE-ACCOUNT";

/// What Google must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The cloud that is told.
    universe: Universe,
    /// Where this host is known as an issuer; none where it impersonates.
    provider: Option<Provider>,
    /// The projects that queries run in.
    projects: BTreeSet<String>,
    bindings: BTreeSet<Binding>,
    /// What the files leave open, one sentence each.
    notes: BTreeSet<String>,
}

/// A workload identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Provider {
    /// As the audience has it: the project's number.
    project: String,
    /// The id of that project, as far as it is known: gcloud takes no number.
    project_id: Option<String>,
    location: String,
    pool: String,
    name: String,
    audience: String,
    issuer: String,
    host: String,
}

/// What a role is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum On {
    Project(String),
    Dataset { project: String, dataset: String },
    Bucket(String),
    Account(String),
}

/// A role that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Binding {
    on: On,
    role: &'static str,
    member: String,
}

/// A configuration that Google cannot be told of.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// The audience names no provider.
    #[error(
        "`token.audience` is `{0}` and names no provider: write //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"
    )]
    Audience(String),
}

impl Plan {
    /// The plan for a host with this configuration and policy.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn of(config: &Config, policy: &Policy) -> Result<Self, PlanError> {
        let provider = match &config.token {
            TokenSource::Federation {
                audience,
                issuer,
                project,
                ..
            } => {
                let mut provider = Provider::of(audience, issuer, &config.host)?;
                provider.project_id = pool_project(&provider.project, project.as_deref());
                Some(provider)
            }
            TokenSource::Impersonation { .. } => None,
        };
        let mut plan = Self {
            universe: config.universe.clone(),
            provider,
            projects: BTreeSet::new(),
            bindings: BTreeSet::new(),
            notes: BTreeSet::new(),
        };
        plan.accounts(config);
        for rule in &policy.rules {
            let agents = config.agents.iter();
            let agents: Vec<&Agent> = agents
                .filter(|agent| rule.agents.contains(&agent.name))
                .collect();
            let read = rule.datasets.iter().map(|pattern| (pattern, Access::Read));
            let written = rule.writable.iter().chain(&rule.ddl);
            let written = written.map(|pattern| (pattern, Access::Write));
            for (pattern, access) in read.chain(written) {
                plan.dataset(pattern, access, &agents);
            }
            for (bucket, access) in &rule.buckets {
                for agent in &agents {
                    let member = plan.agent(agent.name.as_str(), agent.service_account.as_deref());
                    plan.bucket(&bucket.to_string(), *access, &member);
                }
            }
        }
        plan.estimator(config);
        plan.jobs(config);
        plan.quotas(config);
        Ok(plan)
    }

    /// As commands for gcloud and bq, in the order in which they must run.
    #[must_use]
    pub fn commands(&self, jwks: &str) -> String {
        gcloud::commands(self, jwks)
    }

    /// As Terraform.
    #[must_use]
    pub fn terraform(&self, jwks: &str) -> String {
        terraform::resources(self, jwks)
    }

    /// Who may become the agents' service accounts.
    fn accounts(&mut self, config: &Config) {
        for agent in &config.agents {
            if let Some(account) = &agent.service_account {
                let subject = format!("{}/agent/{}", config.host, agent.name);
                self.may_become(account, agent.minter, &subject);
            }
        }
        if let Some(estimator) = &config.estimator
            && let Some(account) = &estimator.service_account
        {
            let subject = format!("{}/estimator/{}", config.host, estimator.name);
            self.may_become(account, estimator.minter, &subject);
        }
    }

    fn may_become(&mut self, account: &str, minter: MinterKind, subject: &str) {
        let (role, member) = who_becomes(minter, self.provider.as_ref(), subject);
        self.bind(On::Account(account.to_owned()), role, member);
    }

    /// A dataset that windows may be asked for. Google scopes by the window where the identity is the federated one: what a window holds are groups
    /// of its token. A service account holds it always.
    fn dataset(&mut self, pattern: &DatasetPattern, access: Access, agents: &[&Agent]) {
        let project = pattern.project();
        self.projects.insert(project.to_owned());
        let shown = pattern.to_string();
        let Some(dataset) = shown
            .strip_prefix(&format!("{project}."))
            .filter(|dataset| !dataset.ends_with('*'))
        else {
            self.note(format!(
                "The policy names {shown}: bind each dataset that is meant, as the others here are"
            ));
            return;
        };
        let on = On::Dataset {
            project: project.to_owned(),
            dataset: dataset.to_owned(),
        };
        let is_written = access >= Access::Write;
        for agent in agents {
            let members = match (&agent.service_account, &self.provider) {
                (None, Some(provider)) => {
                    let group = |kind: &str| provider.group(&format!("{kind}:{shown}"));
                    (group("ds"), group("dsw"))
                }
                (Some(account), _) => {
                    let member = format!("serviceAccount:{account}");
                    self.note(format!(
                        "{account} holds its datasets also without a window at Google: only this host's proxy scopes it"
                    ));
                    (member.clone(), member)
                }
                (None, None) => continue,
            };
            self.bind(on.clone(), "roles/bigquery.dataViewer", members.0);
            if is_written {
                self.bind(on.clone(), "roles/bigquery.dataEditor", members.1);
            }
        }
    }

    fn bucket(&mut self, bucket: &str, access: Access, member: &str) {
        let on = On::Bucket(bucket.trim_start_matches("gs://").to_owned());
        self.bind(on.clone(), "roles/storage.objectViewer", member.to_owned());
        if access >= Access::Write {
            self.bind(on, "roles/storage.objectCreator", member.to_owned());
        }
    }

    /// How an agent is known at Google.
    fn agent(&self, name: &str, account: Option<&str>) -> String {
        match (account, &self.provider) {
            (Some(account), _) => format!("serviceAccount:{account}"),
            (None, Some(provider)) => {
                provider.principal(&format!("{}/agent/{name}", provider.host))
            }
            (None, None) => BASE_IDENTITY.to_owned(),
        }
    }

    /// The estimator sees tables, and gets no rows.
    fn estimator(&mut self, config: &Config) {
        let Some(estimator) = &config.estimator else {
            return;
        };
        let Some(member) = self.as_estimator(config, estimator) else {
            return;
        };
        for project in self.projects.clone() {
            self.bind(
                On::Project(project),
                "roles/bigquery.jobUser",
                member.clone(),
            );
        }
        let datasets: BTreeSet<On> = self
            .bindings
            .iter()
            .map(|binding| binding.on.clone())
            .collect();
        for on in datasets {
            if matches!(on, On::Dataset { .. }) {
                self.bind(on, "roles/bigquery.dataViewer", member.clone());
            }
        }
    }

    /// Who may start jobs, and read results by the storage API: the agents, in the projects that they may be asked to query.
    fn jobs(&mut self, config: &Config) {
        let members: BTreeSet<String> = config
            .agents
            .iter()
            .map(|agent| match (&agent.service_account, &self.provider) {
                (None, Some(provider)) => provider.attribute("host", &provider.host),
                (account, _) => self.agent(agent.name.as_str(), account.as_deref()),
            })
            .collect();
        for project in self.projects.clone() {
            for member in &members {
                for role in ["roles/bigquery.jobUser", "roles/bigquery.readSessionUser"] {
                    self.bind(On::Project(project.clone()), role, member.clone());
                }
            }
        }
    }

    /// Whose requests are counted against a project that is not the one that Google takes by itself.
    fn quotas(&mut self, config: &Config) {
        let of_agent = |agent: &Agent| {
            let project = agent.quota_project.clone()?;
            let account = agent.service_account.as_deref();
            Some((project, self.agent(agent.name.as_str(), account)))
        };
        let mut counted: Vec<_> = config.agents.iter().filter_map(of_agent).collect();
        if let Some(estimator) = &config.estimator
            && let (Some(project), Some(member)) = (
                estimator.quota_project.clone(),
                self.as_estimator(config, estimator),
            )
        {
            counted.push((project, member));
        }
        for (project, member) in counted {
            self.projects.insert(project.clone());
            let on = On::Project(project);
            self.bind(on, "roles/serviceusage.serviceUsageConsumer", member);
        }
    }

    /// How the estimator is known at Google.
    fn as_estimator(&self, config: &Config, estimator: &Estimator) -> Option<String> {
        match (&estimator.service_account, &self.provider) {
            (Some(account), _) => Some(format!("serviceAccount:{account}")),
            (None, Some(provider)) => {
                Some(provider.principal(&format!("{}/estimator/{}", config.host, estimator.name)))
            }
            (None, None) => None,
        }
    }

    fn bind(&mut self, on: On, role: &'static str, member: String) {
        self.bindings.insert(Binding { on, role, member });
    }

    fn note(&mut self, note: String) {
        self.notes.insert(note);
    }
}

/// The id of the pool's project: as the configuration says, or as the audience does, where that is no number; none where it is not known.
pub(crate) fn pool_project(in_audience: &str, named: Option<&str>) -> Option<String> {
    let is_number = in_audience.bytes().all(|byte| byte.is_ascii_digit());
    let of_audience = (!is_number).then_some(in_audience);
    named.or(of_audience).map(str::to_owned)
}

/// The shell's words for the id of the project that has this number.
pub(crate) fn id_by_number(number: &str) -> String {
    format!("$(gcloud projects describe {number} --format='value(projectId)')")
}

/// The project that a service account is of, where its address says that.
fn project_of(account: &str) -> Option<String> {
    let (_, domain) = account.split_once('@')?;
    let project = domain.strip_suffix(".iam.gserviceaccount.com")?;
    // Of a project of a domain's, as example.com:project, the address has project.example.com.
    Some(match project.split_once('.') {
        Some((project, domain)) => format!("{domain}:{project}"),
        None => project.to_owned(),
    })
}

/// By which role who has this subject becomes a service account, and who that is to Google.
fn who_becomes(
    minter: MinterKind,
    provider: Option<&Provider>,
    subject: &str,
) -> (&'static str, String) {
    match (minter, provider) {
        (MinterKind::Federation, Some(provider)) => (
            "roles/iam.workloadIdentityUser",
            provider.principal(subject),
        ),
        (MinterKind::Impersonation, _) | (MinterKind::Federation, None) => (
            "roles/iam.serviceAccountTokenCreator",
            BASE_IDENTITY.to_owned(),
        ),
    }
}

impl Provider {
    fn of(audience: &str, issuer: &str, host: &str) -> Result<Self, PlanError> {
        let wrong = || PlanError::Audience(audience.to_owned());
        let path = audience
            .strip_prefix("//iam.googleapis.com/")
            .ok_or_else(wrong)?;
        let parts: Vec<&str> = path.split('/').collect();
        let [
            "projects",
            project,
            "locations",
            location,
            "workloadIdentityPools",
            pool,
            "providers",
            name,
        ] = parts.as_slice()
        else {
            return Err(wrong());
        };
        let is_plain = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if ![project, location, pool, name].into_iter().all(is_plain) {
            return Err(wrong());
        }
        Ok(Self {
            project: (*project).to_owned(),
            project_id: None,
            location: (*location).to_owned(),
            pool: (*pool).to_owned(),
            name: (*name).to_owned(),
            audience: audience.to_owned(),
            issuer: issuer.to_owned(),
            host: host.to_owned(),
        })
    }

    /// The condition that confines the host's key to its own subjects, and its assertions to their life.
    fn condition(&self) -> String {
        format!(
            "assertion.sub.startsWith('{}/') && assertion.exp - assertion.iat <= {}",
            self.host,
            ASSERTION_LIFE_MAX.as_secs()
        )
    }

    fn pool_path(&self) -> String {
        format!(
            "iam.googleapis.com/projects/{}/locations/{}/workloadIdentityPools/{}",
            self.project, self.location, self.pool
        )
    }

    fn principal(&self, subject: &str) -> String {
        format!("principal://{}/subject/{subject}", self.pool_path())
    }

    fn group(&self, group: &str) -> String {
        format!("principalSet://{}/group/{group}", self.pool_path())
    }

    fn attribute(&self, name: &str, value: &str) -> String {
        format!(
            "principalSet://{}/attribute.{name}/{value}",
            self.pool_path()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_of_an_account_is_read_from_its_address_where_that_says_it() {
        for (account, project) in [
            ("bot@p-1.iam.gserviceaccount.com", Some("p-1")),
            (
                "bot@p-1.example.com.iam.gserviceaccount.com",
                Some("example.com:p-1"),
            ),
            ("123-compute@developer.gserviceaccount.com", None),
            ("nobody", None),
        ] {
            assert_eq!(project_of(account).as_deref(), project, "{account}");
        }
    }

    #[test]
    fn the_id_of_the_pools_project_is_the_named_one_and_a_number_is_none() {
        assert_eq!(pool_project("12", Some("p")).as_deref(), Some("p"));
        assert_eq!(pool_project("p-1", None).as_deref(), Some("p-1"));
        assert_eq!(pool_project("12", None), None);
    }

    #[test]
    fn a_provider_is_read_from_the_audience_or_refused() {
        let audience = "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/agents/providers/host-a";
        let provider = Provider::of(audience, "https://issuer.test", "host-a").expect("one");
        assert_eq!(
            provider.group("ds:p.d"),
            "principalSet://iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/agents/group/ds:p.d"
        );
        assert_eq!(
            provider.condition(),
            "assertion.sub.startsWith('host-a/') && assertion.exp - assertion.iat <= 900"
        );
        for wrong in [
            "",
            "//iam.googleapis.com/projects/12",
            "https://iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/a/providers/b",
            "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/a;rm -rf/providers/b",
            "//iam.googleapis.com/projects//locations/global/workloadIdentityPools/a/providers/b",
        ] {
            assert_eq!(
                Provider::of(wrong, "https://issuer.test", "host-a"),
                Err(PlanError::Audience(wrong.to_owned()))
            );
        }
    }
}
