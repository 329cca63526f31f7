//! Python: google-cloud-bigquery, with google-cloud-bigquery-storage for rows by gRPC.

use harness::world::{Client, Who, World, script, venv_python};
use serde_json::json;

use super::situations::{About, Situation, world};
use super::{Run, Said, document, fill};

const OPERATIONS: &[&str] = &[
    "query",
    "query_and_wait",
    "to_arrow",
    "to_dataframe",
    "list_datasets",
    "list_tables",
    "get_table",
    "list_rows",
    "create_table",
    "load_table_from_file",
    "load_table_from_json",
    "insert_rows_json",
    "copy_table",
    "delete_table",
    "extract_table",
    "cancel_job",
];

/// What an operation is about, and what its client shows: one line in, one line out.
pub(super) fn ask(client: &mut Client, operation: &str, is_writing: bool, about: About) -> Said {
    let [dataset, table] = about.read;
    let dataset = if is_writing { about.written } else { dataset };
    client.send(&json!([operation, dataset, table]).to_string());
    let answer = client.receive();
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    match (text("ok"), text("error")) {
        (Some(done), None) => Said::Done(done),
        (_, words) => Said::Failed {
            kind: text("as").unwrap_or_default(),
            words: words.unwrap_or_default(),
        },
    }
}

struct Python(Client);

impl Run for Python {
    fn run(&mut self, _: &World, operation: &str, situation: Situation) -> Said {
        let is_writing = [
            "create_table",
            "load_table_from_file",
            "load_table_from_json",
            "insert_rows_json",
            "delete_table",
        ]
        .contains(&operation);
        ask(&mut self.0, operation, is_writing, situation.about())
    }
}

#[test]
fn google_cloud_bigquery_shows_in_every_situation_what_the_document_says() {
    let world = world();
    let mut command = world.run_bare(
        Who::Agent,
        venv_python(),
        &["REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"],
    );
    command.arg(script("agent/client.py"));
    let mut client = Python(Client::start(command));
    let rows = fill(&world, &mut client, OPERATIONS);
    document::compare("python", OPERATIONS, &rows);
}
