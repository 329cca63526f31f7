//! The section `[estimator]`: as whom BigQuery's dry run is asked what a query without a window needs. It is nobody's identity but the daemon's own.

use enforcer_proto::principal::AgentName;
use serde::{Deserialize, Serialize};

use super::{Agent, MinterKind, TokenSource};

/// As whom the estimator is known at Google.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimator {
    /// Its name: with federation the subject is `HOST/estimator/NAME`, and no agent has it.
    pub name: AgentName,
    /// The service account its tokens are for; absent: the federated identity itself.
    pub service_account: Option<String>,
    /// By what its tokens are made.
    pub minter: MinterKind,
    /// The project that its requests are counted against; absent: the one that Google takes by itself.
    pub quota_project: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EstimatorFile {
    name: Option<AgentName>,
    token: Option<MinterKind>,
    service_account: Option<String>,
}

impl EstimatorFile {
    pub(super) fn resolve(
        self,
        agents: &[Agent],
        token: &TokenSource,
        quota_project: Option<String>,
    ) -> Result<Estimator, String> {
        let Self {
            name,
            token: said,
            service_account,
        } = self;
        let name = match name {
            Some(name) => name,
            None => "estimator"
                .parse()
                .map_err(|error| format!("`estimator.name`: {error}"))?,
        };
        if agents.iter().any(|agent| agent.name == name) {
            return Err(format!(
                "`estimator.name` is `{name}`, which is an agent: what the estimator sees would be seen as that agent's. Name it otherwise"
            ));
        }
        let minter = token.minter("[estimator]", said, service_account.as_ref())?;
        if let Some(account) = &service_account {
            not_an_agents(account, agents)?;
        }
        Ok(Estimator {
            name,
            service_account,
            minter,
            quota_project,
        })
    }
}

/// What one identity may, the other could: the estimator sees tables that no agent may read, and reads none.
fn not_an_agents(account: &str, agents: &[Agent]) -> Result<(), String> {
    let is_same = |agent: &&Agent| {
        let own = agent.service_account.as_ref();
        own.is_some_and(|own| own.eq_ignore_ascii_case(account))
    };
    match agents.iter().find(is_same) {
        Some(agent) => Err(format!(
            "`estimator.service_account` is that of agent {}: it needs one of its own, which may read no rows",
            agent.name
        )),
        None => Ok(()),
    }
}
