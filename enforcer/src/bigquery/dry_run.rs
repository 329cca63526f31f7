//! BigQuery's own dry run as the authority on what a query reads. What it does not vouch for is refused.

use enforcer_proto::admission::{EXPORTING, READING, WRITING};
use enforcer_proto::query::{Destination, DryRun, Layout};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use serde_json::Value;

use super::relations::{Reading, Relations};
use super::words;

/// What a query's statistics may say of other things than the tables it reads. Anything else it refers to is not judged, so it is refused.
const REFERENCES: [&str; 4] = [
    "referencedTables",
    "referencedRoutines",
    "ddlTargetTable",
    "ddlOperationPerformed",
];
/// How such statistics are called.
const REFERRING: [&str; 3] = ["referenced", "ddl", "dcl"];

/// Reads the answer to a dry run of `sql`; `reading` is what that text names, `destination` the table that the client wants the result in, `outside`
/// says that a table is not in the scope.
///
/// # Errors
/// [`Code::DryRunRefused`] with BigQuery's words where the text names nothing outside, [`Code::NotVouched`] where the answer does not say
/// what is read, or what `outside` makes.
pub fn read(
    status: u16,
    answer: &Value,
    (sql, reading): (&str, &Reading),
    destination: Option<&Destination>,
    outside: impl Fn(&str) -> Refusal,
) -> Result<DryRun, Refusal> {
    if !(200..300).contains(&status) {
        return Err(failed(answer, sql, reading, outside));
    }
    let query = &answer["statistics"]["query"];
    let statement = query["statementType"]
        .as_str()
        .ok_or_else(|| not_vouched("its kind of statement"))?
        .to_owned();
    let is_writing = WRITING.contains(&statement.as_str());
    let is_export = statement == EXPORTING && reading.export.is_some();
    if statement != READING && !is_writing && !is_export {
        // Its kind alone is why it is refused, whatever it reads.
        return Ok(DryRun::of_kind(statement));
    }
    nothing_else(query)?;
    agree(reading, &outside)?;
    if is_export != reading.export.is_some() {
        return Err(Refusal::new(
            Code::NotVouched,
            "The text is an export and BigQuery's dry run says that it is none",
        ));
    }
    let tables = list(&query["referencedTables"], "tableId", "the tables it reads")?;
    // BigQuery leaves the list out where there is nothing in it. That is believed only when the text itself names no table.
    if tables.is_empty() && reading.reads {
        return Err(not_vouched("the tables it reads"));
    }
    lists_all(reading, &tables)?;
    let named = named_targets(answer)?;
    if is_export && destination.is_some() {
        return Err(Refusal::new(
            Code::NotVouched,
            "An export has no table for its result",
        ));
    }
    let targets = if is_writing {
        vec![target(reading, destination, &named, &tables)?]
    } else {
        results(destination, &named)?
    };
    // A statement that makes or removes a table says so by its kind; others leave columns alone.
    let layout = destination.map_or(Layout::Kept, |destination| destination.layout);
    let routines = list(
        &query["referencedRoutines"],
        "routineId",
        "the routines it calls",
    )?;
    lists_all_called(reading, &routines)?;
    let bytes = answer["statistics"]["totalBytesProcessed"]
        .as_str()
        .or_else(|| query["totalBytesProcessed"].as_str());
    let bytes = bytes
        .and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| not_vouched("the bytes it processes"))?;
    if is_export {
        sizable(answer, &tables, bytes)?;
    }
    Ok(DryRun {
        statement,
        tables,
        routines,
        targets,
        layout,
        to: reading.export.iter().cloned().collect(),
        bytes,
    })
}

/// Refuses an export of which the dry run does not say how much it reads: that is what it takes of the budget of rows.
fn sizable(answer: &Value, tables: &[TableRef], bytes: u64) -> Result<(), Refusal> {
    let accuracy = &answer["statistics"]["query"]["totalBytesProcessedAccuracy"];
    let is_precise = accuracy.is_null() || accuracy == "PRECISE";
    if is_precise && (bytes > 0 || tables.is_empty()) {
        return Ok(());
    }
    Err(not_vouched("how much the export reads"))
}

/// The tables that the dry run says are written, but those of results that nobody named.
fn named_targets(answer: &Value) -> Result<Vec<TableRef>, Refusal> {
    let places = [
        &answer["configuration"]["query"]["destinationTable"],
        &answer["statistics"]["query"]["ddlTargetTable"],
    ];
    let named = places.into_iter().filter(|place| !place.is_null());
    let named: Vec<TableRef> = named
        .map(|place| reference(place, "tableId"))
        .collect::<Result<_, _>>()?;
    let is_anonymous = |table: &TableRef| table.dataset().dataset().starts_with('_');
    Ok(named
        .into_iter()
        .filter(|table| !is_anonymous(table))
        .collect())
}

