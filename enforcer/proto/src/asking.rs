//! A request that no process typed: what is recorded and shown of the query that it was made of. Pure; which tables a query needs is found elsewhere.

use serde::{Deserialize, Serialize};

use crate::audit::sha256_hex;
use crate::event::SqlCut;
use crate::policy::Ask;
use crate::query::Method;
use crate::refusal::{Code, Refusal};
use crate::scope::{Scope, TableRef};
use crate::size;
use crate::text::{safe_line, shorten};
use crate::time::Ttl;

/// The most requests of one agent, made of its queries, that wait at once; one more is refused as `request.too_many`.
pub const OF_QUERIES_PER_AGENT_MAX: usize = 4;
/// The most of all agents; one more is refused as `request.too_many`.
pub const OF_QUERIES_MAX: usize = 256;
/// The most SQL that a request made of a query holds, bytes. Of a longer text it holds the beginning, the length and the SHA-256.
pub const SQL_BYTES_MAX: usize = 8 * 1024;
/// The most tables, and the most routines, that an estimate names; those past it are counted.
pub const ESTIMATE_TABLES_MAX: usize = 32;
/// The longest sentence on what is wrong with an estimate, bytes; a longer one is shortened.
pub const ESTIMATE_TROUBLE_BYTES_MAX: usize = 1024;
/// How many tables and routines are named in a line for people.
const ESTIMATE_SHOWN: usize = 8;
/// How much of the text is the request's reason, characters.
const REASON_SQL_CHARS: usize = 300;

/// The query that a request was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromQuery {
    /// The API method.
    pub method: Method,
    /// The SQL text, where it has one; its beginning where `sql_cut` says so.
    pub sql: Option<String>,
    /// What was cut off.
    pub sql_cut: Option<SqlCut>,
    /// Whether BigQuery's dry run said what it reads. Else the request names what the text does: what a view reads is not among it.
    pub is_verified: bool,
    /// What that dry run said, or why it said nothing, where it was asked. For approvers; never for the agent.
    #[serde(default)]
    pub estimate: Option<Estimate>,
    /// What the request would be by the text alone, where the dry run said what it is: this is what the agent is shown of it.
    #[serde(default)]
    pub named: Option<Named>,
}

/// What BigQuery's dry run says of a query, asked under the daemon's own identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The bytes that it would process, where that is known.
    pub bytes: Option<u64>,
    /// The tables that it would read, views expanded; the first [`ESTIMATE_TABLES_MAX`].
    pub tables: Vec<TableRef>,
    /// The routines that it would call, named like tables; as many.
    pub routines: Vec<TableRef>,
    /// How many more of either there are.
    pub left_out: u64,
    /// Why the request is made of the text alone, where it is.
    pub failed: Option<String>,
}

impl Estimate {
    /// An estimate that says only why there is none.
    #[must_use]
    pub fn failed(why: &str) -> Self {
        let mut made = Self {
            failed: Some(safe_line(why, ESTIMATE_TROUBLE_BYTES_MAX)),
            ..Self::default()
        };
        made.bound();
        made
    }

    /// Cuts what is too long, and counts it.
    pub fn bound(&mut self) {
        for list in [&mut self.tables, &mut self.routines] {
            let more = list.len().saturating_sub(ESTIMATE_TABLES_MAX);
            list.truncate(ESTIMATE_TABLES_MAX);
            self.left_out = self.left_out.saturating_add(more as u64);
        }
        if let Some(failed) = &mut self.failed {
            shorten(failed, ESTIMATE_TROUBLE_BYTES_MAX);
        }
    }

    /// For people, in one line.
    #[must_use]
    pub fn said(&self) -> String {
        let mut said = Vec::new();
        if let Some(bytes) = self.bytes {
            said.push(size::whole(bytes));
        }
        for (what, list) in [("tables", &self.tables), ("routines", &self.routines)] {
            if list.is_empty() {
                continue;
            }
            let named = list.iter().take(ESTIMATE_SHOWN);
            let named: Vec<String> = named
                .map(|table| safe_line(&table.to_string(), 200))
                .collect();
            said.push(format!("{what} {}", named.join(", ")));
        }
        let unsaid = |list: &Vec<TableRef>| list.len().saturating_sub(ESTIMATE_SHOWN) as u64;
        let more = unsaid(&self.tables)
            .saturating_add(unsaid(&self.routines))
            .saturating_add(self.left_out);
        if more > 0 {
            said.push(format!("and {more} more"));
        }
        let failed = self.failed.as_ref();
        let failed = failed.map(|why| safe_line(why, ESTIMATE_TROUBLE_BYTES_MAX));
        match (said.is_empty(), failed) {
            (true, Some(why)) => format!("the dry run says nothing: {why}"),
            (true, None) => "the dry run says nothing".to_owned(),
            (false, Some(why)) => format!("the dry run says: {}; but {why}", said.join(", ")),
            (false, None) => format!("the dry run says: {}", said.join(", ")),
        }
    }
}

