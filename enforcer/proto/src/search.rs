//! What is looked for in the log. Pure: a filter is data, and says of a record whether it is wanted. It is the one meaning of every search,
//! whether the log is read through or an index says where to look.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::audit::Record;
use crate::event::{About, Event};
use crate::id::{GrantId, QueryId, RequestId, SessionId};
use crate::principal::AgentName;
use crate::refusal::Code;
use crate::scope::{DatasetRef, TableRef};

/// The longest text that is searched for, bytes.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;
/// The most windows of one agent that a search remembers, so as to find the records that name only the window. Later windows push out the
/// oldest.
pub const GRANTS_KEPT: usize = 65_536;

/// Which records are wanted: those that all of this is true of. What is absent is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// What concerns this agent, or a window of its.
    pub agent: Option<AgentName>,
    /// What concerns this window.
    pub grant: Option<GrantId>,
    /// What concerns this request for a window.
    pub request: Option<RequestId>,
    /// What concerns this query.
    pub query: Option<QueryId>,
    /// What happened on this connection.
    pub session: Option<SessionId>,
    /// What concerns this dataset, or a table of it.
    pub dataset: Option<DatasetRef>,
    /// What concerns this table, or a partition of it.
    pub table: Option<TableRef>,
    /// Refusals of this kind.
    pub code: Option<Code>,
    /// Records of this kind, such as `closed`.
    pub kind: Option<String>,
    /// Queries whose text has these words, one after another.
    pub sql: Option<Words>,
    /// Nothing before this, unix time, nanoseconds.
    pub since_unix_ns: Option<u64>,
    /// Nothing from this on, unix time, nanoseconds.
    pub until_unix_ns: Option<u64>,
    /// No record before this one.
    pub first: Option<u64>,
    /// No record after this one.
    pub last: Option<u64>,
}

impl Filter {
    /// Whether nothing is asked but numbers of records: what is wanted is known without looking at it.
    #[must_use]
    pub fn is_of_numbers(&self) -> bool {
        let numbers = Self {
            first: self.first,
            last: self.last,
            ..Self::default()
        };
        *self == numbers
    }

    /// Whether `record` is wanted, `is_agents` being whether its window is known to be the agent's that is asked for.
    fn wants(&self, record: &Record, about: &About<'_>, is_agents: bool) -> bool {
        let in_time = self.since_unix_ns.is_none_or(|at| record.unix_ns >= at)
            && self.until_unix_ns.is_none_or(|at| record.unix_ns < at)
            && self.first.is_none_or(|seq| record.seq >= seq)
            && self.last.is_none_or(|seq| record.seq <= seq);
        in_time
            && (is_agents || is(self.agent.as_ref(), about.agent))
            && is(self.grant, about.grant)
            && is(self.request, about.request)
            && is(self.query, about.query)
            && is(self.session, about.session)
            && is(self.code, about.code)
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| record.event.kind() == kind)
            && self
                .dataset
                .as_ref()
                .is_none_or(|dataset| about.names_dataset(dataset))
            && self
                .table
                .as_ref()
                .is_none_or(|table| about.names_table(table))
            && self
                .sql
                .as_ref()
                .is_none_or(|words| about.sql.is_some_and(|sql| words.are_in(sql)))
    }
}

fn is<T: PartialEq>(wanted: Option<T>, there: Option<T>) -> bool {
    wanted.is_none() || wanted == there
}

/// A search under way: a filter, and what it has learnt on its way through the log.
#[derive(Debug, Clone)]
pub struct Search {
    filter: Filter,
    grants: BTreeSet<GrantId>,
}

impl Search {
    /// A search for what `filter` wants.
    #[must_use]
    pub const fn new(filter: Filter) -> Self {
        Self {
            filter,
            grants: BTreeSet::new(),
        }
    }

    /// The same, where it is known of what was before which windows are the agent's that is asked for: as if it had been shown all of that.
    #[must_use]
    pub fn knowing(filter: Filter, grants: impl IntoIterator<Item = GrantId>) -> Self {
        let mut search = Self::new(filter);
        search.grants.extend(grants);
        while search.grants.len() > GRANTS_KEPT {
            search.grants.pop_first();
        }
        search
    }

    /// What it looks for.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether `record` is wanted. Records are to be shown in their order: some name only a window, whose agent an earlier one named.
    pub fn wants(&mut self, record: &Record) -> bool {
        let about = About::of(&record.event);
        let is_agents = self.filter.agent.is_some() && self.is_of_agent(&record.event, &about);
        self.filter.wants(record, &about, is_agents)
    }

    /// Whether `record` is wanted, where it is known otherwise whose window it names.
    #[must_use]
    pub fn wants_of(&self, record: &Record, owner: Option<&AgentName>) -> bool {
        let about = About::of(&record.event);
        let is_agents =
            about.agent.is_none() && owner.is_some() && owner == self.filter.agent.as_ref();
        self.filter.wants(record, &about, is_agents)
    }

    fn is_of_agent(&mut self, event: &Event, about: &About<'_>) -> bool {
        let Some(grant) = about.grant else {
            return false;
        };
        if matches!(event, Event::Approved { .. }) && about.agent == self.filter.agent.as_ref() {
            self.grants.insert(grant);
            if self.grants.len() > GRANTS_KEPT {
                self.grants.pop_first();
            }
        }
        about.agent.is_none() && self.grants.contains(&grant)
    }
}