/// The one table that a statement writes: the text and the dry run must name the same.
fn target(
    reading: &Reading,
    destination: Option<&Destination>,
    named: &[TableRef],
    tables: &[TableRef],
) -> Result<TableRef, Refusal> {
    let disagree = |what: &str| Err(Refusal::new(Code::NotVouched, what));
    if destination.is_some() {
        return disagree("A statement that writes a table has no other table for its result");
    }
    let Some(target) = &reading.target else {
        return disagree("The table that the statement writes cannot be told from its text");
    };
    if named
        .iter()
        .any(|named| !named.is_same_but_for_part(target))
    {
        return disagree("The text and BigQuery's dry run name different tables that are written");
    }
    if named.is_empty() && !tables.contains(target) {
        return Err(not_vouched("the table it writes"));
    }
    Ok(target.clone())
}

/// Where the result of a query goes: the client and the dry run must not name different tables.
fn results(
    destination: Option<&Destination>,
    named: &[TableRef],
) -> Result<Vec<TableRef>, Refusal> {
    let destination = destination.map(|destination| &destination.table);
    let is_same = |named: &TableRef| {
        destination.is_some_and(|destination| named.is_same_but_for_part(destination))
    };
    if named.iter().all(is_same) {
        return Ok(destination.into_iter().cloned().collect());
    }
    Err(Refusal::new(
        Code::NotVouched,
        "BigQuery's dry run says that the result goes to a table that was not asked for",
    ))
}

/// Refuses what the text names and the answer should not have let by: a table outside, or a text that cannot be read here at all.
fn agree(reading: &Reading, outside: impl Fn(&str) -> Refusal) -> Result<(), Refusal> {
    match &reading.relations {
        Relations::None | Relations::Within => Ok(()),
        Relations::Outside(table) => Err(outside(&format!("table {}", reading.shown(table)))),
        Relations::Unknown(why) => Err(why.refusal()),
    }
}

/// Refuses a dry run that leaves out a table which the text names: it tells of another query than the one that would run, or of a table that
/// is another by now.
fn lists_all(reading: &Reading, tables: &[TableRef]) -> Result<(), Refusal> {
    let is_listed = |named: &TableRef| tables.iter().any(|listed| stands_for(listed, named));
    for named in &reading.named {
        let unlisted = match named {
            Ok(table) if is_listed(table) => continue,
            Ok(table) => table.to_string(),
            Err(name) => name.clone(),
        };
        let unlisted = reading.shown(&unlisted);
        return Err(Refusal::new(
            Code::NotVouched,
            format!(
                "The text names {unlisted}, and BigQuery's dry run does not list it among the tables that are read"
            ),
        ));
    }
    Ok(())
}

/// Refuses a dry run that leaves out a routine which the text calls: what a routine reads is judged by what the dry run says of it.
fn lists_all_called(reading: &Reading, routines: &[TableRef]) -> Result<(), Refusal> {
    let mut unlisted = reading.called.iter().filter(|called| {
        !called
            .as_ref()
            .is_ok_and(|called| routines.contains(called))
    });
    let Some(unlisted) = unlisted.next() else {
        return Ok(());
    };
    let unlisted = match unlisted {
        Ok(routine) => words::cut(&routine.to_string()),
        Err(name) => words::cut(name),
    };
    Err(Refusal::new(
        Code::NotVouched,
        format!(
            "The text calls {unlisted}, and BigQuery's dry run does not list it among the routines that are called"
        ),
    ))
}

/// Whether what the dry run lists is what the text names, or part of it: behind a wildcard there are many tables.
fn stands_for(listed: &TableRef, named: &TableRef) -> bool {
    listed.is_same_but_for_part(named) || (named.table().ends_with('*') && named.overlaps(listed))
}

