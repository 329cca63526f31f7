//! BigQuery's own dry run as the authority on what a query reads. What it does not vouch for is refused.

use enforcer_proto::query::DryRun;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use serde_json::Value;

use super::relations::Relations;

/// The longest sentence of BigQuery's that is passed on, characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// What a query's statistics may say of other things than tables. Anything else it refers to is not judged, so it is refused.
const REFERENCES: [&str; 2] = ["referencedTables", "referencedRoutines"];
/// How such statistics are called.
const REFERRING: [&str; 3] = ["referenced", "ddl", "dcl"];

/// Reads the answer to a dry run; `relations` is what the text names, `outside` says that one of them is not in the scope.
///
/// # Errors
/// [`Code::DryRunRefused`] with BigQuery's words where the text names nothing outside, [`Code::NotVouched`] where the answer does not say
/// what is read, or what `outside` makes.
pub fn read(
    status: u16,
    answer: &Value,
    relations: &Relations,
    outside: impl Fn(&str) -> Refusal,
) -> Result<DryRun, Refusal> {
    if !(200..300).contains(&status) {
        return Err(failed(answer, relations, outside));
    }
    let query = &answer["statistics"]["query"];
    let statement = query["statementType"]
        .as_str()
        .ok_or_else(|| not_vouched("its kind of statement"))?
        .to_owned();
    if statement == "SELECT" {
        nothing_else(query)?;
        agree(relations, &outside)?;
    }
    let tables = list(&query["referencedTables"], "tableId", "the tables it reads")?;
    // BigQuery leaves the list out where there is nothing in it. That is believed only when the text itself names no table.
    if tables.is_empty() && !relations.is_none() {
        return Err(not_vouched("the tables it reads"));
    }
    let routines = list(
        &query["referencedRoutines"],
        "routineId",
        "the routines it calls",
    )?;
    let bytes = answer["statistics"]["totalBytesProcessed"]
        .as_str()
        .or_else(|| query["totalBytesProcessed"].as_str());
    let bytes = bytes
        .and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| not_vouched("the bytes it processes"))?;
    Ok(DryRun {
        statement,
        tables,
        routines,
        bytes,
    })
}

/// Refuses what the text names and the answer should not have let by: a table outside, or a text that cannot be read here at all.
fn agree(relations: &Relations, outside: impl Fn(&str) -> Refusal) -> Result<(), Refusal> {
    match relations {
        Relations::None | Relations::Within => Ok(()),
        Relations::Outside(table) => Err(outside(&format!("table {table}"))),
        Relations::Unknown => Err(Refusal::new(
            Code::NotVouched,
            "The text is no query that can be read here, so it cannot be compared with BigQuery's dry run",
        )),
    }
}

/// BigQuery's own refusal. Its words tell of the tables it looked at, so they are kept back where the text names one that is not the
/// window's to know of; and a table that is not there is refused like one that is.
fn failed(answer: &Value, relations: &Relations, outside: impl Fn(&str) -> Refusal) -> Refusal {
    let message = answer["error"]["message"]
        .as_str()
        .unwrap_or("it gave no reason");
    let words = match relations {
        Relations::Within => message,
        Relations::Outside(table) => return outside(&format!("table {table}")),
        Relations::None => message,
        // What is wrong with the text alone tells of no table.
        Relations::Unknown if message.starts_with("Syntax error") => message,
        Relations::Unknown => {
            "its words are kept back, since they may tell of tables outside the window"
        }
    };
    let words: String = words.chars().take(MESSAGE_CHARS_MAX).collect();
    Refusal::new(
        Code::DryRunRefused,
        format!("BigQuery refused the dry run of the query: {words}"),
    )
}

/// Refuses statistics that refer to things of a kind that is not judged.
fn nothing_else(query: &Value) -> Result<(), Refusal> {
    let statistics = query.as_object().into_iter().flatten();
    let mut other = statistics.filter(|(name, value)| {
        REFERRING.iter().any(|prefix| name.starts_with(prefix))
            && !REFERENCES.contains(&name.as_str())
            && !value.is_null()
            && *value != &Value::Array(Vec::new())
    });
    match other.next() {
        Some((name, _)) => Err(Refusal::new(
            Code::NotVouched,
            format!("BigQuery's dry run says that the query has `{name}`, which is not judged"),
        )),
        None => Ok(()),
    }
}

fn list(list: &Value, id: &str, what: &str) -> Result<Vec<TableRef>, Refusal> {
    match list {
        Value::Array(items) => items.iter().map(|item| reference(item, id)).collect(),
        Value::Null => Ok(Vec::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(not_vouched(what))
        }
    }
}

