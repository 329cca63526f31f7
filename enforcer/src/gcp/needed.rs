//! The one binding of a plan that somebody needs for one thing, in words: for whoever looks at what is missing.

use std::fmt;

use enforcer_proto::scope::DatasetRef;

use super::{Binding, On, Plan, who_becomes};
use crate::config::MinterKind;

/// Somebody of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Somebody<'a> {
    /// Whether it is the estimator, and no agent.
    pub is_estimator: bool,
    /// Its name.
    pub name: &'a str,
    /// By what its tokens are made.
    pub minter: MinterKind,
    /// Its service account; absent: it is known by its federated identity.
    pub account: Option<&'a str>,
}

impl Plan {
    /// What somebody needs to become this service account.
    #[must_use]
    pub fn to_become(&self, account: &str, who: &Somebody<'_>) -> String {
        let subject = self.subject(who);
        let (role, member) = who_becomes(who.minter, self.provider.as_ref(), &subject);
        said(On::Account(account.to_owned()), role, member)
    }

    /// What somebody needs to run jobs in this project.
    #[must_use]
    pub fn to_run_jobs(&self, project: &str, who: &Somebody<'_>) -> String {
        let member = match (who.account, who.is_estimator, &self.provider) {
            (None, false, Some(provider)) => provider.attribute("host", &provider.host),
            (Some(_), _, _) | (None, true, _) | (None, false, None) => self.member(who),
        };
        said(
            On::Project(project.to_owned()),
            "roles/bigquery.jobUser",
            member,
        )
    }

    /// What somebody needs to read this dataset, within a window where Google knows of windows.
    #[must_use]
    pub fn to_see(&self, dataset: &DatasetRef, who: &Somebody<'_>) -> String {
        let member = match (who.account, who.is_estimator, &self.provider) {
            (None, false, Some(provider)) => provider.group(&format!("ds:{dataset}")),
            (Some(_), _, _) | (None, true, _) | (None, false, None) => self.member(who),
        };
        let on = On::Dataset {
            project: dataset.project().to_owned(),
            dataset: dataset.dataset().to_owned(),
        };
        said(on, "roles/bigquery.dataViewer", member)
    }

    /// How Google knows somebody.
    #[must_use]
    pub fn member(&self, who: &Somebody<'_>) -> String {
        match (who.account, &self.provider) {
            (Some(account), _) => format!("serviceAccount:{account}"),
            (None, Some(provider)) => provider.principal(&self.subject(who)),
            (None, None) => super::BASE_IDENTITY.to_owned(),
        }
    }

    fn subject(&self, who: &Somebody<'_>) -> String {
        let host = self.provider.as_ref().map_or("", |provider| &provider.host);
        let kind = if who.is_estimator {
            "estimator"
        } else {
            "agent"
        };
        format!("{host}/{kind}/{}", who.name)
    }
}

fn said(on: On, role: &'static str, member: String) -> String {
    Binding { on, role, member }.to_string()
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(project) => write!(f, "project {project}"),
            Self::Dataset { project, dataset } => write!(f, "dataset {project}.{dataset}"),
            Self::Bucket(bucket) => write!(f, "bucket gs://{bucket}"),
            Self::Account(account) => write!(f, "service account {account}"),
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} to {}", self.role, self.on, self.member)
    }
}