/// Words of a query's text: runs of letters, digits and `_`, whatever their case. What stands between them does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words(Vec<String>);

/// A text that cannot be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Nothing to look for.
    #[error("there is no word in it: a search is for words of a query, such as \"finance.daily\"")]
    Empty,
    /// Too much.
    #[error("it is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

impl Words {
    /// The words, in lower case.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether `text` has these words, one directly after another.
    #[must_use]
    pub fn are_in(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_first() else {
            return true;
        };
        let mut found = words(text);
        while let Some(word) = found.next() {
            let mut after = found.clone();
            if word == *first && rest.iter().all(|next| after.next().as_ref() == Some(next)) {
                return true;
            }
        }
        false
    }
}

impl FromStr for Words {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, WordsError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(WordsError::TooLong);
        }
        let words: Vec<String> = words(text).collect();
        if words.is_empty() {
            Err(WordsError::Empty)
        } else {
            Ok(Self(words))
        }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// The words of a text, in lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> + Clone {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64, event: Event) -> Record {
        Record {
            seq,
            boot_id: "b".into(),
            boot_ns: seq,
            unix_ns: seq,
            event,
            prev: String::new(),
            hash: None,
        }
    }

    fn approved(grant: u64, agent: &str) -> Event {
        Event::Approved {
            request: RequestId(grant),
            grant: GrantId(grant),
            agent: agent.parse().expect("a name"),
            approver: crate::principal::Approver::Person { uid: 1 },
            digest: String::new(),
            scope: "p-one.finance:read".parse().expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            bytes_max: 1,
            queries_max: 1,
            query_bytes_max: None,
            returned_bytes_max: None,
            jobs_at_once_max: None,
            opens_boot_ns: 0,
            closes_boot_ns: 1,
            closes_unix_ns: 1,
            agreed: Vec::new(),
            signer: None,
            rule: None,
            break_glass: None,
        }
    }

    fn cancelled(grant: u64) -> Event {
        Event::JobCancelled {
            grant: GrantId(grant),
            job: crate::query::JobRef {
                project: "p-one".into(),
                job: "j".into(),
                location: None,
            },
            outcome: "cancelled".into(),
            is_settled: None,
        }
    }

    #[test]
    fn what_names_only_a_window_is_found_by_the_agent_of_that_window() {
        let filter = Filter {
            agent: Some("bot".parse().expect("a name")),
            ..Filter::default()
        };
        let mut search = Search::new(filter);
        let found: Vec<u64> = [
            approved(1, "bot"),
            approved(2, "other"),
            cancelled(1),
            cancelled(2),
        ]
        .into_iter()
        .enumerate()
        .map(|(at, event)| record(at as u64 + 1, event))
        .filter(|record| search.wants(record))
        .map(|record| record.seq)
        .collect();
        assert_eq!(found, [1, 3]);
    }

    #[test]
    fn a_search_that_knows_whose_windows_are_is_as_one_that_was_shown_it() {
        let filter = Filter {
            agent: Some("bot".parse().expect("a name")),
            ..Filter::default()
        };
        let mut knowing = Search::knowing(filter, [GrantId(1)]);
        assert!(knowing.wants(&record(9, cancelled(1))));
        assert!(!knowing.wants(&record(10, cancelled(2))));
    }

    #[test]
    fn a_dataset_is_found_where_it_is_granted_and_a_period_ends_before_its_end() {
        let wants = |filter: Filter| Search::new(filter).wants(&record(5, approved(1, "bot")));
        let dataset = |text: &str| Filter {
            dataset: Some(text.parse().expect("a dataset")),
            ..Filter::default()
        };
        assert!(wants(dataset("p-one.finance")));
        assert!(!wants(dataset("p-one.hr")));
        let period = |since, until| Filter {
            since_unix_ns: Some(since),
            until_unix_ns: Some(until),
            ..Filter::default()
        };
        assert!(wants(period(5, 6)));
        assert!(!wants(period(4, 5)) && !wants(period(6, 9)));
        let kind = |kind: &str| Filter {
            kind: Some(kind.into()),
            ..Filter::default()
        };
        assert!(wants(kind("approved")) && !wants(kind("closed")));
    }

    #[test]
    fn words_are_found_in_their_order_whatever_stands_between_them() {
        let found = |words: &str, text: &str| words.parse::<Words>().expect("words").are_in(text);
        let text = "SELECT SUM(amount) FROM `p.finance.daily` WHERE day_1 = 'ÄRA'";
        for words in [
            "finance.daily",
            "finance daily where",
            "sum(AMOUNT)",
            "day_1",
            "ära",
        ] {
            assert!(found(words, text), "{words}");
        }
        for words in ["daily finance", "finance where", "day", "amoun"] {
            assert!(!found(words, text), "{words}");
        }
        assert_eq!("!?".parse::<Words>(), Err(WordsError::Empty));
    }

    proptest! {
        #[test]
        fn every_run_of_words_of_a_text_is_found_in_it(text in "[a-zA-Zé_0-9 .,`'()]{1,60}", from in 0_usize..8, count in 1_usize..4) {
            let all: Vec<String> = words(&text).collect();
            let some: Vec<String> = all.iter().skip(from).take(count).cloned().collect();
            prop_assume!(!some.is_empty());
            prop_assert!(some.join(".").parse::<Words>().expect("words").are_in(&text));
        }
    }
}
