"""An agent that starts jobs by REST, on so many connections at once: `jobs.py CA PROJECT CONNECTIONS`, the bodies of `jobs.insert` one a line on standard input.

Prints one JSON line for each, in their order: the answer's status and, where it is an error, its message.
"""

import concurrent.futures
import http.client
import json
import ssl
import sys
import threading

CONNECTIONS = int(sys.argv[3])
HOST = "bigquery.googleapis.com"
trust = ssl.create_default_context(cafile=sys.argv[1])
path = f"/bigquery/v2/projects/{sys.argv[2]}/jobs"
own = threading.local()


def start(body):
    if not hasattr(own, "connection"):
        own.connection = http.client.HTTPSConnection(HOST, context=trust)
    own.connection.request("POST", path, body.encode(), {"content-type": "application/json"})
    answer = own.connection.getresponse()
    said = json.loads(answer.read())
    return answer.status, said.get("error", {}).get("message")


with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
    for done in pool.map(start, (line.strip() for line in sys.stdin)):
        print(json.dumps(done), flush=True)
