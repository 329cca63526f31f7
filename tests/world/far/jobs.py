"""BigQuery's jobs in front of the SQL engine: they run on their own, can be polled and cancelled, and say what they read."""

import json
import re
import secrets
import threading
import time

import requests

PROJECT = "demo-project"
MIB = 1024 * 1024
DEFAULT_LOCATIONS = ["US", "EU"]
#: The hidden dataset that holds the results of jobs that name no table for them.
ANONYMOUS = "_" + secrets.token_hex(20)
#: How long a new job is waited for before it is answered as running, seconds.
AT_ONCE_S = 0.3

SEED = [
    "CREATE TABLE finance.daily AS SELECT DATE_ADD(DATE '2026-01-01', INTERVAL n DAY) AS day, n * 7 AS amount "
    "FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS n",
    "CREATE TABLE finance.accounts AS SELECT n AS id, CONCAT('account ', CAST(n AS STRING)) AS name FROM UNNEST(GENERATE_ARRAY(1, 20)) AS n",
    "CREATE TABLE hr.salaries AS SELECT 'ada' AS name, 100 AS salary UNION ALL SELECT 'grace', 120",
]
VIEWS = {
    "hr_view": "SELECT name, salary FROM `demo-project.hr.salaries`",
    "daily_view": "SELECT day, amount FROM `demo-project.finance.daily`",
}


class Job:
    def __init__(self, reference, configuration):
        self.reference = reference
        self.configuration = configuration
        self.started_ms = int(time.time() * 1000)
        self.done = threading.Event()
        self.answer = None
        self.is_cancelled = False
        #: The engine knows no locations: every job has an id of its own there.
        self.engine_id = f"{reference['location'].lower()}-{reference['jobId']}"

    def resource(self, state, error=None):
        status = {"state": state}
        if error:
            status.update(errorResult=error, errors=[error])
        return {
            "kind": "bigquery#job", "id": f"{PROJECT}:{self.reference['jobId']}", "jobReference": self.reference,
            "configuration": self.configuration, "status": status,
            "statistics": {"creationTime": str(self.started_ms), "startTime": str(self.started_ms), "query": {}},
        }


