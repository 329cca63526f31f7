//! Looks at each link of the way to Google, live: files, names, TLS, this host as an issuer, tokens, jobs, datasets. It is said in one check for each,
//! with its cure, and what needs a link that failed is not tried.
//!
//! It writes nothing, reads no row and runs no query that costs: besides tokens it asks for dry runs of `SELECT 1` and for the metadata of datasets.
//! Tokens stay in here; what is said of one is how long it lives and for whom.

mod cure;
mod data;
mod google;
mod issuer;
mod jobs;
mod minted;
mod reach;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enforcer_proto::check::{CHECKS_MAX, Check, Link, Mark};
use enforcer_proto::policy::{Policy, Rule};
use enforcer_proto::principal::AgentName;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::{Agent, Config, Estimator, MinterKind, TokenSource};
use crate::dns::Lookup;
use crate::gcp::{Plan, Somebody};
use crate::token::{Bearer, Minter, RotationError};
use crate::upstream::Upstream;
use cure::Cures;

/// The key of its connections: no window, session or other part of the daemon has it.
const POOL_KEY: u64 = u64::MAX - 3;
/// How long reading the policy may take; the users that it names may be in a directory that does not answer.
const POLICY: Duration = Duration::from_secs(10);

/// The keys of this host as an issuer.
#[async_trait]
pub trait Keys: Send + Sync + std::fmt::Debug {
    /// Their public halves, the one that signs first. Makes none.
    ///
    /// # Errors
    /// Why they cannot be used, or that there are none.
    async fn published(&self) -> Result<Value, RotationError>;
}

/// By what it looks: what the daemon itself goes by.
#[derive(Debug)]
pub struct Ways {
    /// Connections.
    pub upstream: Arc<Upstream>,
    /// Look-ups, which remember nothing.
    pub names: Arc<dyn Lookup>,
    /// Tokens.
    pub minter: Arc<dyn Minter>,
    /// The keys that they are signed with.
    pub keys: Arc<dyn Keys>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The name of BigQuery's API.
    pub api: String,
    /// Whether this is a command, and no daemon: what the kernel refuses to everybody but a daemon it refuses to this as well.
    pub is_alone: bool,
}

/// The doctor.
#[derive(Debug)]
pub struct Doctor {
    config: Config,
    /// The configuration's, as it was read.
    digest: String,
    ways: Ways,
    /// One look at a time.
    turn: Mutex<()>,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which agent, or the estimator by its name; absent: of all.
    pub agent: Option<AgentName>,
    /// The digest of the configuration that whoever asks has read.
    pub digest: String,
}

/// Somebody who is minted for.
#[derive(Debug, Clone, Copy)]
struct Who<'a> {
    bearer: Bearer,
    name: &'a AgentName,
    minter: MinterKind,
    account: Option<&'a str>,
    quota_project: Option<&'a str>,
}

/// Where checks go.
#[derive(Debug)]
struct Told {
    to: mpsc::Sender<Check>,
    count: usize,
}

impl Doctor {
    /// A doctor of this configuration, whose digest ([`Config::digest`]) was taken when it was read.
    #[must_use]
    pub fn new(config: Config, digest: String, ways: Ways) -> Self {
        Self {
            config,
            digest,
            ways,
            turn: Mutex::default(),
        }
    }

    /// Looks, and sends what it finds as it finds it, at most [`CHECKS_MAX`] checks. Ends early where nobody receives them any more. `None` where
    /// another look is under way.
    pub async fn examine(&self, asked: Asked, to: mpsc::Sender<Check>) -> Option<()> {
        let _turn = self.turn.try_lock().ok()?;
        let mut told = Told { to, count: 0 };
        let policy = self.files(&asked, &mut told).await;
        let plan = self.plan(policy.as_ref(), &mut told).await;
        let cures = Cures {
            config: &self.config,
            plan: plan.as_ref(),
            is_alone: self.ways.is_alone,
        };
        let whos = self.whos(asked.agent.as_ref());
        let reached = self.reach(&whos, &cures, &mut told).await;
        let has_key = self.issuer(&whos, &reached, &mut told).await;
        for who in &whos {
            if told.is_over() {
                break;
            }
            let token = self.token(who, (&reached, has_key), &cures, &mut told);
            let token = token.await;
            let at = data::At {
                who,
                token: token.as_ref(),
                has_api: reached.has_api(),
                cures: &cures,
            };
            self.projects(&at, policy.as_ref(), &mut told).await;
            self.datasets(&at, policy.as_ref(), &mut told).await;
            self.ways.upstream.forget(POOL_KEY);
        }
        Some(())
    }

    /// The files, and whether those who are asked for are in them.
    async fn files(&self, asked: &Asked, told: &mut Told) -> Option<Policy> {
        let config = &self.config;
        let said = format!("host {}, agents: {}", config.host, config.agents.len());
        told.ok(Link::Files, "configuration", &said).await;
        if self.digest != asked.digest {
            let said = "the daemon was started with another one than the file has now; looked at is the daemon's";
            let cure = "restart the daemon for it to go by the file";
            told.say(Mark::Note, Link::Files, "configuration", said, Some(cure))
                .await;
        }
        if self.ways.is_alone {
            let said = format!(
                "none answers at {}, so this command looks by itself; where this host is enforced on, the kernel refuses it BigQuery",
                config.socket().display()
            );
            told.say(
                Mark::Note,
                Link::Files,
                "daemon",
                &said,
                Some("start it: enforcer daemon"),
            )
            .await;
        }
        if let Some(agent) = &asked.agent
            && self.whos(Some(agent)).is_empty()
        {
            let said = "the configuration has no such agent, and no estimator of that name";
            let cure =
                format!("enforcer check --config FILE lists those that {agent} is not among");
            told.fail(Link::Files, &format!("agent {agent}"), said, &cure)
                .await;
        }
        let read = config.clone();
        let read = tokio::task::spawn_blocking(move || read.load_policy());
        let why = match tokio::time::timeout(POLICY, read).await {
            Ok(Ok(Ok(policy))) => {
                let said = format!("rules: {}", policy.rules.len());
                told.ok(Link::Files, "policy", &said).await;
                return Some(policy);
            }
            Ok(Ok(Err(error))) => Causes(&error).to_string(),
            Ok(Err(_)) => "reading it failed".to_owned(),
            Err(_) => format!(
                "reading it took longer than {} s; does the directory answer that knows its users?",
                POLICY.as_secs()
            ),
        };
        let cure = format!("correct {}", config.policy.display());
        told.fail(Link::Files, "policy", &why, &cure).await;
        None
    }

