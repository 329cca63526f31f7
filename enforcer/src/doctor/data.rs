//! Datasets: with a federated identity Google must refuse them to a token without the window's groups, and allow them to one with theirs. Asks for
//! metadata alone: what a dataset is, and one of its tables' names.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::check::{Link, Mark};
use enforcer_proto::policy::Policy;
use enforcer_proto::scope::{Access, DatasetPattern, DatasetRef};
use http::Method;

use super::cure::Cures;
use super::google::Said;
use super::{Doctor, Told, Who};
use crate::causes::Causes;
use crate::token::{Bearer, Credential};

/// By what data is asked for.
#[derive(Debug)]
pub(super) struct At<'a> {
    pub(super) who: &'a Who<'a>,
    /// A token for no dataset.
    pub(super) token: Option<&'a Credential>,
    pub(super) has_api: bool,
    pub(super) cures: &'a Cures<'a>,
}

impl At<'_> {
    /// What can be asked with, or what is missing.
    pub(super) fn ready(&self) -> Result<&Credential, &'static str> {
        match (self.token, self.has_api) {
            (None, _) => Err("it needs a token"),
            (Some(_), false) => Err("it needs BigQuery's API"),
            (Some(token), true) => Ok(token),
        }
    }
}

/// The datasets that the policy names for somebody, and the most that may be done to each.
pub(super) fn patterns<'p>(
    who: &Who<'_>,
    policy: &'p Policy,
) -> BTreeMap<&'p DatasetPattern, Access> {
    let mut named = BTreeMap::new();
    for rule in policy.rules.iter().filter(|rule| who.is_of(rule)) {
        let read = rule.datasets.iter().map(|pattern| (pattern, Access::Read));
        let written = rule.writable.iter().chain(&rule.ddl);
        let written = written.map(|pattern| (pattern, Access::Write));
        for (pattern, access) in read.chain(written) {
            let most = named.entry(pattern).or_insert(access);
            *most = access.max(*most);
        }
    }
    named
}

impl Doctor {
    /// Whether each dataset that the policy names for somebody is open to them within a window, and to no federated agent without one.
    pub(super) async fn datasets(&self, at: &At<'_>, policy: Option<&Policy>, told: &mut Told) {
        let Some(policy) = policy else {
            let why = "it needs the policy";
            return told
                .not_tried(Link::Dataset, &at.who.to_string(), why)
                .await;
        };
        for (pattern, access) in patterns(at.who, policy) {
            if told.is_over() {
                return;
            }
            let of = format!("{pattern} for {}", at.who);
            let Ok(dataset) = pattern.to_string().parse::<DatasetRef>() else {
                let said =
                    "the policy names all that begin so: those that are there are not looked at";
                let cure = "see that each dataset that is meant is bound as the others are (enforcer gcp setup)";
                told.say(Mark::Note, Link::Dataset, &of, said, Some(cure))
                    .await;
                continue;
            };
            let credential = match at.ready() {
                Ok(credential) => credential,
                Err(why) => {
                    told.not_tried(Link::Dataset, &of, why).await;
                    continue;
                }
            };
            match (at.who.account, at.who.bearer) {
                (None, Bearer::Agent) => {
                    self.scoped(at, credential, &dataset, &of, told).await;
                }
                (Some(_), _) | (None, Bearer::Estimator) => {
                    self.held(at, credential, &dataset, &of, told).await;
                }
            }
            if access >= Access::Write && at.who.bearer == Bearer::Agent {
                let why = "whether it may be written to, since only writing would show that";
                told.not_tried(Link::Dataset, &of, why).await;
            }
        }
        self.buckets(at.who, policy, told).await;
    }

