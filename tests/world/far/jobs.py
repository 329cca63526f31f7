"""BigQuery's jobs in front of the SQL engine: they run on their own, can be polled and cancelled, and say what they read."""

import hashlib
import json
import re
import secrets
import threading
import time

import router
from analyser import DDL, EXPORT
from sql import PROJECT, RESULTS

MIB = 1024 * 1024
DEFAULT_LOCATIONS = ["US", "EU"]
#: The hidden dataset that holds the results of jobs that name no table for them.
ANONYMOUS = "_" + secrets.token_hex(20)
#: How long a new job is waited for before it is answered as running, seconds.
AT_ONCE_S = 0.3

#: Who may see a dataset, as BigQuery says it.
ACCESS = [{"role": "READER", "userByEmail": "reader@example.com"},
          {"view": {"projectId": PROJECT, "datasetId": "hr", "tableId": "authorised"}}]


def reference(table):
    return dict(zip(("projectId", "datasetId", "tableId"), table))


def failed(why, reason="invalidQuery"):
    """The answer of a query that failed when it ran, or was not begun."""
    return 400, {"error": {"code": 400, "message": why, "errors": [{"message": why, "reason": reason}]}}


class Job:
    def __init__(self, reference, configuration):
        self.reference = reference
        self.configuration = configuration
        self.started_ms = int(time.time() * 1000)
        self.done = threading.Event()
        self.answer = None
        self.is_cancelled = False
        #: Its result has gone to a bucket, and the engine knows nothing of it.
        self.is_export = False
        #: The engine knows no locations: every job has an id of its own there.
        self.engine_id = f"{reference['location'].lower()}-{reference.get('jobId')}"

    def cancelled(self):
        self.is_cancelled = not self.done.is_set()

    def resource(self, state, error=None):
        status = {"state": state}
        if error:
            status.update(errorResult=error, errors=[error])
        return {
            "kind": "bigquery#job", "id": f"{PROJECT}:{self.reference.get('jobId', '')}", "jobReference": self.reference,
            "configuration": self.configuration, "status": status,
            "statistics": {"creationTime": str(self.started_ms), "startTime": str(self.started_ms), "query": {}},
        }


