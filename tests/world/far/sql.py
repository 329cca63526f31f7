"""The SQL engine as the rest of the far side asks it. It is started, and given its tables, when something is first wanted of it."""

import json
import os
import socket
import sys
import threading
import time

import requests

from places import DOOR, REST, STORAGE

PROJECT = "demo-project"
#: Where the engine is given results to keep that are read by the storage API: it has no hidden datasets.
RESULTS = "results"
#: How long it may take to be there, seconds.
START_S = 60

SEED = [
    "CREATE TABLE finance.daily AS SELECT DATE_ADD(DATE '2026-01-01', INTERVAL n DAY) AS day, n * 7 AS amount "
    "FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS n",
    "CREATE TABLE finance.accounts AS SELECT n AS id, CONCAT('account ', CAST(n AS STRING)) AS name FROM UNNEST(GENERATE_ARRAY(1, 20)) AS n",
    "CREATE TABLE finance.invoices AS SELECT n AS id, [STRUCT(CONCAT('sku ', CAST(n AS STRING)) AS sku, n AS price)] AS parts "
    "FROM UNNEST(GENERATE_ARRAY(1, 5)) AS n",
    "CREATE TABLE scratch.notes (id INT64, text STRING)",
    "CREATE TABLE hr.salaries AS SELECT 'ada' AS name, 100 AS salary UNION ALL SELECT 'grace', 120",
]
VIEWS = {
    "hr_view": "SELECT name, salary FROM `demo-project.hr.salaries`",
    "daily_view": "SELECT day, amount FROM `demo-project.finance.daily`",
}


class Engine:
    def __init__(self):
        self.lock = threading.Lock()
        self.is_wanted = False
        self.is_there = threading.Event()

    def want(self):
        """Has it started, where that is not so yet, and does not wait for it."""
        with self.lock:
            if not self.is_wanted:
                self.is_wanted = True
                threading.Thread(target=self.start, daemon=True).start()

    def wait(self):
        self.want()
        self.is_there.wait()

    def call(self, method, path, query=None, body=None, content_type="application/json"):
        self.wait()
        return ask(method, path, query, body, content_type)

    def must(self, method, path, body):
        self.wait()
        make(method, path, body)

    def start(self):
        try:
            for place in (DOOR, REST, STORAGE):
                reach(place)
            seed()
        except BaseException as error:
            # Whoever waits for it waits in vain: that is told at once, and by the process that the test looks at.
            print(f"the SQL engine did not start: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        self.is_there.set()


def reach(place):
    until = time.monotonic() + START_S
    while True:
        try:
            return socket.create_connection(place).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def ask(method, path, query=None, body=None, content_type="application/json"):
    url = "http://{}:{}{}".format(*REST, path)
    answer = requests.request(method, url, params=query, data=body, timeout=600, headers={"content-type": content_type})
    if answer.status_code == 204:
        return 204, b""
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, {"error": {"code": answer.status_code, "message": answer.text[:200]}}


def make(method, path, body):
    status, answer = ask(method, path, None, json.dumps(body))
    if status != 200:
        raise SystemExit(f"the SQL engine refused {path}: {answer}")


def seed():
    base = f"/bigquery/v2/projects/{PROJECT}"
    for dataset in ("finance", "hr", "scratch", RESULTS):
        make("POST", f"{base}/datasets", {"datasetReference": {"datasetId": dataset, "projectId": PROJECT}})
    for statement in SEED:
        make("POST", f"{base}/queries", {"query": statement, "useLegacySql": False})
    for name, sql in VIEWS.items():
        reference = {"projectId": PROJECT, "datasetId": "finance", "tableId": name}
        make("POST", f"{base}/datasets/finance/tables", {"tableReference": reference, "view": {"query": sql, "useLegacySql": False}})