/// A request as a query's text alone would make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// What the text names.
    pub scope: Scope,
    /// For how long a window would be asked for that.
    pub ttl: Ttl,
    /// The policy rule that covers it.
    pub rule: u32,
}

impl Named {
    /// `ask` as the text alone would have made it.
    #[must_use]
    pub fn as_ask(&self, ask: &Ask) -> Ask {
        Ask {
            scope: self.scope.clone(),
            ttl: self.ttl,
            ..ask.clone()
        }
    }
}

impl FromQuery {
    /// The query of this method and text, read from its text alone.
    #[must_use]
    pub fn of_text(method: Method, sql: Option<&str>) -> Self {
        let mut made = Self {
            method,
            sql: sql.map(str::to_owned),
            sql_cut: None,
            is_verified: false,
            estimate: None,
            named: None,
        };
        made.bound();
        made
    }

    /// Cuts what is too long; the text without a mark.
    pub fn bound(&mut self) {
        self.estimate.iter_mut().for_each(Estimate::bound);
        let Some(sql) = self.sql.as_mut().filter(|sql| sql.len() > SQL_BYTES_MAX) else {
            return;
        };
        self.sql_cut = Some(SqlCut {
            bytes: sql.len() as u64,
            sha256: sha256_hex(sql.as_bytes()),
        });
        sql.truncate(sql.floor_char_boundary(SQL_BYTES_MAX));
    }

    /// Why the request was made, for people.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.sql {
            Some(sql) => format!(
                "made of a query ({}): {}",
                self.method,
                safe_line(sql.trim(), REASON_SQL_CHARS)
            ),
            None => format!("made of a call of {}", self.method),
        }
    }

    /// How far its scope can be trusted, for people.
    #[must_use]
    pub const fn said(&self) -> &'static str {
        if self.is_verified {
            "the datasets are those that BigQuery's dry run names"
        } else {
            "unverified: the datasets are those that its text names, and what a view reads is not among them"
        }
    }

    /// Whether a window of this scope was approved for no more than the text names. It depends on nothing but what its agent is shown.
    #[must_use]
    pub fn is_of_text(&self, scope: &Scope) -> bool {
        let is_named = |named: &Named| scope.is_within(&named.scope);
        !self.is_verified || self.named.as_ref().is_some_and(is_named)
    }

    /// The same as its agent may be shown it: as if BigQuery had not been asked.
    #[must_use]
    pub fn without_estimate(&self) -> Self {
        Self {
            is_verified: false,
            estimate: None,
            named: None,
            ..self.clone()
        }
    }

    /// What an approver is shown of it, as text that differs wherever this does.
    #[must_use]
    pub(crate) fn digested(&self) -> String {
        let cut = self.sql_cut.as_ref().map(|cut| cut.sha256.as_str());
        let text = format!(
            "{} {} {:?} {:?}",
            self.method, self.is_verified, cut, self.sql
        );
        match (&self.estimate, &self.named) {
            (None, None) => text,
            (estimate, named) => format!("{text} {estimate:?} {named:?}"),
        }
    }
}