fn reference(item: &Value, id: &str) -> Result<TableRef, Refusal> {
    let unnamed = || not_vouched("what it reads by its full name");
    let text = |name: &str| item[name].as_str().ok_or_else(unnamed);
    let dataset = DatasetRef::new(text("projectId")?, text("datasetId")?);
    dataset
        .and_then(|dataset| TableRef::new(dataset, text(id).unwrap_or_default()))
        .map_err(|_| unnamed())
}

fn not_vouched(what: &str) -> Refusal {
    Refusal::new(
        Code::NotVouched,
        format!("BigQuery's dry run does not name {what}, so the query cannot be judged"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(tables: &Value) -> Value {
        json!({"statistics": {"totalBytesProcessed": "80", "query": {"statementType": "SELECT", "referencedTables": tables}}})
    }

    fn judged(status: u16, answer: &Value, relations: &Relations) -> Result<DryRun, Refusal> {
        read(status, answer, relations, |what| {
            Refusal::new(Code::ScopeOutside, what)
        })
    }

    fn code(answer: &Value, relations: &Relations) -> Option<Code> {
        judged(200, answer, relations).err().map(|no| no.code)
    }

    #[test]
    fn tables_and_routines_are_read_by_full_name() {
        let mut answer = answer(&json!([{"projectId": "p", "datasetId": "d", "tableId": "t"}]));
        answer["statistics"]["query"]["referencedRoutines"] =
            json!([{"projectId": "p", "datasetId": "hr", "routineId": "f"}]);
        let read = judged(200, &answer, &Relations::Within).expect("vouched");
        assert_eq!(
            (read.tables[0].to_string().as_str(), read.bytes),
            ("p.d.t", 80)
        );
        assert_eq!(read.routines[0].to_string(), "p.hr.f");
    }

    #[test]
    fn an_absent_or_empty_list_is_believed_only_of_a_text_that_names_no_table() {
        for tables in [Value::Null, json!([])] {
            let answer = answer(&tables);
            assert_eq!(code(&answer, &Relations::None), None);
            for relations in [Relations::Within, Relations::Unknown] {
                assert_eq!(code(&answer, &relations), Some(Code::NotVouched));
            }
        }
        // What the text names outside is outside, whatever the dry run says of it.
        let outside = Relations::Outside("p.hr.t".into());
        let named = json!([{"projectId": "p", "datasetId": "d", "tableId": "t"}]);
        assert_eq!(code(&answer(&named), &outside), Some(Code::ScopeOutside));
        assert_eq!(
            code(&answer(&named), &Relations::Unknown),
            Some(Code::NotVouched)
        );
        for tables in [json!([{"datasetId": "d", "tableId": "t"}]), json!("x")] {
            assert_eq!(
                code(&answer(&tables), &Relations::None),
                Some(Code::NotVouched)
            );
        }
    }

    #[test]
    fn what_the_dry_run_refers_to_and_nobody_judges_is_refused() {
        for name in [
            "referencedPropertyGraphs",
            "ddlTargetTable",
            "referencedConnections",
        ] {
            let mut answer = answer(&json!([{"projectId": "p", "datasetId": "d", "tableId": "t"}]));
            answer["statistics"]["query"][name] = json!([{"x": 1}]);
            assert_eq!(
                code(&answer, &Relations::Within),
                Some(Code::NotVouched),
                "{name}"
            );
        }
    }

    #[test]
    fn bigquerys_words_are_passed_on_only_where_they_tell_of_nothing_outside() {
        let said = |message: &str, relations: &Relations| {
            let answer = json!({"error": {"message": message}});
            let refusal = judged(400, &answer, relations).expect_err("refused");
            (refusal.code, refusal.what)
        };
        let words = "Unrecognized name: x; did you mean salary?";
        for relations in [Relations::Within, Relations::None] {
            let (code, what) = said(words, &relations);
            assert!(code == Code::DryRunRefused && what.contains(words));
        }
        let (code, what) = said(words, &Relations::Unknown);
        assert!(
            code == Code::DryRunRefused && !what.contains("salary"),
            "{what}"
        );
        let (_, what) = said("Syntax error: Expected end of input", &Relations::Unknown);
        assert!(what.contains("Syntax error"));
        // Whether it is there or not, a table outside is refused alike.
        let outside = Relations::Outside("p.hr.nosuch".into());
        assert_eq!(
            said("Not found: Table p:hr.nosuch", &outside),
            (Code::ScopeOutside, "table p.hr.nosuch".to_owned())
        );
    }
}
