//! Node: `@google-cloud/bigquery`, another language and another HTTP stack.

use harness::world::{Client, Who, World, node, script};

use super::situations::{Situation, world};
use super::{Run, Said, document, fill, python};

const OPERATIONS: &[&str] = &[
    "query",
    "createQueryJob",
    "getDatasets",
    "getTables",
    "getMetadata",
    "getRows",
    "createTable",
    "load",
    "insert",
    "copy",
    "delete",
    "extract",
    "cancel",
];

struct Node(Client);

impl Run for Node {
    fn run(&mut self, _: &World, operation: &str, situation: Situation) -> Said {
        let is_writing = ["createTable", "load", "insert", "delete"].contains(&operation);
        python::ask(&mut self.0, operation, is_writing, situation.about())
    }
}

#[test]
fn the_client_for_node_shows_in_every_situation_what_the_document_says() {
    let world = world();
    let mut command = world.run_bare(
        Who::Agent,
        node().join("bin/node"),
        &["NODE_EXTRA_CA_CERTS"],
    );
    command.arg(script("agent/client.cjs")).arg(node());
    let mut client = Node(Client::start(command));
    let rows = fill(&world, &mut client, OPERATIONS);
    document::compare("node", OPERATIONS, &rows);
}
