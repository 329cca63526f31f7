//! Which way a connection goes, by whose it is and which server its hello names. Pure; nothing goes anywhere by default.

use std::collections::BTreeSet;

use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};

use super::asking::Asks;
use super::tls::ProtectedNames;
use crate::executables::Executables;

/// What the configuration says of one agent's connections.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Names besides BigQuery's that it may reach; normalised.
    pub allow: BTreeSet<String>,
    /// Without a window its connections to BigQuery end, instead of being answered with why.
    pub is_dropped: bool,
    /// What its queries do without a window.
    pub asks: Option<Asks>,
    /// What its processes must run.
    pub executables: Executables,
}

/// Who connected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'a> {
    /// An agent, its rules, whether it has an open window, and why this process of its goes nowhere, if so.
    Agent {
        agent: &'a AgentName,
        rules: Option<&'a Rules>,
        has_window: bool,
        barred: Option<&'a Refusal>,
    },
    /// A process in no agent's workload.
    Nobody,
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// To BigQuery: every request is judged.
    BigQuery,
    /// To another name, which the agent is allowed: only that the requests are for that name is judged.
    Allowed,
    /// To where it wanted, untouched.
    Splice,
    /// Nowhere.
    Refused(Refusal),
}

/// Chooses the way of a connection whose hello names `name`, which is normalised.
pub(super) fn way(name: &str, protected: &ProtectedNames, who: Who<'_>) -> Way {
    let is_protected = protected.contains(name);
    match who {
        Who::Nobody if protected.is_bigquerys(name) => {
            let what = format!("{name} is BigQuery's, and the process is in no agent's workload");
            Way::Refused(Refusal::new(Code::CallerUnknown, what))
        }
        Who::Nobody => Way::Splice,
        Who::Agent {
            agent,
            rules,
            has_window,
            ..
        } if is_protected => {
            // What bars the process is said in the answer to each of its requests.
            if has_window || rules.is_some_and(|rules| !rules.is_dropped) {
                return Way::BigQuery;
            }
            let what = format!("Agent {agent} has no open window");
            Way::Refused(Refusal::new(Code::WindowNone, what))
        }
        Who::Agent {
            barred: Some(refusal),
            ..
        } => Way::Refused(refusal.clone()),
        Who::Agent {
            rules: Some(rules), ..
        } if rules.allow.contains(name) => Way::Allowed,
        Who::Agent { agent, .. } => {
            let what = format!("{name} is not among the names that agent {agent} may reach");
            Way::Refused(Refusal::new(Code::HostNotAllowed, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, who: Who<'_>) -> Result<Way, Code> {
        let protected = ["bigquery.googleapis.com", "www.googleapis.com"].map(str::to_owned);
        match way(name, &protected.into_iter().collect(), who) {
            Way::Refused(refusal) => Err(refusal.code),
            way @ (Way::BigQuery | Way::Allowed | Way::Splice) => Ok(way),
        }
    }

    #[test]
    fn who_is_nobody_reaches_every_name_but_bigquerys() {
        for name in [
            "bigquery.googleapis.com",
            "www.googleapis.com",
            // Not on the list of protected names, but BigQuery's all the same.
            "bigquery.mars-north1.rep.googleapis.com",
            "mars-north1-bigquery.googleapis.com",
            "bigquerystorage.mtls.googleapis.com",
            "bigquery-psc.p.googleapis.com",
        ] {
            assert_eq!(
                chosen(name, Who::Nobody),
                Err(Code::CallerUnknown),
                "{name}"
            );
        }
        for name in [
            "storage.googleapis.com",
            "bigquery.example.com",
            "www.google.com",
        ] {
            assert_eq!(chosen(name, Who::Nobody), Ok(Way::Splice), "{name}");
        }
    }

    #[test]
    fn an_agent_reaches_bigquery_and_no_name_that_is_not_on_its_list() {
        let agent: AgentName = "bot".parse().expect("a name");
        let explained = Rules::default();
        let dropped = Rules {
            is_dropped: true,
            allow: ["storage.googleapis.com".to_owned()].into(),
            ..Rules::default()
        };
        let who = |rules, has_window| Who::Agent {
            agent: &agent,
            rules: Some(rules),
            has_window,
            barred: None,
        };
        let bigquery = "bigquery.googleapis.com";
        for has_window in [false, true] {
            assert_eq!(
                chosen(bigquery, who(&explained, has_window)),
                Ok(Way::BigQuery)
            );
            for name in [
                "storage.googleapis.com",
                "mars-north1-bigquery.googleapis.com",
            ] {
                assert_eq!(
                    chosen(name, who(&explained, has_window)),
                    Err(Code::HostNotAllowed)
                );
            }
        }
        assert_eq!(
            chosen("storage.googleapis.com", who(&dropped, false)),
            Ok(Way::Allowed)
        );
        assert_eq!(
            chosen("a.storage.googleapis.com", who(&dropped, false)),
            Err(Code::HostNotAllowed)
        );
        let refusal = Refusal::new(Code::ProgramNotAllowed, "It runs something else");
        let barred = Who::Agent {
            agent: &agent,
            rules: Some(&dropped),
            has_window: true,
            barred: Some(&refusal),
        };
        assert_eq!(
            chosen("storage.googleapis.com", barred),
            Err(Code::ProgramNotAllowed)
        );
        // There it is told why.
        assert_eq!(chosen(bigquery, barred), Ok(Way::BigQuery));
        assert_eq!(chosen(bigquery, who(&dropped, true)), Ok(Way::BigQuery));
        assert_eq!(
            chosen(bigquery, who(&dropped, false)),
            Err(Code::WindowNone)
        );
    }
}