/// A refusal in a window that was approved for what a query's text names: where something lies outside, as what a view reads does, it says so.
#[must_use]
pub fn beyond_text(is_of_text: bool, refusal: Refusal) -> Refusal {
    if !(is_of_text && refusal.code == Code::ScopeOutside) {
        return refusal;
    }
    let what = format!(
        "{}. It was approved for what the text of a query names, and this reaches further, as a view may",
        refusal.what
    );
    Refusal::new(refusal.code, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(at: usize) -> TableRef {
        format!("p.d.t{at}").parse().expect("a table")
    }

    #[test]
    fn an_estimate_is_said_in_one_line_and_counts_what_it_does_not_name() {
        let mut estimate = Estimate {
            bytes: Some(12_345_678),
            tables: (0..40).map(table).collect(),
            routines: vec!["p.hr.f".parse().expect("a routine")],
            ..Estimate::default()
        };
        estimate.bound();
        assert_eq!((estimate.tables.len(), estimate.left_out), (32, 8));
        let said = estimate.said();
        assert!(
            said.starts_with(
                "the dry run says: 12.3 MB (12 345 678 bytes), tables p.d.t0, p.d.t1, "
            ) && said.ends_with("p.d.t7, routines p.hr.f, and 32 more"),
            "{said}"
        );
        estimate.failed = Some("no rule covers it".into());
        assert!(estimate.said().ends_with("; but no rule covers it"));
        let failed = Estimate::failed("Not found: \u{202e}\u{1b}[2J\nx");
        assert_eq!(
            failed.said(),
            "the dry run says nothing: Not found: \\u{202e}\\u{1b}[2J x"
        );
    }

    #[test]
    fn what_the_agent_is_shown_and_what_it_is_told_later_do_not_depend_on_the_dry_run() {
        let plain = FromQuery::of_text(Method::JobsQuery, Some("SELECT 1"));
        let scope = |text: &str| text.parse::<Scope>().expect("a scope");
        let verified = FromQuery {
            is_verified: true,
            estimate: Some(Estimate {
                bytes: Some(1),
                ..Estimate::default()
            }),
            named: Some(Named {
                scope: scope("p.finance:read"),
                ttl: "5m".parse().expect("a ttl"),
                rule: 1,
            }),
            ..plain.clone()
        };
        let failed = FromQuery {
            estimate: Some(Estimate::failed("it took too long")),
            ..plain.clone()
        };
        for from in [&plain, &verified, &failed] {
            assert_eq!(from.without_estimate(), plain);
            assert!(from.is_of_text(&scope("p.finance:read")));
        }
        assert!(!verified.is_of_text(&scope("p.finance,p.hr:read")));
        let digests: std::collections::BTreeSet<String> = [&plain, &verified, &failed]
            .iter()
            .map(|from| from.digested())
            .collect();
        assert_eq!(digests.len(), 3, "approvers are shown each differently");
    }

    proptest! {
        #[test]
        fn no_estimate_is_longer_than_its_bounds_whatever_it_says(words in ".{0,3000}", count in 0_usize..200) {
            let mut estimate = Estimate::failed(&words);
            estimate.tables = (0..count).map(table).collect();
            estimate.bound();
            prop_assert!(estimate.tables.len() <= ESTIMATE_TABLES_MAX);
            prop_assert_eq!(estimate.left_out, count.saturating_sub(ESTIMATE_TABLES_MAX) as u64);
            prop_assert!(estimate.failed.as_ref().is_some_and(|why| why.len() <= ESTIMATE_TROUBLE_BYTES_MAX));
            let is_safe = !estimate.said().contains(['\n', '\u{1b}', '\u{202e}']);
            prop_assert!(is_safe);
            let once = estimate.clone();
            estimate.bound();
            prop_assert_eq!(estimate, once, "what is within the bounds stays as it is");
        }
    }

    #[test]
    fn a_long_text_is_cut_and_can_be_recognised_and_a_hostile_one_is_made_safe() {
        let sql = format!("SELECT '{}'", "x".repeat(20_000));
        let made = FromQuery::of_text(Method::JobsQuery, Some(&sql));
        let cut = made.sql_cut.as_ref().expect("cut");
        assert_eq!(cut.bytes, sql.len() as u64);
        assert!(
            made.sql
                .as_ref()
                .is_some_and(|kept| kept.len() == SQL_BYTES_MAX)
        );
        let hostile = FromQuery::of_text(Method::JobsQuery, Some("SELECT\u{202e}\u{1b}[2J\n1"));
        assert_eq!(
            hostile.reason(),
            "made of a query (jobs.query): SELECT\\u{202e}\\u{1b}[2J 1"
        );
        assert!(made.reason().chars().count() <= crate::ledger::REASON_CHARS_MAX);
        assert_ne!(made.digested(), hostile.digested());
    }
}
