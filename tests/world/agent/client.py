"""An agent with unmodified google-cloud-bigquery, its credentials and project found as on a host of Google's: nothing is configured.

Each line of its standard input is a JSON list: an operation, and the dataset and the table that it is about. For each it prints one JSON
line: what came of it, or the error as the client shows it.
"""

import io
import json
import sys

from google.cloud import bigquery

client = bigquery.Client()
FIELDS = [bigquery.SchemaField("id", "INT64")]
LOAD = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", schema=FIELDS)
LINES = b"".join(b'{"id": %d}\n' % row for row in range(50))


def rows(count):
    return f"{count} row{'' if count == 1 else 's'}"


def query(dataset, table):
    return rows(len(list(client.query(f"SELECT * FROM {dataset}.{table}").result())))


def query_and_wait(dataset, table):
    return rows(len(list(client.query_and_wait(f"SELECT * FROM {dataset}.{table}"))))


def to_arrow(dataset, table):
    """The table's rows by the storage API alone: the client is told the fields, and asks for nothing by REST."""
    field = {"accounts": "id", "salaries": "salary"}[table]
    found = client.list_rows(f"{client.project}.{dataset}.{table}", selected_fields=[bigquery.SchemaField(field, "INT64")])
    return rows(found.to_arrow().num_rows)


def to_dataframe(dataset, table):
    """A query's result as a data frame: its rows come by the storage API."""
    return rows(len(client.query(f"SELECT * FROM {dataset}.{table}").to_dataframe()))


def list_datasets(*_):
    return " ".join(sorted(found.dataset_id for found in client.list_datasets()))


def list_tables(dataset, _):
    return f"{len(list(client.list_tables(dataset)))} tables"


def get_table(dataset, table):
    return f"{len(client.get_table(f'{dataset}.{table}').schema)} fields"


def list_rows(dataset, table):
    field = {"accounts": "id", "salaries": "salary"}[table]
    return rows(len(list(client.list_rows(f"{client.project}.{dataset}.{table}", selected_fields=[bigquery.SchemaField(field, "INT64")]))))


def create_table(dataset, _):
    return client.create_table(bigquery.Table(f"{client.project}.{dataset}.made", schema=FIELDS)).table_id


def load_table_from_file(dataset, _):
    return rows(client.load_table_from_file(io.BytesIO(LINES), f"{dataset}.loaded", job_config=LOAD).result().output_rows)


def load_table_from_json(dataset, _):
    return rows(client.load_table_from_json([{"id": 1}, {"id": 2}], f"{dataset}.of_json", job_config=LOAD).result().output_rows)


def insert_rows_json(dataset, _):
    wrong = client.insert_rows_json(f"{client.project}.{dataset}.made", [{"id": 1}])
    return "ok" if not wrong else f"wrong: {wrong}"


def copy_table(dataset, table):
    copy = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE")
    client.copy_table(f"{dataset}.{table}", "scratch.copied", job_config=copy).result()
    return "ok"


def delete_table(dataset, _):
    client.delete_table(f"{dataset}.made")
    return "ok"


def extract_table(dataset, table):
    client.extract_table(f"{dataset}.{table}", "gs://demo-exports/object").result()
    return "ok"


def cancel_job(dataset, table):
    """Of a job of its own; where it may have none, of one that somebody else may have."""
    if dataset != "finance":
        client.cancel_job("somebody-elses")
        return "ok"
    job = client.query(f"SELECT * FROM {dataset}.{table}")
    return "cancelled" if client.cancel_job(job.job_id).error_result["reason"] == "stopped" else "ok"


OPERATIONS = [query, query_and_wait, to_arrow, to_dataframe, list_datasets, list_tables, get_table, list_rows, create_table,
              load_table_from_file, load_table_from_json, insert_rows_json, copy_table, delete_table, extract_table, cancel_job]

for line in sys.stdin:
    what, *about = json.loads(line)
    try:
        done = {"ok": {each.__name__: each for each in OPERATIONS}[what](*about)}
    except Exception as error:  # whatever the client raises is what the agent sees
        done = {"error": str(error), "as": type(error).__name__}
    print(json.dumps(done), flush=True)
