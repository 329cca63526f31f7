//! BigQuery's own dry run as the authority on what a query reads. What it does not vouch for is refused.

use std::ops::ControlFlow;

use enforcer_proto::query::DryRun;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use serde_json::Value;
use sqlparser::ast::{Statement, visit_relations};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::Parser;

/// The longest sentence of BigQuery's that is passed on, characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Reads the answer to a dry run of `sql`.
///
/// # Errors
/// [`Code::DryRunRefused`] with BigQuery's words, or [`Code::NotVouched`] where the answer names no tables.
pub fn read(status: u16, answer: &Value, sql: &str) -> Result<DryRun, Refusal> {
    if !(200..300).contains(&status) {
        let message = answer["error"]["message"]
            .as_str()
            .unwrap_or("it gave no reason");
        let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
        return Err(Refusal::new(
            Code::DryRunRefused,
            format!("BigQuery refused the dry run of the query: {message}"),
        ));
    }
    let query = &answer["statistics"]["query"];
    let statement = query["statementType"]
        .as_str()
        .ok_or_else(|| not_vouched("its kind of statement"))?
        .to_owned();
    let tables = match &query["referencedTables"] {
        Value::Array(tables) => tables
            .iter()
            .map(table)
            .collect::<Result<Vec<TableRef>, Refusal>>()?,
        // BigQuery leaves the list out where there is nothing in it. That is believed only when the text itself names no table.
        Value::Null if statement == "SELECT" && names_no_table(sql) => Vec::new(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return Err(not_vouched("the tables it reads"));
        }
    };
    if tables.is_empty() && !names_no_table(sql) {
        return Err(not_vouched("the tables it reads"));
    }
    let bytes = answer["statistics"]["totalBytesProcessed"]
        .as_str()
        .or_else(|| query["totalBytesProcessed"].as_str());
    let bytes = bytes
        .and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| not_vouched("the bytes it processes"))?;
    Ok(DryRun {
        statement,
        tables,
        bytes,
    })
}

fn table(table: &Value) -> Result<TableRef, Refusal> {
    let text = |name: &str| {
        table[name]
            .as_str()
            .ok_or_else(|| not_vouched("a table by its full name"))
    };
    let dataset = DatasetRef::new(text("projectId")?, text("datasetId")?);
    dataset
        .and_then(|dataset| TableRef::new(dataset, text("tableId").unwrap_or_default()))
        .map_err(|_| not_vouched("a table by its full name"))
}

/// Whether the text is one statement that names nothing a table could hide behind: no relation, no table function.
fn names_no_table(sql: &str) -> bool {
    let Ok(statements) = Parser::parse_sql(&BigQueryDialect, sql) else {
        return false;
    };
    let [statement @ Statement::Query(_)] = statements.as_slice() else {
        return false;
    };
    visit_relations(statement, |_| ControlFlow::Break(())).is_continue()
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

    #[test]
    fn the_tables_of_the_dry_run_are_read_by_full_name() {
        let tables = json!([{"projectId": "p", "datasetId": "d", "tableId": "t"}]);
        let read = read(200, &answer(&tables), "SELECT * FROM d.v").expect("vouched");
        assert_eq!(
            (read.tables[0].to_string().as_str(), read.bytes),
            ("p.d.t", 80)
        );
    }

    #[test]
    fn an_absent_or_empty_list_is_believed_only_of_a_text_that_names_no_table() {
        let refused = |tables: &Value, sql: &str| {
            read(200, &answer(tables), sql)
                .map(|_| ())
                .map_err(|refusal| refusal.code)
        };
        for tables in [Value::Null, json!([])] {
            assert_eq!(refused(&tables, "SELECT 1"), Ok(()));
            for sql in [
                "SELECT * FROM d.t",
                "SELECT * FROM EXTERNAL_QUERY('c', 'q')",
                "EXECUTE IMMEDIATE 'x'",
                "SELECT 1; SELECT 2",
                "SELECT (SELECT x FROM d.t)",
                "not sql",
            ] {
                assert_eq!(refused(&tables, sql), Err(Code::NotVouched), "{sql}");
            }
        }
        assert_eq!(
            refused(
                &json!([{"datasetId": "d", "tableId": "t"}]),
                "SELECT * FROM d.t"
            ),
            Err(Code::NotVouched)
        );
        assert_eq!(refused(&json!("x"), "SELECT 1"), Err(Code::NotVouched));
    }

    #[test]
    fn bigquerys_own_refusal_is_passed_on_in_its_words() {
        let refusal = read(
            400,
            &json!({"error": {"message": "Unrecognized name: x"}}),
            "SELECT x",
        )
        .expect_err("refused");
        assert!(
            refusal.code == Code::DryRunRefused && refusal.what.contains("Unrecognized name: x")
        );
    }
}
