//! `enforcer why`: what the log has on why something was allowed or refused, as text or as JSON.

use enforcer_proto::audit::Record;
use enforcer_proto::event::About;
use enforcer_proto::search::Filter;
use enforcer_proto::text::wrapped;
use enforcer_proto::why::{self, Facts, Id, Outcome, Records};
use serde_json::{Map, Value, json};

use super::line_of;
use super::source::Source;
use crate::cli::Failure;

/// How wide SQL and sentences are shown, characters.
const WIDTH: usize = 100;

impl Records for Source {
    type Error = Failure;

    fn each(
        &self,
        filter: Filter,
        limit: Option<u32>,
        each: &mut dyn FnMut(&Record),
    ) -> Result<(), Failure> {
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self::each(self, filter, limit, &mut |record, _| {
            each(record);
            Ok(())
        })
    }
}

/// Explains `id`.
pub(super) fn why(source: &Source, id: Id, json: bool) -> Result<(), Failure> {
    let records = why::decisions(source, id)?;
    if records.is_empty() {
        return Err(Failure::Other(anyhow::anyhow!(
            "nothing in the log decides on {id}; a refused query has no number of its own: find its record with enforcer log --code CODE"
        )));
    }
    let mut all = Vec::new();
    for record in &records {
        let facts = why::facts(source, record)?;
        if json {
            all.push(as_json(record, &facts)?);
        } else {
            print(record, &facts);
        }
    }
    if json {
        crate::cli::say_json(&json!({"id": id.to_string(), "decisions": all}));
    }
    Ok(())
}

/// The facts behind `record`, by their names.
#[cfg(test)]
pub(super) fn facts_of(
    source: &Source,
    record: &Record,
) -> Result<Vec<(&'static str, String)>, Failure> {
    why::facts(source, record).map(|facts| facts.0)
}

fn print(record: &Record, facts: &Facts) {
    println!(
        "{}: {}",
        Outcome::of(&record.event).word(),
        line_of(record).trim_start()
    );
    let width = facts
        .0
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    for (name, fact) in &facts.0 {
        for (nth, part) in wrapped(fact, WIDTH).iter().enumerate() {
            let name = if nth == 0 { name } else { "" };
            println!("  {name:<width$}  {part}");
        }
    }
    if let Some(sql) = About::of(&record.event).sql {
        println!("  {:<width$}", "sql");
        for part in wrapped(sql, WIDTH) {
            println!("  {:<width$}  | {part}", "");
        }
    }
}

fn as_json(record: &Record, facts: &Facts) -> Result<Value, Failure> {
    let mut named = Map::new();
    for (name, fact) in &facts.0 {
        named.insert(name.replace(' ', "_"), Value::String(fact.clone()));
    }
    Ok(json!({
        "outcome": Outcome::of(&record.event).word(),
        "facts": named,
        "record": serde_json::to_value(record)?,
    }))
}
