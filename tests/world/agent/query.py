"""An agent: unmodified google-cloud-bigquery. SQL by argument or, with `-`, one a line from standard input on one kept-alive client.

Prints one JSON line for each: rows or the error as the client shows it, and when it began and ended on the boot-time clock.
"""

import json
import sys
import time

from google.cloud import bigquery
from google.oauth2.credentials import Credentials


def run(client, sql):
    began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        rows = [list(row.values()) for row in client.query(sql).result()]
        done = {"rows": [[str(value) for value in row] for row in rows]}
    except Exception as error:  # whatever the client raises is what the agent sees
        done = {"error": str(error), "type": type(error).__name__}
    ended = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    print(json.dumps({"sql": sql, "began": began, "ended": ended, **done}), flush=True)
    return "error" not in done


client = bigquery.Client(project="demo-project", credentials=Credentials("ya29.the-agents-own-token"))
if sys.argv[1:] == ["-"]:
    for line in sys.stdin:
        run(client, line.strip())
else:
    sys.exit(0 if all([run(client, sql) for sql in sys.argv[1:]]) else 1)
