"""An agent that looks for credentials as on a host of Google's: unmodified google-auth and google-cloud-bigquery, nothing configured."""

import json
import sys

import google.auth
from google.auth.transport.requests import Request
from google.cloud import bigquery

credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/bigquery"])
credentials.refresh(Request())
said = {"kind": type(credentials).__module__, "project": project, "token": credentials.token}
if len(sys.argv) > 1:
    rows = bigquery.Client().query(sys.argv[1]).result()
    said["rows"] = [[str(value) for value in row.values()] for row in rows]
print(json.dumps(said))
