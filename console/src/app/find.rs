//! What is looked for in the daemon's whole log, as it is typed: `agent=finance-bot code=scope.outside`. And what was found. Only reads a text.

use std::fmt::Display;
use std::str::FromStr;

use enforcer_proto::event::kind_named;
use enforcer_proto::search::Filter;
use serde::{Deserialize, Serialize};

use super::tail::Entry;

/// What may be asked, each with what is to stand behind it.
pub(crate) const FORMS: &str = "agent=NAME window=g-1 request=r-1 query=q-1 session=s-1 dataset=PROJECT.DATASET table=PROJECT.DATASET.TABLE code=CODE \
     kind=KIND sql=WORDS (to the end of the line)";

/// What was found in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The oldest, where there are more than are shown.
    pub(crate) first: Vec<Entry>,
    /// The newest, the oldest of them first; all, where nothing is left out.
    pub(crate) newest: Vec<Entry>,
    /// Whether there are more between.
    pub(crate) is_cut: bool,
}

impl Found {
    /// All that there is.
    pub(crate) const fn all(newest: Vec<Entry>) -> Self {
        Self {
            first: Vec::new(),
            newest,
            is_cut: false,
        }
    }

    /// The oldest and the newest of more. Where they meet, they are all.
    pub(crate) fn ends(mut first: Vec<Entry>, newest: Vec<Entry>) -> Self {
        let (count, begin) = (first.len(), newest.first().map(|entry| entry.record.seq));
        first.retain(|entry| Some(entry.record.seq) < begin);
        let is_cut = first.len() == count;
        Self {
            first,
            newest,
            is_cut,
        }
    }
}

/// Reads such a text.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub(crate) fn filter_of(text: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("what is to be found? {FORMS}"));
    }
    while !rest.is_empty() {
        let (name, behind) = rest
            .split_once('=')
            .ok_or_else(|| format!("`{rest}` asks nothing; there are: {FORMS}"))?;
        if name == "sql" {
            filter.sql = Some(read(name, behind)?);
            break;
        }
        let (value, next) = behind
            .split_once(char::is_whitespace)
            .unwrap_or((behind, ""));
        match name {
            "agent" => filter.agent = Some(read(name, value)?),
            "window" => filter.grant = Some(read(name, value)?),
            "request" => filter.request = Some(read(name, value)?),
            "query" => filter.query = Some(read(name, value)?),
            "session" => filter.session = Some(read(name, value)?),
            "dataset" => filter.dataset = Some(read(name, value)?),
            "table" => filter.table = Some(read(name, value)?),
            "code" => filter.code = Some(read(name, value)?),
            "kind" => {
                let kind = kind_named(value).map_err(|why| why.to_string())?;
                filter.kind = Some(kind.to_owned());
            }
            _ => return Err(format!("`{name}` asks nothing; there are: {FORMS}")),
        }
        rest = next.trim_start();
    }
    Ok(filter)
}

fn read<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|why| format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_typed_is_asked_for_together() {
        let filter =
            filter_of("agent=finance-bot  code=scope.outside kind=query_refused").expect("reads");
        assert_eq!(filter.agent.expect("one").as_str(), "finance-bot");
        assert_eq!(filter.code.expect("one").as_str(), "scope.outside");
        assert_eq!(filter.kind.as_deref(), Some("query_refused"));
        let filter = filter_of("window=g-3 sql=FROM hr.salaries WHERE x = 1").expect("reads");
        assert_eq!(filter.grant.expect("one").to_string(), "g-3");
        let sql = filter.sql.expect("words").to_string();
        assert_eq!(sql, "from hr salaries where x 1");
    }

    #[test]
    fn what_asks_nothing_is_said_to() {
        for (text, said) in [
            ("", "what is to be found?"),
            ("finance", "`finance` asks nothing"),
            ("agnt=x", "`agnt` asks nothing"),
            ("code=nonsense", "code: "),
            ("kind=nonsense", "no kind of event"),
            ("window=7", "window: "),
            ("sql=", "sql: "),
        ] {
            let why = filter_of(text).expect_err(text);
            assert!(why.contains(said), "{text}: {why}");
        }
    }
}
