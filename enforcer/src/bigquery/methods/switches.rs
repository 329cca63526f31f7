//! What a body can say that makes another thing of the whole request: who runs it, in which language it is read, where its state lies. Data, no
//! code: those that read bodies refuse them with these words.

use enforcer_proto::refusal::Code;

/// One of them; none is let through.
#[derive(Debug, Clone, Copy)]
pub struct Switch {
    /// The field.
    pub field: &'static str,
    /// What it says, or does not.
    pub says: &'static str,
    /// A query that says it: `configuration.query` of `jobs.insert`, and alike the body of `jobs.query`.
    pub example: &'static str,
    /// What that does.
    pub does: &'static str,
    /// The code of the refusal.
    pub code: Code,
}

/// Of `connectionProperties`, whichever they are.
pub const CONNECTION_PROPERTIES: &str =
    "it can have the query run as another service account, or in a session of another window";
/// Of `createSession`.
pub const SESSION: &str = "what a session holds outlives its query, and is not judged";
/// Of legacy SQL.
pub const LEGACY: &str =
    "Legacy SQL is not let through, and BigQuery reads a query as such unless told otherwise";

/// All of them.
pub const SWITCHES: &[Switch] = &[
    Switch {
        field: "connectionProperties",
        says: "`service_account`",
        example: r#"{"query": "SELECT 1", "useLegacySql": false, "connectionProperties": [{"key": "service_account", "value": "other@p.iam.gserviceaccount.com"}]}"#,
        does: "another service account runs the query",
        code: Code::FieldUnknown,
    },
    Switch {
        field: "connectionProperties",
        says: "`session_id`",
        example: r#"{"query": "SELECT 1", "useLegacySql": false, "connectionProperties": [{"key": "session_id", "value": "s"}]}"#,
        does: "the query sees what a session holds that another window may have begun",
        code: Code::FieldUnknown,
    },
    Switch {
        field: "connectionProperties",
        says: "`dataset_project_id`, `time_zone`, `query_label`, anything else, or nothing",
        example: r#"{"query": "SELECT 1", "useLegacySql": false, "connectionProperties": []}"#,
        does: "names may be looked for in another project",
        code: Code::FieldUnknown,
    },
    Switch {
        field: "createSession",
        says: "true or false",
        example: r#"{"query": "SELECT 1", "useLegacySql": false, "createSession": false}"#,
        does: "a session begins",
        code: Code::FieldUnknown,
    },
    Switch {
        field: "useLegacySql",
        says: "nothing: it is absent",
        example: r#"{"query": "SELECT 1"}"#,
        does: "the text is read as legacy SQL",
        code: Code::LegacySql,
    },
    Switch {
        field: "useLegacySql",
        says: "true",
        example: r#"{"query": "SELECT 1", "useLegacySql": true}"#,
        does: "the text is read as legacy SQL",
        code: Code::LegacySql,
    },
    Switch {
        field: "query",
        says: "`#legacySQL` at its beginning",
        example: r##"{"query": "#legacySQL\nSELECT 1", "useLegacySql": false}"##,
        does: "the text is read as legacy SQL, whatever `useLegacySql` says",
        code: Code::LegacySql,
    },
];

/// What is said of a field that no list lets through, where there is more to say than that.
#[must_use]
pub fn why(field: &str) -> Option<&'static str> {
    match field {
        "connectionProperties" => Some(CONNECTION_PROPERTIES),
        "createSession" => Some(SESSION),
        _ => None,
    }
}

impl Switch {
    /// Why it is refused, as the refusal says.
    #[must_use]
    pub fn why(&self) -> &'static str {
        why(self.field).unwrap_or(LEGACY)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bigquery::job::{Job, QueryJob};

    /// The refusals of the query that a switch has for an example, by each method that takes one.
    fn refused(switch: &Switch) -> Vec<(Code, String)> {
        let query: Value = serde_json::from_str(switch.example).expect("JSON");
        let job = json!({"configuration": {"query": query}});
        let object = |value: &Value| value.as_object().expect("an object").clone();
        let refusals = [
            Job::from_insert(object(&job)).map(|_| ()),
            QueryJob::from_query(object(&query)).map(|_| ()),
        ];
        let refusals = refusals.map(|refused| refused.expect_err(switch.example));
        refusals
            .map(|refusal| (refusal.code, refusal.what))
            .to_vec()
    }

    #[track_caller]
    fn are_refused_with_its_row(field: &str, says: &str) {
        let rows = SWITCHES.iter();
        let mut rows = rows.filter(|row| row.field == field && row.says.contains(says));
        let row = rows.next().expect("it has a row");
        assert!(rows.next().is_none(), "one row of its own");
        for (code, what) in refused(row) {
            assert_eq!(code, row.code, "{what}");
            assert!(what.contains(row.why()), "{what}");
        }
    }

    #[test]
    fn connection_properties_that_switch_the_service_account_are_refused() {
        are_refused_with_its_row("connectionProperties", "service_account");
    }

    #[test]
    fn an_absent_use_legacy_sql_means_legacy_sql_and_is_refused() {
        are_refused_with_its_row("useLegacySql", "absent");
    }

    #[test]
    fn each_switch_is_refused_with_the_words_of_its_row_by_each_method_that_takes_a_query() {
        for switch in SWITCHES {
            are_refused_with_its_row(switch.field, switch.says);
        }
    }

    #[test]
    fn without_its_switch_each_example_is_let_through() {
        for switch in SWITCHES {
            let mut query: Value = serde_json::from_str(switch.example).expect("JSON");
            let fields = query.as_object_mut().expect("an object");
            fields.remove(switch.field);
            fields.insert("query".to_owned(), json!("SELECT 1"));
            fields.insert("useLegacySql".to_owned(), json!(false));
            assert!(
                QueryJob::from_query(fields.clone()).is_ok(),
                "{}",
                switch.example
            );
        }
    }
}