    /// What Google is to be told, for the cures.
    async fn plan(&self, policy: Option<&Policy>, told: &mut Told) -> Option<Plan> {
        match Plan::of(&self.config, policy?) {
            Ok(plan) => Some(plan),
            Err(error) => {
                let cure =
                    "name the provider in `token.audience` as `enforcer gcp setup` has made it";
                let said = Causes(&error).to_string();
                told.fail(Link::Files, "token.audience", &said, cure).await;
                None
            }
        }
    }

    /// Those who are minted for, all or the one of this name.
    fn whos(&self, only: Option<&AgentName>) -> Vec<Who<'_>> {
        let agents = self.config.agents.iter().map(Who::of_agent);
        let estimator = self.config.estimator.iter().map(Who::of_estimator);
        agents
            .chain(estimator)
            .filter(|who| only.is_none_or(|only| only == who.name))
            .collect()
    }

    /// Whether any of these has assertions signed by this host.
    fn federates(&self, whos: &[Who<'_>]) -> bool {
        let is_issuer = matches!(self.config.token, TokenSource::Federation { .. });
        is_issuer && whos.iter().any(|who| who.minter == MinterKind::Federation)
    }
}

impl<'a> Who<'a> {
    fn of_agent(agent: &'a Agent) -> Self {
        Self {
            bearer: Bearer::Agent,
            name: &agent.name,
            minter: agent.minter,
            account: agent.service_account.as_deref(),
            quota_project: agent.quota_project.as_deref(),
        }
    }

    fn of_estimator(estimator: &'a Estimator) -> Self {
        Self {
            bearer: Bearer::Estimator,
            name: &estimator.name,
            minter: estimator.minter,
            account: estimator.service_account.as_deref(),
            quota_project: estimator.quota_project.as_deref(),
        }
    }

    /// The same for the plan of what Google is told.
    fn somebody(&self) -> Somebody<'a> {
        Somebody {
            is_estimator: self.bearer == Bearer::Estimator,
            name: self.name.as_str(),
            minter: self.minter,
            account: self.account,
        }
    }

    /// Whether a rule is about them: the estimator looks at whatever any agent may ask for.
    fn is_of(&self, rule: &Rule) -> bool {
        match self.bearer {
            Bearer::Agent => rule.agents.contains(self.name),
            Bearer::Estimator => true,
        }
    }
}

impl std::fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.bearer {
            Bearer::Agent => "agent",
            Bearer::Estimator => "estimator",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl Told {
    async fn ok(&mut self, link: Link, of: &str, said: &str) {
        self.say(Mark::Ok, link, of, said, None).await;
    }

    async fn fail(&mut self, link: Link, of: &str, said: &str, cure: &str) {
        self.say(Mark::Fail, link, of, said, Some(cure)).await;
    }

    async fn not_tried(&mut self, link: Link, of: &str, why: &str) {
        self.say(Mark::NotTried, link, of, why, None).await;
    }

    async fn say(&mut self, mark: Mark, link: Link, of: &str, said: &str, cure: Option<&str>) {
        let check = match self.count {
            ..CHECKS_LAST => Check::new(mark, link, of, said, cure),
            // Not all is known to be well, so this is no success.
            CHECKS_LAST => Check::new(
                Mark::Fail,
                link,
                of,
                &format!("there are more than {CHECKS_MAX} checks, and the rest is not tried"),
                Some("look at one agent at a time: --agent NAME"),
            ),
            _ => return,
        };
        self.count += 1;
        // Where nobody receives it any more, the next look at `is_over` ends this.
        let _ = self.to.send(check).await;
    }

    /// Whether no more can be said.
    fn is_over(&self) -> bool {
        self.count > CHECKS_LAST || self.to.is_closed()
    }
}

/// The number of the last check, which says that there would be more.
const CHECKS_LAST: usize = CHECKS_MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_the_bound_one_check_says_so_and_is_no_success_and_nothing_follows() {
        let (to, mut checks) = mpsc::channel(2 * CHECKS_MAX);
        let mut told = Told { to, count: 0 };
        for _ in 0..CHECKS_MAX + 10 {
            told.ok(Link::Dataset, "p.d", "allowed").await;
        }
        assert!(told.is_over());
        drop(told);
        let mut said = Vec::new();
        while let Some(check) = checks.recv().await {
            said.push(check);
        }
        assert_eq!(said.len(), CHECKS_MAX);
        let last = said.pop().expect("one");
        assert_eq!(last.mark, Mark::Fail);
        assert!(last.to_string().contains("--agent NAME"), "{last}");
        assert!(said.iter().all(|check| check.mark == Mark::Ok));
    }

    #[tokio::test]
    async fn a_look_that_nobody_receives_is_over() {
        let (to, checks) = mpsc::channel(1);
        let told = Told { to, count: 0 };
        assert!(!told.is_over());
        drop(checks);
        assert!(told.is_over());
    }
}
