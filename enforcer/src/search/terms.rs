//! Under which terms the index keeps a record, and which of them a search asks for. A term may stand for more than is wanted (it knows no case
//! of letters): what is found is judged by the filter once more.

use std::collections::BTreeSet;
use std::fmt::Write;

use enforcer_proto::audit::Record;
use enforcer_proto::event::About;
use enforcer_proto::principal::AgentName;
use enforcer_proto::scope::TableRef;
use enforcer_proto::search::{Filter, words};

/// What the index takes as part of a term besides letters, digits and what is not ASCII.
pub(super) const TERM_CHARS: &str = "-_.=%";
/// The most pairs of words that the index is asked for; the rest is judged on the record.
const PAIRS_ASKED_MAX: usize = 24;

/// The terms of a record, `owner` being the agent of a window that it names without its agent. One line, separated by blanks.
pub(super) fn of_record(record: &Record, owner: Option<&AgentName>) -> String {
    let about = About::of(&record.event);
    let mut terms = BTreeSet::new();
    terms.insert(term("k", record.event.kind()));
    terms.extend(about.agent.or(owner).map(|agent| term("a", agent.as_str())));
    terms.extend(about.grant.map(|id| term("i", &id.to_string())));
    terms.extend(about.request.map(|id| term("i", &id.to_string())));
    terms.extend(about.query.map(|id| term("i", &id.to_string())));
    terms.extend(about.session.map(|id| term("i", &id.to_string())));
    terms.extend(about.code.map(|code| term("c", code.as_str())));
    for dataset in &about.datasets {
        terms.insert(term("d", &dataset.to_string()));
    }
    for table in &about.tables {
        terms.insert(term("d", &table.dataset().to_string()));
        terms.insert(term("t", &whole(table)));
    }
    if let Some(sql) = about.sql {
        let words: Vec<String> = words(sql).collect();
        terms.extend(words.windows(2).map(pair));
        terms.extend(words);
    }
    terms.into_iter().collect::<Vec<_>>().join(" ")
}

/// What to ask the index for; `None` where it knows of nothing that this filter asks.
pub(super) fn of_filter(filter: &Filter) -> Option<String> {
    let mut terms = BTreeSet::new();
    terms.extend(filter.kind.iter().map(|kind| term("k", kind)));
    terms.extend(filter.agent.iter().map(|agent| term("a", agent.as_str())));
    terms.extend(filter.grant.map(|id| term("i", &id.to_string())));
    terms.extend(filter.request.map(|id| term("i", &id.to_string())));
    terms.extend(filter.query.map(|id| term("i", &id.to_string())));
    terms.extend(filter.session.map(|id| term("i", &id.to_string())));
    terms.extend(filter.code.map(|code| term("c", code.as_str())));
    terms.extend(
        filter
            .dataset
            .iter()
            .map(|dataset| term("d", &dataset.to_string())),
    );
    terms.extend(filter.table.iter().map(|table| term("t", &whole(table))));
    if let Some(words) = &filter.sql {
        match words.as_slice() {
            [word] => terms.extend([word.clone()]),
            words => terms.extend(words.windows(2).take(PAIRS_ASKED_MAX).map(pair)),
        }
    }
    if terms.is_empty() {
        return None;
    }
    let quoted: Vec<String> = terms.iter().map(|term| format!("\"{term}\"")).collect();
    Some(quoted.join(" AND "))
}

fn whole(table: &TableRef) -> String {
    let name = table.table().split(['$', '@']).next().unwrap_or_default();
    format!("{}.{name}", table.dataset())
}

/// Two words that stand one after another. Texts have most words in common, and few of these: without them a search for such words would
/// read every record.
fn pair(words: &[String]) -> String {
    words.join("%")
}

/// A term that is no word of any text: it has a `=`.
fn term(kind: &str, value: &str) -> String {
    let mut term = format!("{kind}=");
    for c in value.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
            term.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(term, "%{:x}", u32::from(c));
        }
    }
    term
}