/// BigQuery's own refusal. Its words tell of the tables it looked at, so they are kept back where the text names one that is not the
/// window's to know of, and where they name what the text does not, such as what a view is made of; and a table that is not there is refused
/// like one that is.
fn failed(
    answer: &Value,
    sql: &str,
    reading: &Reading,
    outside: impl Fn(&str) -> Refusal,
) -> Refusal {
    let message = answer["error"]["message"]
        .as_str()
        .unwrap_or("it gave no reason");
    let words = match &reading.relations {
        Relations::Outside(table) => return outside(&format!("table {}", reading.shown(table))),
        Relations::Unknown(why) => return why.refusal(),
        Relations::Within | Relations::None => words::of_dry_run(message, sql, reading),
    };
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
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::bigquery::unread::Unread;

    fn answer(tables: &Value) -> Value {
        json!({"statistics": {"totalBytesProcessed": "80", "query": {"statementType": "SELECT", "referencedTables": tables}}})
    }

    fn judged(status: u16, answer: &Value, relations: &Relations) -> Result<DryRun, Refusal> {
        let reading = Reading {
            rows: BTreeSet::new(),
            may_name_more: false,
            relations: relations.clone(),
            named: Vec::new(),
            called: Vec::new(),
            target: None,
            export: None,
            reads: !relations.is_none(),
        };
        read(status, answer, ("", &reading), None, outside)
    }

    fn outside(what: &str) -> Refusal {
        Refusal::new(Code::ScopeOutside, what)
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
            for relations in [Relations::Within, Relations::Unknown(Unread::Hidden)] {
                assert_eq!(code(&answer, &relations), Some(Code::NotVouched));
            }
        }
        // What the text names outside is outside, whatever the dry run says of it.
        let outside = Relations::Outside("p.hr.t".into());
        let named = json!([{"projectId": "p", "datasetId": "d", "tableId": "t"}]);
        assert_eq!(code(&answer(&named), &outside), Some(Code::ScopeOutside));
        assert_eq!(
            code(&answer(&named), &Relations::Unknown(Unread::Hidden)),
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
    fn a_dry_run_that_leaves_out_a_table_which_the_text_names_is_not_believed() {
        let table = |id: &str| json!({"projectId": "p", "datasetId": "d", "tableId": id});
        let judged = |named: &str, tables: &Value| {
            let named = named.parse().map_err(|_| named.to_owned());
            let reading = Reading {
                rows: BTreeSet::new(),
                may_name_more: false,
                relations: Relations::Within,
                named: vec![named],
                called: Vec::new(),
                target: None,
                export: None,
                reads: true,
            };
            let read = read(200, &answer(tables), ("", &reading), None, outside);
            read.map(|run| run.tables.len()).map_err(|no| no.code)
        };
        for (named, listed) in [
            ("p.d.t", "t"),
            ("p.d.t", "t$20260101"),
            ("p.d.t*", "t*"),
            ("p.d.t*", "t_2026"),
            ("p.d.t_2*", "t_*"),
        ] {
            let listed = json!([table("more"), table(listed)]);
            assert_eq!(judged(named, &listed), Ok(2), "{named}");
        }
        for (named, listed) in [
            ("p.d.view", "t"),
            ("p.d.t", "T"),
            ("p.d.t", "t*"),
            ("p.d.t_*", "other"),
            ("q.d.t", "t"),
            ("p.d.INFORMATION_SCHEMA.t", "t"),
        ] {
            let judged = judged(named, &json!([table(listed)]));
            assert_eq!(judged, Err(Code::NotVouched), "{named}");
        }
    }

    #[test]
    fn a_dry_run_that_leaves_out_a_routine_which_the_text_calls_is_not_believed() {
        let routine = |id: &str| json!({"projectId": "p", "datasetId": "d", "routineId": id});
        let judged = |called: &str, listed: &Value| {
            let reading = Reading {
                rows: BTreeSet::new(),
                may_name_more: false,
                relations: Relations::None,
                named: Vec::new(),
                called: vec![called.parse().map_err(|_| called.to_owned())],
                target: None,
                export: None,
                reads: false,
            };
            let mut answer = answer(&json!([]));
            answer["statistics"]["query"]["referencedRoutines"] = listed.clone();
            let read = read(200, &answer, ("", &reading), None, outside);
            read.map(|run| run.routines.len()).map_err(|no| no.code)
        };
        let listed = json!([routine("f"), routine("more")]);
        assert_eq!(judged("p.d.f", &listed), Ok(2));
        for (called, listed) in [
            ("p.d.g", &listed),
            ("q.d.f", &listed),
            ("a.b.c.d", &listed),
            ("p.d.f", &json!([])),
            ("p.d.f", &Value::Null),
        ] {
            assert_eq!(judged(called, listed), Err(Code::NotVouched), "{called}");
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

    /// A statement that writes `p.d.t`, and reads what the list says.
    fn writing(reads: bool, place: &str, target: &Value, tables: &Value) -> Result<DryRun, Code> {
        let reading = Reading {
            rows: BTreeSet::new(),
            may_name_more: false,
            relations: Relations::Within,
            named: Vec::new(),
            called: Vec::new(),
            target: Some("p.d.t".parse().expect("a table")),
            export: None,
            reads,
        };
        let mut answer = answer(tables);
        answer["statistics"]["query"]["statementType"] = json!("INSERT");
        answer[if place == "ddl" {
            "statistics"
        } else {
            "configuration"
        }]["query"][if place == "ddl" {
            "ddlTargetTable"
        } else {
            "destinationTable"
        }] = target.clone();
        read(200, &answer, ("", &reading), None, outside).map_err(|refusal| refusal.code)
    }

    #[test]
    fn the_table_that_is_written_is_named_by_the_text_and_by_the_dry_run() {
        let table = |id: &str| json!({"projectId": "p", "datasetId": "d", "tableId": id});
        for place in ["ddl", "destination"] {
            let run = writing(false, place, &table("t"), &json!([])).expect("vouched");
            assert_eq!(run.targets, ["p.d.t".parse().expect("a table")]);
            // Part of it is it.
            assert!(writing(false, place, &table("t$20260101"), &json!([])).is_ok());
            let other = writing(false, place, &table("u"), &json!([]));
            assert_eq!(other, Err(Code::NotVouched));
        }
        // It may stand among those that are read, and nowhere it must not.
        assert!(writing(false, "ddl", &Value::Null, &json!([table("t")])).is_ok());
        for tables in [json!([]), json!([table("u")])] {
            let unnamed = writing(false, "ddl", &Value::Null, &tables);
            assert_eq!(unnamed, Err(Code::NotVouched));
        }
        // What it reads besides must be listed.
        let unlisted = writing(true, "ddl", &table("t"), &json!([]));
        assert_eq!(unlisted, Err(Code::NotVouched));
    }

    #[test]
    fn a_result_goes_where_the_client_asked_or_where_nobody_named() {
        let reading = Reading {
            rows: BTreeSet::new(),
            may_name_more: false,
            relations: Relations::Within,
            named: Vec::new(),
            called: Vec::new(),
            target: None,
            export: None,
            reads: true,
        };
        let table: TableRef = "p.d.t".parse().expect("a table");
        let wanted = Destination {
            table: table.clone(),
            layout: Layout::Kept,
        };
        let run = |named: &str, wanted: Option<&Destination>| {
            let mut answer = answer(&json!([{"projectId": "p", "datasetId": "d", "tableId": "s"}]));
            let (dataset, table) = named.split_once('.').expect("two parts");
            answer["configuration"]["query"]["destinationTable"] =
                json!({"projectId": "p", "datasetId": dataset, "tableId": table});
            let run = read(200, &answer, ("", &reading), wanted, outside);
            run.map(|run| run.targets).map_err(|refusal| refusal.code)
        };
        assert_eq!(run("_a1.anon2", None), Ok(Vec::new()));
        assert_eq!(run("_a1.anon2", Some(&wanted)), Ok(vec![table.clone()]));
        assert_eq!(run("d.t", Some(&wanted)), Ok(vec![table.clone()]));
        assert_eq!(run("d.u", Some(&wanted)), Err(Code::NotVouched));
        assert_eq!(run("d.t", None), Err(Code::NotVouched));
    }

    #[test]
    fn bigquerys_words_are_passed_on_only_where_they_tell_of_nothing_outside() {
        let said = |message: &str, relations: &Relations| {
            let answer = json!({"error": {"message": message}});
            let refusal = judged(400, &answer, relations).expect_err("refused");
            (refusal.code, refusal.what)
        };
        let words = "Aggregations of aggregations are not allowed; Did you mean salary?";
        for relations in [Relations::Within, Relations::None] {
            let (code, what) = said(words, &relations);
            assert!(code == Code::DryRunRefused && what.contains("of aggregations"));
            assert!(!what.contains("salary"), "{what}");
        }
        // Of a text that cannot be read, not even that it was refused.
        let unread = Relations::Unknown(Unread::Hidden);
        assert_eq!(said(words, &unread).0, Code::NotVouched);
        // Whether it is there or not, a table outside is refused alike.
        let outside = Relations::Outside("p.hr.nosuch".into());
        assert_eq!(
            said("Not found: Table p:hr.nosuch", &outside),
            (Code::ScopeOutside, "table p.hr.nosuch".to_owned())
        );
    }
}