class Jobs:
    def __init__(self, engine, analyser, buckets, faults):
        self.engine = engine
        self.buckets = buckets
        self.analyser = analyser
        self.faults = faults
        self.lock = threading.Lock()
        self.jobs = {}

    def serve(self, method, path, query, body):
        name, names, _ = router.read(method, path) or (None, {}, {})
        own = {
            "jobs.insert": self.insert, "jobs.list": self.list, "jobs.delete": self.delete, "jobs.query": self.query, "jobs.get": self.get,
            "jobs.getQueryResults": self.results, "jobs.cancel": self.cancel, "tables.get": self.table, "datasets.get": self.dataset,
        }
        if name == "tabledata.list" and names["dataset"] == ANONYMOUS:
            return self.rows(names["project"], names["table"], query, body)
        if name == "tabledata.list" and "pages" in self.faults():
            page = self.page_of(query)
            return self.paged(page, self.engine.call(method, path, query, body))
        serve = own.get(name)
        return serve(*names.values(), query, body) if serve else self.engine.call(method, path, query, body)

    def table(self, project, dataset, name, query, body):
        """A table, how long it is and the tag of its state, which the engine does not say."""
        status, answer = self.engine.call("GET", f"/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{name}", query)
        if status == 200:
            answer["etag"] = f'"{hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:22]}"'
            answer["numBytes"] = str(self.analyser.bytes([(project, dataset, name)]))
            if (project, dataset, name) in self.analyser.views:
                answer["view"] = {"query": self.analyser.views[(project, dataset, name)], "useLegacySql": False}
        return status, answer

    def condition(self, method, path, headers):
        """What becomes of a request of a table that is to be carried out in one state of it alone; None: it is carried out."""
        wanted, seen = headers.get("if-match"), headers.get("if-none-match")
        if not (wanted or seen):
            return None
        _, there = self.serve("GET", path, {}, b"")
        if method == "GET" and seen == there.get("etag"):
            return 304, b""
        if method != "GET" and wanted not in (None, "*", there.get("etag")):
            why = "Precondition check failed."
            return 412, {"error": {"code": 412, "message": why, "errors": [{"message": why, "reason": "conditionNotMet"}]}}
        return None

    def dataset(self, project, dataset, query, body):
        """A dataset, where it lies and who may see it, which the engine does not say; whatever view is asked for, where a fault says so."""
        view = query.pop("datasetView", ["FULL"])[0]
        status, answer = self.engine.call("GET", f"/bigquery/v2/projects/{project}/datasets/{dataset}", query)
        answer.pop("access", None)
        if status == 200:
            answer["location"] = "US"
            if view != "METADATA" or self.faults().get("tells_access"):
                answer["access"] = ACCESS
        return status, answer

    def insert(self, project, query, body):
        asked = json.loads(body)
        configuration = asked["configuration"]
        if "query" not in configuration:
            return self.start(project, asked, {})
        sql = configuration["query"]
        dataset = (sql.get("defaultDataset") or {}).get("datasetId")
        kind, tables, target = self.analyser.read(sql["query"], project, dataset)
        statistics = self.statistics(kind, tables, target)
        stage = "dry_run_fails" if configuration.get("dryRun") else "start_fails"
        if stage in self.faults():
            return failed(*self.faults()[stage])
        if configuration.get("dryRun"):
            if "estimate" in self.faults():
                statistics["totalBytesProcessed"] = str(self.faults()["estimate"])
            return self.dry_run(project, asked, kind, target, self.told("dry_run", statistics))
        most = int(sql.get("maximumBytesBilled") or 1 << 62)
        billed = self.billed(statistics)
        if billed > most:
            why = f"Query exceeded limit for bytes billed: {most}. {billed} or higher required."
            return 400, {"error": {"code": 400, "message": why, "errors": [{"message": why, "reason": "bytesBilledLimitExceeded"}]}}
        if target:
            destination = reference(target)
        else:
            destination = {"projectId": project, "datasetId": ANONYMOUS, "tableId": f"anon{secrets.token_hex(16)}"}
        return self.start(project, asked, statistics, destination)

    def start(self, project, asked, statistics, destination=None, data=None):
        """Starts a job, of a load with its data. The engine is asked without the table for its result, where the client named none."""
        configuration = asked["configuration"]
        place = dict(asked.get("jobReference") or {})
        place = {"projectId": project, "jobId": place.get("jobId") or f"job_{secrets.token_hex(12)}",
                 "location": place.get("location") or "US"}
        name = (place["location"].lower(), place["jobId"])
        with self.lock:
            if name in self.jobs:
                return 409, {"error": {"code": 409, "message": "Already Exists: Job", "errors": [{"reason": "duplicate", "message": "Already Exists"}]}}
            job = self.jobs[name] = Job(place, configuration)
        asked = {"jobReference": {"projectId": project, "jobId": job.engine_id}, "configuration": json.loads(json.dumps(configuration))}
        if destination:
            configuration["query"].setdefault("destinationTable", destination)
        threading.Thread(target=self.run, args=(job, project, asked, statistics, data), daemon=True).start()
        # What is known to run for long is not waited for.
        is_long = self.faults().get("run_ms", 0) >= 10_000 or self.faults().get("held")
        job.done.wait(0 if is_long else AT_ONCE_S)
        return self.get(project, place["jobId"], {"location": [place["location"]]}, b"")

    def dry_run(self, project, asked, kind, target, statistics):
        """The engine runs what it is given as a dry run, too: it gets a query's shape, of which nothing is computed, and what cannot be read,
        to say what is wrong with it. Anything else is not for it to see."""
        sql = asked["configuration"]["query"]
        if target:
            if kind not in ("CREATE_TABLE", "CREATE_TABLE_AS_SELECT") and not self.analyser.resource(target):
                why = f"Not found: Table {target[0]}:{target[1]}.{target[2]}"
                return 404, {"error": {"code": 404, "message": why, "errors": [{"message": why, "reason": "notFound"}]}}
            job = Job({"projectId": project, "location": "US"}, dict(asked["configuration"]))
            answer = self.enriched(job.resource("DONE"), statistics)
            if "ddlTargetTable" not in statistics:
                answer["configuration"]["query"] = dict(sql, destinationTable=reference(target))
            return 200, answer
        text = sql["query"]
        if kind not in ("SELECT", "UNREADABLE"):
            answer = Job({"projectId": project, "location": "US"}, asked["configuration"]).resource("DONE")
            return 200, self.enriched(answer, statistics)
        if kind == "SELECT":
            sql["query"] = f"SELECT * FROM (\n{text.strip().rstrip(';')}\n) LIMIT 0"
        asked = json.loads(json.dumps(asked))
        destination = asked["configuration"]["query"].pop("destinationTable", None)
        status, answer = self.engine.call("POST", f"/bigquery/v2/projects/{project}/jobs", None, json.dumps(asked))
        if status != 200:
            return status, answer
        answer["configuration"]["query"]["query"] = text
        if destination:
            answer["configuration"]["query"]["destinationTable"] = destination
        return status, self.enriched(answer, statistics)

    def run(self, job, project, asked, statistics, data):
        time.sleep(self.faults().get("run_ms", 0) / 1000)
        while self.faults().get("held"):
            time.sleep(0.02)
        kept = asked["configuration"].get("query", {}).pop("destinationTable", None)
        if "sourceUris" in asked["configuration"].get("load", {}):
            data = self.buckets.read(asked["configuration"]["load"].pop("sourceUris"))
        if "extract" in asked["configuration"] or statistics.get("statementType") == "EXPORT_DATA":
            status, answer = 200, self.export(job, project, asked["configuration"])
            if "export_fails" in self.faults():
                # It has written by then.
                job.answer = failed(self.faults()["export_fails"])
                job.done.set()
                return
        elif data is None:
            status, answer = self.engine.call("POST", f"/bigquery/v2/projects/{project}/jobs", None, json.dumps(asked))
        else:
            status, answer = self.load(project, asked, data)
        if status == 200 and kept:
            # The engine keeps no results in named tables by itself.
            name = ".".join(kept[part] for part in ("projectId", "datasetId", "tableId"))
            sql = f"CREATE OR REPLACE TABLE `{name}` AS {asked['configuration']['query']['query']}"
            self.engine.must("POST", f"/bigquery/v2/projects/{project}/queries", {"query": sql, "useLegacySql": False})
        # A view that has become another since its dry run.
        also = [reference(table) for table in self.faults().get("reads_also", [])]
        if self.faults().get("names_no_table"):
            statistics = {name: said for name, said in statistics.items() if name != "referencedTables"}
        statistics = self.told("job", statistics)
        if also:
            statistics = dict(statistics, referencedTables=statistics.get("referencedTables", []) + also)
        if status == 200:
            if "query" in job.configuration:
                self.enriched(answer, statistics)["configuration"]["query"]["destinationTable"] = job.configuration["query"]["destinationTable"]
            answer["jobReference"] = job.reference
            answer["configuration"]["labels"] = job.configuration.get("labels", {})
        if "fails_naming_nothing" in self.faults():
            # Of a failure nobody knows what it has read, if it does not say so.
            why = self.faults()["fails_naming_nothing"]
            why, reason = why if isinstance(why, list) else (why, "invalidQuery")
            status, answer = 200, job.resource("DONE", {"reason": reason, "message": why, "location": "query"})
            answer["statistics"]["query"] = {"statementType": "SELECT", "totalBytesBilled": "0"}
        job.answer = (status, answer)
        job.done.set()

    def export(self, job, project, configuration):
        """Writes a table, or a query's result, to buckets."""
        if "extract" in configuration:
            extract = configuration["extract"]
            uris = extract.get("destinationUris") or [extract["destinationUri"]]
            sql = "SELECT * FROM `{projectId}.{datasetId}.{tableId}`".format(**extract["sourceTable"])
        else:
            export = EXPORT.fullmatch(configuration["query"]["query"])
            sql, uris = export["query"], re.findall(r"uri\s*=\s*['\"]([^'\"]+)", export["options"], re.IGNORECASE)
        asked = {"query": sql, "useLegacySql": False, "defaultDataset": configuration.get("query", {}).get("defaultDataset")}
        _, result = self.engine.call("POST", f"/bigquery/v2/projects/{project}/queries", None, json.dumps(asked))
        for uri in uris:
            self.buckets.write(uri, result)
        job.is_export = True
        return job.resource("DONE")

    def load(self, project, asked, data):
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Type: application/json\r\n\r\n{json.dumps(asked)}\r\n--{boundary}\r\nContent-Type: text/plain\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--".encode()
        return self.engine.call("POST", f"/upload/bigquery/v2/projects/{project}/jobs", {"uploadType": "multipart"}, body,
                                f"multipart/related; boundary={boundary}")

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
        """A page of them; the token of the next says which job it begins with."""
        places = list(self.jobs)
        most = int(query.get("maxResults", ["1000"])[0])
        first = next((at for at, (_, name) in enumerate(places) if [name] == query.get("pageToken")), 0)
        jobs = [self.get(project, name, {"location": [place]}, body)[1] for place, name in places[first:first + most]]
        more = {"nextPageToken": places[first + most][1]} if len(places) > first + most else {}
        # A list without any is left out, as Google's JSON leaves out what is empty.
        return 200, {"kind": "bigquery#jobList", **({"jobs": jobs} if jobs else {}), **more}

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
        if "fails_with" in self.faults():
            return failed(self.faults()["fails_with"])
        if not job.done.is_set():
            return 200, {"kind": "bigquery#getQueryResultsResponse", "jobReference": job.reference, "jobComplete": False}
        if job.answer[0] != 200:
            return job.answer
        error = job.answer[1].get("status", {}).get("errorResult")
        if error:
            return 400, {"error": {"code": 400, "message": error.get("message", ""), "errors": [error]}}
        if job.is_export:
            return 200, {"kind": "bigquery#getQueryResultsResponse", "jobReference": job.reference, "jobComplete": True, "schema": {"fields": []},
                         "totalRows": "0", "totalBytesProcessed": job.answer[1]["statistics"]["totalBytesProcessed"]}
        page = self.page_of(query)
        status, answer = self.paged(page, self.engine.call("GET", f"/bigquery/v2/projects/{project}/queries/{job.engine_id}", query))
        answer["jobReference"] = job.reference
        answer["totalBytesProcessed"] = job.answer[1]["statistics"]["totalBytesProcessed"]
        return status, answer

    def page_of(self, query):
        """Which rows a request asks for, where a fault has results in pages; their tokens say with which row a page begins, of whatever it is."""
        if "pages" not in self.faults():
            return None
        first = int(query.pop("pageToken", ["row-0"])[0].removeprefix("row-"))
        return first, first + int(query.pop("maxResults", [self.faults()["pages"]])[0])

    @staticmethod
    def paged(page, served):
        status, answer = served
        if page and status == 200:
            rows = answer.get("rows", [])
            answer["rows"] = rows[page[0]:page[1]]
            if len(rows) > page[1]:
                answer["pageToken"] = f"row-{page[1]}"
        return status, answer

    def rows(self, project, table, query, body):
        """The rows of a result, to whoever has a token: BigQuery asks only for the rights of whoever started the job."""
        for job in self.jobs.values():
            if job.configuration.get("query", {}).get("destinationTable", {}).get("tableId") == table:
                status, answer = self.results_of(job, project, query)
                return status, {"kind": "bigquery#tableDataList", **{part: answer[part] for part in ("totalRows", "rows") if part in answer}}
        return 404, {"error": {"code": 404, "message": f"Not found: Table {project}:{ANONYMOUS}.{table}", "errors": [{"reason": "notFound"}]}}

    def kept(self, table):
        """The table of the engine's that holds a result, by the hidden table's name; None where no job has it."""
        for job in list(self.jobs.values()):
            query = job.configuration.get("query", {})
            if query.get("destinationTable", {}).get("tableId") == table:
                asked = {part: query[part] for part in ("defaultDataset",) if part in query}
                asked.update(query=f"CREATE OR REPLACE TABLE `{PROJECT}.{RESULTS}.{table}` AS {query['query']}", useLegacySql=False)
                self.engine.must("POST", f"/bigquery/v2/projects/{PROJECT}/queries", asked)
                return RESULTS, table
        return None

    def cancel(self, project, name, query, body):
        job = self.find(name, query)
        if job is None:
            return self.get(project, name, query, body)
        if not job.done.is_set():
            # It is answered before the job has ended.
            threading.Timer(self.faults().get("cancel_ms", 0) / 1000, job.cancelled).start()
            time.sleep(0.01)
        status, resource = self.get(project, name, {"location": [job.reference["location"]]}, body)
        return status, {"kind": "bigquery#jobCancelResponse", "job": resource}

    def statistics(self, kind, tables, target):
        statistics = {"statementType": kind, "totalBytesProcessed": "0"}
        if tables is not None:
            statistics["totalBytesProcessed"] = str(self.analyser.bytes(tables))
            if tables:
                statistics["referencedTables"] = [reference(table) for table in tables]
        if target and kind in DDL:
            statistics["ddlTargetTable"] = reference(target)
            statistics["ddlOperationPerformed"] = "DROP" if kind == "DROP_TABLE" else "CREATE"
        return statistics

    def told(self, where, statistics):
        """What is said of a query in a dry run, or at the end of its job: where a fault says so, other tables than it reads."""
        others = self.faults().get("names_only", {}).get(where)
        return statistics if others is None else dict(statistics, referencedTables=[reference(table) for table in others])

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
