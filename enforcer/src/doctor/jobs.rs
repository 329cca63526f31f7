//! Jobs: a dry run of a query that reads nothing, in each project of the policy's. It starts no job and costs nothing.

use std::collections::BTreeSet;

use enforcer_proto::check::Link;
use enforcer_proto::policy::Policy;
use http::Method;
use serde_json::json;

use super::data::{At, patterns};
use super::google::Said;
use super::{Doctor, Told};

impl Doctor {
    /// Whether jobs may be started in each project that the policy names for somebody.
    pub(super) async fn projects(&self, at: &At<'_>, policy: Option<&Policy>, told: &mut Told) {
        let Some(policy) = policy else {
            let why = "it needs the policy";
            return told.not_tried(Link::Jobs, &at.who.to_string(), why).await;
        };
        let named = patterns(at.who, policy);
        let projects: BTreeSet<&str> = named.keys().map(|pattern| pattern.project()).collect();
        if projects.is_empty() {
            let why = "no rule of the policy names a dataset for it";
            return told.not_tried(Link::Jobs, &at.who.to_string(), why).await;
        }
        for project in projects {
            if told.is_over() {
                return;
            }
            let of = format!("{} in {project}", at.who);
            let credential = match at.ready() {
                Ok(credential) => credential,
                Err(why) => {
                    told.not_tried(Link::Jobs, &of, why).await;
                    continue;
                }
            };
            let query = json!({"query": "SELECT 1", "useLegacySql": false});
            let body = json!({"configuration": {"dryRun": true, "query": query}});
            let path = format!("{project}/jobs");
            let said = self.ask(credential, (Method::POST, &path), Some(&body));
            match said.await {
                Said::Allowed => {
                    told.ok(Link::Jobs, &of, "a dry run of SELECT 1 is allowed")
                        .await;
                }
                said @ (Said::Refused { .. } | Said::Nothing(_)) => {
                    let cure = at.cures.of_jobs(&said, at.who, project);
                    let said = format!("a dry run of SELECT 1: {said}");
                    told.fail(Link::Jobs, &of, &said, &cure).await;
                }
            }
        }
    }
}
