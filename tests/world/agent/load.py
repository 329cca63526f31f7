"""An agent that loads tables: unmodified google-cloud-bigquery. How (`multipart` or `resumable`), the table, and how many rows.

Prints one JSON line: how many rows were loaded, or the error as the client shows it.
"""

import io
import json
import sys

from google.cloud import bigquery
from google.oauth2.credentials import Credentials

how, table, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = bigquery.Client(project="demo-project", credentials=Credentials("ya29.the-agents-own-token"))
data = b"".join(b'{"id": %d}\n' % row for row in range(rows))
config = bigquery.LoadJobConfig(
    source_format="NEWLINE_DELIMITED_JSON",
    schema=[bigquery.SchemaField("id", "INT64")],
)
try:
    # The client sends what it knows to be small in one body, and the rest in parts.
    size = len(data) if how == "multipart" else None
    job = client.load_table_from_file(io.BytesIO(data), table, size=size, job_config=config, num_retries=0)
    print(json.dumps({"rows": job.result().output_rows}))
except Exception as error:  # whatever the client raises is what the agent sees
    print(json.dumps({"error": str(error), "type": type(error).__name__}))