class Jobs:
    def __init__(self, engine, analyser, faults):
        self.engine = engine
        self.analyser = analyser
        self.faults = faults
        self.lock = threading.Lock()
        self.jobs = {}

    def call(self, method, path, query=None, body=None):
        answer = requests.request(method, self.engine + path, params=query, data=body, timeout=600,
                                  headers={"content-type": "application/json"})
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, {"error": {"code": answer.status_code, "message": answer.text[:200]}}

    def seed(self):
        base = f"/bigquery/v2/projects/{PROJECT}"
        for dataset in ("finance", "hr"):
            reference = {"datasetReference": {"datasetId": dataset, "projectId": PROJECT}}
            self.must("POST", f"{base}/datasets", reference)
        for statement in SEED:
            self.must("POST", f"{base}/queries", {"query": statement, "useLegacySql": False})
        for name, sql in VIEWS.items():
            reference = {"projectId": PROJECT, "datasetId": "finance", "tableId": name}
            view = {"tableReference": reference, "view": {"query": sql, "useLegacySql": False}}
            self.must("POST", f"{base}/datasets/finance/tables", view)
            self.analyser.views[(PROJECT, "finance", name)] = sql

    def must(self, method, path, body):
        status, answer = self.call(method, path, None, json.dumps(body))
        if status != 200:
            raise SystemExit(f"seeding failed: {answer}")

    def serve(self, method, path, query, body):
        for pattern, verb, serve in (
            (r"/bigquery/v2/projects/([^/]+)/jobs", "POST", self.insert),
            (r"/bigquery/v2/projects/([^/]+)/jobs", "GET", self.list),
            (r"/bigquery/v2/projects/([^/]+)/jobs/([^/]+)/delete", "DELETE", self.delete),
            (r"/bigquery/v2/projects/([^/]+)/queries", "POST", self.query),
            (r"/bigquery/v2/projects/([^/]+)/jobs/([^/]+)", "GET", self.get),
            (r"/bigquery/v2/projects/([^/]+)/queries/([^/]+)", "GET", self.results),
            (r"/bigquery/v2/projects/([^/]+)/jobs/([^/]+)/cancel", "POST", self.cancel),
            (rf"/bigquery/v2/projects/([^/]+)/datasets/{ANONYMOUS}/tables/([^/]+)/data", "GET", self.rows),
        ):
            match = re.fullmatch(pattern, path)
            if match and method == verb:
                return serve(*match.groups(), query, body)
        return self.call(method, path, query, body)

    def insert(self, project, query, body):
        asked = json.loads(body)
        configuration = asked["configuration"]
        sql = configuration["query"]
        dataset = (sql.get("defaultDataset") or {}).get("datasetId")
        kind, tables = self.analyser.read(sql["query"], project, dataset)
        statistics = self.statistics(kind, tables)
        if configuration.get("dryRun"):
            return self.dry_run(project, asked, kind, statistics)
        most = int(sql.get("maximumBytesBilled") or 1 << 62)
        billed = self.billed(statistics)
        if billed > most:
            why = f"Query exceeded limit for bytes billed: {most}. {billed} or higher required."
            return 400, {"error": {"code": 400, "message": why, "errors": [{"message": why, "reason": "bytesBilledLimitExceeded"}]}}
        reference = dict(asked.get("jobReference") or {})
        reference = {"projectId": project, "jobId": reference.get("jobId") or f"job_{secrets.token_hex(12)}",
                     "location": reference.get("location") or "US"}
        place = (reference["location"].lower(), reference["jobId"])
        with self.lock:
            if place in self.jobs:
                return 409, {"error": {"code": 409, "message": "Already Exists: Job", "errors": [{"reason": "duplicate", "message": "Already Exists"}]}}
            job = self.jobs[place] = Job(reference, configuration)
        asked = {"jobReference": {"projectId": project, "jobId": job.engine_id}, "configuration": json.loads(json.dumps(configuration))}
        sql.setdefault("destinationTable", {"projectId": project, "datasetId": ANONYMOUS, "tableId": f"anon{secrets.token_hex(16)}"})
        threading.Thread(target=self.run, args=(job, project, asked, statistics), daemon=True).start()
        job.done.wait(AT_ONCE_S)
        return self.get(project, reference["jobId"], {"location": [reference["location"]]}, body)

    def dry_run(self, project, asked, kind, statistics):
        """The engine runs what it is given as a dry run, too: it gets the query's shape, of which nothing is computed."""
        sql = asked["configuration"]["query"]
        text = sql["query"]
        if kind == "SELECT":
            sql["query"] = f"SELECT * FROM (\n{text.strip().rstrip(';')}\n) LIMIT 0"
        status, answer = self.call("POST", f"/bigquery/v2/projects/{project}/jobs", None, json.dumps(asked))
        if status != 200:
            return status, answer
        answer["configuration"]["query"]["query"] = text
        return status, self.enriched(answer, statistics)

    def run(self, job, project, asked, statistics):
        time.sleep(self.faults().get("run_ms", 0) / 1000)
        status, answer = self.call("POST", f"/bigquery/v2/projects/{project}/jobs", None, json.dumps(asked))
        # A view that has become another since its dry run.
        also = [dict(zip(("projectId", "datasetId", "tableId"), table)) for table in self.faults().get("reads_also", [])]
        if also:
            statistics = dict(statistics, referencedTables=statistics.get("referencedTables", []) + also)
        if status == 200:
            self.enriched(answer, statistics)["configuration"]["query"]["destinationTable"] = job.configuration["query"]["destinationTable"]
            answer["jobReference"] = job.reference
            answer["configuration"]["labels"] = job.configuration.get("labels", {})
        job.answer = (status, answer)
        job.done.set()

    def query(self, project, query, body):
        asked = json.loads(body)
        inner = {name: asked[name] for name in ("query", "useLegacySql", "defaultDataset", "queryParameters", "parameterMode",
                                                "maximumBytesBilled", "useQueryCache") if name in asked}
        configuration = {"query": inner, "labels": asked.get("labels", {}), "dryRun": bool(asked.get("dryRun"))}
        status, answer = self.insert(project, {}, json.dumps({"configuration": configuration}))
        if status != 200 or asked.get("dryRun"):
            return status, answer
        query = {"timeoutMs": [str(asked.get("timeoutMs", 10_000))], "location": [answer["jobReference"]["location"]]}
        if "maxResults" in asked:
            query["maxResults"] = [str(asked["maxResults"])]
        return self.results(project, answer["jobReference"]["jobId"], query, b"")

    def find(self, name, query):
        """A job by its id and location; without a location it is looked for where BigQuery looks, in the US and the EU."""
        places = query.pop("location", DEFAULT_LOCATIONS)
        return next((job for place in places if (job := self.jobs.get((place.lower(), name)))), None)

    def get(self, project, name, query, body):
        job = self.find(name, query)
        if job is None:
            return 404, {"error": {"code": 404, "message": f"Not found: Job {project}:{name}", "errors": [{"reason": "notFound", "message": "Not found"}]}}
        if job.is_cancelled:
            return 200, job.resource("DONE", {"reason": "stopped", "message": "Job execution was cancelled: User requested cancellation"})
        return job.answer if job.done.is_set() else (200, job.resource("RUNNING"))

    def list(self, project, query, body):
        jobs = [self.get(project, name, {"location": [place]}, body)[1] for place, name in self.jobs]
        return 200, {"kind": "bigquery#jobList", "jobs": jobs}

    def delete(self, project, name, query, body):
        job = self.find(name, query)
        if job is None:
            return self.get(project, name, query, body)
        del self.jobs[(job.reference["location"].lower(), name)]
        return 200, {}

    def results(self, project, name, query, body):
        job = self.find(name, query)
        return self.results_of(job, project, query) if job else self.get(project, name, query, body)

    def results_of(self, job, project, query):
        wait_ms = int(query.pop("timeoutMs", ["10000"])[0])
        deadline = time.monotonic() + min(wait_ms / 1000, 200)
        while not job.done.is_set() and not job.is_cancelled and time.monotonic() < deadline:
            job.done.wait(0.05)
        if job.is_cancelled:
            why = "Job execution was cancelled: User requested cancellation"
            return 400, {"error": {"code": 400, "message": why, "errors": [{"message": why, "reason": "stopped"}]}}
        if not job.done.is_set():
            return 200, {"kind": "bigquery#getQueryResultsResponse", "jobReference": job.reference, "jobComplete": False}
        if job.answer[0] != 200:
            return job.answer
        status, answer = self.call("GET", f"/bigquery/v2/projects/{project}/queries/{job.engine_id}", query)
        answer["jobReference"] = job.reference
        answer["totalBytesProcessed"] = job.answer[1]["statistics"]["totalBytesProcessed"]
        return status, answer

    def rows(self, project, table, query, body):
        """The rows of a result, to whoever has a token: BigQuery asks only for the rights of whoever started the job."""
        for job in self.jobs.values():
            if job.configuration["query"]["destinationTable"]["tableId"] == table:
                status, answer = self.results_of(job, project, query)
                return status, {"kind": "bigquery#tableDataList", **{part: answer[part] for part in ("totalRows", "rows") if part in answer}}
        return 404, {"error": {"code": 404, "message": f"Not found: Table {project}:{ANONYMOUS}.{table}", "errors": [{"reason": "notFound"}]}}

    def cancel(self, project, name, query, body):
        job = self.find(name, query)
        if job is None:
            return self.get(project, name, query, body)
        if not job.done.is_set():
            job.is_cancelled = True
        status, resource = self.get(project, name, {"location": [job.reference["location"]]}, body)
        return status, {"kind": "bigquery#jobCancelResponse", "job": resource}

    def statistics(self, kind, tables):
        statistics = {"statementType": kind, "totalBytesProcessed": "0"}
        if tables is not None:
            statistics["totalBytesProcessed"] = str(self.analyser.bytes(tables))
            if tables:
                names = ("projectId", "datasetId", "tableId")
                statistics["referencedTables"] = [dict(zip(names, table)) for table in tables]
        return statistics

    @staticmethod
    def billed(statistics):
        """Whole MiB, and at least ten for each table; nothing for a query that processes nothing."""
        processed = int(statistics.get("totalBytesProcessed", 0))
        tables = max(1, len(statistics.get("referencedTables", [])))
        return max(-(-processed // MIB) * MIB, 10 * MIB * tables) if processed else 0

    @staticmethod
    def enriched(answer, statistics):
        answer["statistics"]["totalBytesProcessed"] = statistics["totalBytesProcessed"]
        answer["statistics"]["query"].update(statistics, totalBytesBilled=str(Jobs.billed(statistics)))
        answer["jobReference"].setdefault("location", "US")
        return answer