    /// Storage is another API: what a load or an export may do there only it would show.
    async fn buckets(&self, who: &Who<'_>, policy: &Policy, told: &mut Told) {
        let rules = policy.rules.iter().filter(|rule| who.is_of(rule));
        let buckets: BTreeSet<String> = rules
            .flat_map(|rule| rule.buckets.keys().map(ToString::to_string))
            .collect();
        if who.bearer == Bearer::Agent && !buckets.is_empty() {
            let named: Vec<&str> = buckets.iter().map(String::as_str).collect();
            let of = format!("buckets of {who}");
            let why = format!("what it may do to {}", named.join(", "));
            told.not_tried(Link::Dataset, &of, &why).await;
        }
    }

    /// Google scopes by the window: nothing without its group, and the dataset with it.
    async fn scoped(
        &self,
        at: &At<'_>,
        without: &Credential,
        dataset: &DatasetRef,
        of: &str,
        told: &mut Told,
    ) {
        let mut opened = None;
        for what in [What::Dataset, What::Tables] {
            let said = self.look(without, dataset, what).await;
            if said == Said::Allowed {
                opened = Some(what);
            } else if !said.is_no() {
                let cure = at.cures.of_unjudged(&said, at.who, dataset);
                let said = format!("without a window {}: {said}", what.method());
                return told.fail(Link::Dataset, of, &said, &cure).await;
            }
        }
        match opened {
            Some(what) => {
                let said = format!(
                    "standing access: {} is allowed without a window's group",
                    what.method()
                );
                let cure = at.cures.of_standing(at.who, dataset);
                told.fail(Link::Dataset, of, &said, &cure).await;
            }
            None => {
                told.ok(Link::Dataset, of, "refused without a window, as it must be")
                    .await;
            }
        }
        let group = dataset.to_string();
        let minted = match self.mint(at.who, vec![group]).await {
            Ok((minted, _)) => minted,
            Err(error) => {
                let said = format!(
                    "no token for it: {}: {}",
                    at.cures.class(&error),
                    Causes(&error)
                );
                let cure = at.cures.of_token(&error, at.who);
                return told.fail(Link::Dataset, of, &said, &cure).await;
            }
        };
        let within = Credential::new(&minted.token, at.who.quota_project);
        match self.look(&within, dataset, What::Tables).await {
            Said::Allowed => told.ok(Link::Dataset, of, "allowed within a window").await,
            said @ (Said::Refused { .. } | Said::Nothing(_)) => {
                let cure = at.cures.of_dataset(&said, at.who, dataset);
                let said = format!("within a window tables.list: {said}");
                told.fail(Link::Dataset, of, &said, &cure).await;
            }
        }
    }

    /// Google has no scope of its own for these: they hold it always.
    async fn held(
        &self,
        at: &At<'_>,
        credential: &Credential,
        dataset: &DatasetRef,
        of: &str,
        told: &mut Told,
    ) {
        let said = self.look(credential, dataset, What::Tables).await;
        if said != Said::Allowed {
            let cure = at.cures.of_dataset(&said, at.who, dataset);
            let said = format!("tables.list: {said}");
            return told.fail(Link::Dataset, of, &said, &cure).await;
        }
        match at.who.bearer {
            Bearer::Agent => {
                let said = "allowed, and always so: a service account holds it without a window at Google, and only this host's proxy scopes it";
                told.say(Mark::Note, Link::Dataset, of, said, None).await;
            }
            Bearer::Estimator => {
                let said = "allowed: the estimator sees it, and asks for dry runs alone";
                told.ok(Link::Dataset, of, said).await;
            }
        }
    }

    async fn look(&self, credential: &Credential, dataset: &DatasetRef, what: What) -> Said {
        let base = format!("{}/datasets/{}", dataset.project(), dataset.dataset());
        let path = match what {
            What::Dataset => format!("{base}?datasetView=METADATA"),
            What::Tables => format!("{base}/tables?maxResults=1"),
        };
        self.ask(credential, (Method::GET, &path), None).await
    }
}

/// What is asked of a dataset.
#[derive(Debug, Clone, Copy)]
enum What {
    Dataset,
    Tables,
}

impl What {
    const fn method(self) -> &'static str {
        match self {
            Self::Dataset => "datasets.get",
            Self::Tables => "tables.list",
        }
    }
}
