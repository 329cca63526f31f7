"""An agent that reads tables as Arrow, by the storage API: unmodified google-cloud-bigquery and google-cloud-bigquery-storage.

Each line of its standard input is a JSON list, what to do and with what; for each it prints one JSON line: what came of it, or the error as
the client shows it, and how long it took.
"""

import json
import os
import sys
import time

import grpc
from google.cloud import bigquery, bigquery_storage
from google.cloud.bigquery_storage_v1 import types
from google.oauth2.credentials import Credentials

PROJECT = "demo-project"
credentials = Credentials("ya29.the-agents-own-token")
client = bigquery.Client(project=PROJECT, credentials=credentials)
reads = bigquery_storage.BigQueryReadClient(credentials=credentials)


def path(table):
    project, dataset, name = table.split(".")
    return f"projects/{project}/datasets/{dataset}/tables/{name}"


def arrow(table):
    return {"rows": table.num_rows, "bytes": table.nbytes, "first": [str(column[0]) for column in table.columns if len(column)]}


def query(sql):
    """A query's result. The client reads a first page without its rows, so that all of them come by the storage API."""
    rows = client.query(sql).result(page_size=1)
    return arrow(rows.to_arrow(bqstorage_client=reads))


def plain(sql):
    """A query's result with nothing said of how: what fits the first page may come by REST."""
    return arrow(client.query(sql).to_arrow())


def table(name):
    return arrow(client.list_rows(client.get_table(name)).to_arrow(bqstorage_client=reads))


def session(name, parent=PROJECT, condition="", fields=(), streams=1):
    options = types.ReadSession.TableReadOptions(row_restriction=condition, selected_fields=fields)
    wanted = types.ReadSession(table=path(name), data_format=types.DataFormat.ARROW, read_options=options)
    made = reads.create_read_session(parent=f"projects/{parent}", read_session=wanted, max_stream_count=streams)
    return {"session": made.name, "streams": [stream.name for stream in made.streams]}


def result(sql, wait_s=None):
    """The table that holds a query's result; waited for without asking, where a time is given."""
    job = client.query(sql)
    job.result() if wait_s is None else time.sleep(wait_s)
    return {"table": f"{job.destination.project}.{job.destination.dataset_id}.{job.destination.table_id}"}


def rows(stream, pause_s=0):
    """Reads a stream to its end; says so when the first message has come, and takes no more for a while."""
    count = 0
    for message in reads.read_rows(stream):
        if not count:
            print(json.dumps({"begun": True}), flush=True)
            time.sleep(pause_s)
        count += message.row_count
    return {"rows": count}


def split(stream):
    made = reads.split_read_stream(types.SplitReadStreamRequest(name=stream, fraction=0.5))
    return {"streams": [made.primary_stream.name, made.remainder_stream.name]}


def write(name):
    writes = bigquery_storage.BigQueryWriteClient(credentials=credentials)
    made = writes.create_write_stream(parent=path(name), write_stream=types.WriteStream(type_=types.WriteStream.Type.PENDING))
    return {"stream": made.name}


def raw(host, path, message, compression=0, headers=()):
    """One message, in hexadecimal, to whatever is called, and what else is said beside it."""
    with open(os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"], "rb") as roots:
        secured = grpc.ssl_channel_credentials(roots.read())
    with grpc.secure_channel(host, secured) as channel:
        call, beside = channel.unary_unary(path), [tuple(header) for header in headers]
        answer = call(bytes.fromhex(message), timeout=20, metadata=beside, compression=grpc.Compression(compression))
    return {"answer": answer.hex()}


def trailers(error):
    """The names of what is said beside an error."""
    call = getattr(error, "response", None) or error
    said = getattr(call, "trailing_metadata", lambda: None)()
    return [name for name, _ in said or ()]


for line in sys.stdin:
    what, *arguments = json.loads(line)
    began = time.monotonic()
    try:
        done = {each.__name__: each for each in (query, plain, table, session, result, rows, split, write, raw)}[what](*arguments)
    except grpc.RpcError as error:
        done = {"error": error.details(), "type": error.code().name}
    except Exception as error:  # whatever the client raises is what the agent sees
        done = {"error": str(error), "type": type(error).__name__, "trailers": trailers(error)}
    print(json.dumps({**done, "took_s": time.monotonic() - began}), flush=True)
