// An agent with unmodified @google-cloud/bigquery, its credentials and project found as on a host of Google's: nothing is configured.
//
// Its argument is the folder of its packages. Each line of its standard input is a JSON list: an operation, and the dataset and the table
// that it is about. For each it prints one JSON line: what came of it, or the error as the client shows it.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");

const { BigQuery } = createRequire(path.join(process.argv[2], "here"))("@google-cloud/bigquery");

const client = new BigQuery();
const FIELDS = [{ name: "id", type: "INT64" }];
const rows = (count) => `${count} row${count === 1 ? "" : "s"}`;
const table = (dataset, name) => client.dataset(dataset).table(name);

// Whatever a job ends with.
async function ended(job) {
  const [made] = job;
  if (made.promise) await made.promise();
  const status = made.status || made.metadata.status;
  if (status.errorResult) throw new Error(status.errorResult.message);
}

const operations = {
  async query(dataset, name) {
    const [found] = await client.query(`SELECT * FROM ${dataset}.${name}`);
    return rows(found.length);
  },
  async createQueryJob(dataset, name) {
    const [job] = await client.createQueryJob({ query: `SELECT * FROM ${dataset}.${name}` });
    const [found] = await job.getQueryResults();
    return rows(found.length);
  },
  async getDatasets() {
    const [found] = await client.getDatasets();
    return found.map((dataset) => dataset.id).sort().join(" ");
  },
  async getTables(dataset) {
    const [found] = await client.dataset(dataset).getTables();
    return `${found.length} tables`;
  },
  async getMetadata(dataset, name) {
    const [found] = await table(dataset, name).getMetadata();
    return `${found.schema.fields.length} fields`;
  },
  async getRows(dataset, name) {
    const [found] = await table(dataset, name).getRows();
    return rows(found.length);
  },
  async createTable(dataset) {
    const [made] = await client.dataset(dataset).createTable("made", { schema: FIELDS });
    return made.id;
  },
  async load(dataset) {
    const file = path.join(os.tmpdir(), `rows-${process.pid}.json`);
    fs.writeFileSync(file, '{"id": 1}\n{"id": 2}\n');
    try {
      const [job] = await table(dataset, "loaded").load(file, { sourceFormat: "NEWLINE_DELIMITED_JSON", schema: { fields: FIELDS } });
      if (job.status.errorResult) throw new Error(job.status.errorResult.message);
      return rows(Number(job.statistics.load.outputRows));
    } finally {
      fs.rmSync(file);
    }
  },
  async insert(dataset) {
    await table(dataset, "made").insert([{ id: 1 }]);
    return "ok";
  },
  async copy(dataset, name) {
    await ended(await table(dataset, name).copy(table("scratch", "copied"), { writeDisposition: "WRITE_TRUNCATE" }));
    return "ok";
  },
  async delete(dataset) {
    await table(dataset, "made").delete();
    return "ok";
  },
  async extract(dataset, name) {
    const sourceTable = { projectId: client.projectId, datasetId: dataset, tableId: name };
    await ended(await client.createJob({ configuration: { extract: { sourceTable, destinationUris: ["gs://demo-exports/object"] } } }));
    return "ok";
  },
  // Of a job of its own; where it may have none, of one that somebody else may have.
  async cancel(dataset, name) {
    if (dataset !== "finance") {
      await client.job("somebody-elses").cancel();
      return "ok";
    }
    const [job] = await client.createQueryJob({ query: `SELECT * FROM ${dataset}.${name}` });
    const [answer] = await job.cancel();
    return answer.job.status.errorResult.reason === "stopped" ? "cancelled" : "ok";
  },
};

async function main() {
  // This version writes a placeholder in place of the project until it has been asked which one it has found.
  await client.getProjectId();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [what, ...about] = JSON.parse(line);
    let done;
    try {
      done = { ok: await operations[what](...about) };
    } catch (error) {
      done = { error: error.message, as: [error.name, error.code].filter((part) => part !== undefined).join(" ") };
    }
    console.log(JSON.stringify(done));
  }
}

main();
