"""Google as the test world has it: names, tokens and BigQuery, strict about each, and keeping a record of all it was sent.

It knows nothing of the enforcer. It serves DNS, STS, IAM Credentials and BigQuery under their real names with certificates of its own,
refuses any bearer it did not mint or that has expired, and puts in front of the SQL engine what that lacks: referenced tables (see
analyser.py), bytes, and jobs that run on their own and can be cancelled.
"""

import argparse
import gzip
import http.server
import json
import pathlib
import secrets
import socket
import ssl
import threading
import time
import urllib.parse
import zlib

import trustme

import discovery
import metadata
import names as dns
import router
import storage
import tokens
from analyser import Analyser
from buckets import Buckets
from jobs import Jobs
from sql import PROJECT, VIEWS, Engine
from uploads import Uploads

NAMES = [
    "bigquery.googleapis.com",
    storage.NAME,
    "storage.googleapis.com",
    "www.googleapis.com",
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
    "oauth2.googleapis.com",
    "accounts.google.com",
    "example.com",
]
# The same services as another operator's cloud has them, and at endpoints of a network of the customer's own.
UNIVERSE = "googleapis.cloud.example"
PRIVATE = "-mine.p.googleapis.com"


def names():
    alike = [name.removesuffix(".googleapis.com") for name in NAMES if name.endswith(".googleapis.com")]
    return NAMES + [f"{name}.{UNIVERSE}" for name in alike] + [f"{name}{PRIVATE}" for name in alike]


def service(host):
    """Which of Google's names a name is one for."""
    for end in ("." + UNIVERSE, PRIVATE):
        if host.endswith(end):
            return host.removesuffix(end) + ".googleapis.com"
    return host


# Answers of a token endpoint's that cannot be.
LIES = {
    "html": (200, b"<html>Sign in to the network</html>"),
    "huge": (200, {"access_token": "x" * 200_000, "token_type": "Bearer", "expires_in": 300}),
    "wrong_type": (200, {"access_token": "x" * 40, "token_type": "mac", "expires_in": 300}),
    "ended": (200, {"access_token": "x" * 40, "token_type": "Bearer", "expires_in": -5}),
    "no_time": (200, {"access_token": "x" * 40, "token_type": "Bearer", "expires_in": "soon"}),
    # It is no token of anybody's, and is said to live for ever.
    "for_ever": (200, {"access_token": "x" * 40, "token_type": "Bearer", "expires_in": 2**64 - 1}),
    "no_token": (200, {"access_token": 5, "token_type": "Bearer", "expires_in": 300}),
    "throttled": (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}),
}


class World:
    """What all handlers share."""

    def __init__(self, options):
        self.dir = pathlib.Path(options.dir)
        self.engine = Engine()
        self.lock = threading.Lock()
        self.requests = open(self.dir / "requests.jsonl", "a", buffering=1)
        self.tokens = tokens.Tokens(self.dir, pathlib.Path(options.jwks), self.faults)
        self.analyser = Analyser(self.engine, {(PROJECT, "finance", name): text for name, text in VIEWS.items()})
        self.jobs = Jobs(self.engine, self.analyser, Buckets(self.dir / "buckets"), self.faults)
        self.uploads = Uploads(self.jobs)

    def faults(self):
        """What the test has asked to go wrong: {"sts": "down", "hold_ms": 100, "drip_ms": 100, "run_ms": 100, "gzip": "cut", "instead": [302, {"location": "…"}],
        "ahead_s": 120 (what answers say of the time), "iam": {} (datasets are for whom they are bound to; "standing", "denied": [DATASET], "no_jobs": true, "word": "rateLimitExceeded"), ...}."""
        try:
            return json.loads((self.dir / "faults.json").read_text())
        except FileNotFoundError:
            return {}

    def answered(self, entry):
        with self.lock:
            with open(self.dir / "answers.jsonl", "a") as answers:
                answers.write(json.dumps(entry) + "\n")

    def record(self, entry):
        with self.lock:
            self.requests.write(json.dumps(entry) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The head and the body of an answer are written one after the other: neither waits for the other to be acknowledged.
    disable_nagle_algorithm = True
    world = None

    def log_message(self, *_):
        pass

    def handle_any(self):
        length = int(self.headers.get("content-length") or 0)
        try:
            body = self.rfile.read(length)
        except OSError:
            body = b""
        if len(body) < length:
            # Cut off on its way.
            self.world.record({"unix": time.time(), "method": self.command, "path": self.path, "cut": len(body)})
            return self.connection.close()
        host = (self.headers.get("host") or "").split(":")[0]
        self.world.record({
            "unix": time.time(), "at": self.connection.getsockname()[0], "host": host, "method": self.command, "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode("utf-8", "replace"),
        })
        host = service(host)
        served = {
            "sts.googleapis.com": self.world.tokens.exchange,
            "iamcredentials.googleapis.com": self.world.tokens.impersonate,
            "oauth2.googleapis.com": self.world.tokens.of_a_key,
            "accounts.google.com": self.world.tokens.of_a_user,
        }.get(host)
        faults = self.world.faults()
        fault = faults.get(host.split(".")[0])
        if fault == "down":
            self.answer(503, {"error": "unavailable"})
        elif fault == "hang":
            time.sleep(3600)
        elif fault in LIES:
            self.answer(*LIES[fault])
        elif fault == "denied":
            self.answer(403, {"error": {"code": 403, "message": "Permission denied (or it may not exist).", "status": "PERMISSION_DENIED"}})
        elif fault == "moved":
            self.answer(302, {}, {"location": "https://example.com/elsewhere"})
        elif served:
            self.answer(*served(self.command, self.path, self.headers, body))
        elif host in ("bigquery.googleapis.com", "www.googleapis.com"):
            self.bigquery(body, faults)
        else:
            self.answer(200, {"served": host})

    def bigquery(self, body, faults):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if "key" in query or "access_token" in query:
            return self.answer(400, error(400, "a credential in the address", "invalid"))
        bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if not self.world.tokens.is_valid(bearer):
            return self.answer(401, error(401, "Request had invalid authentication credentials.", "authError"))
        if "iam" in faults and (denied := self.denied(bearer, url, body, faults["iam"])):
            return self.answer(403, error(403, f"Access Denied: {denied}", faults["iam"].get("word", "accessDenied")))
        if "instead" in faults:
            return self.answer(faults["instead"][0], {}, faults["instead"][1])
        if faults.get("hold_ms"):
            time.sleep(faults["hold_ms"] / 1000)
        more = {"etag": bearer} if faults.get("echo_authorization") else {}
        if self.command == "GET" and url.path in discovery.PATHS:
            return self.answer(*discovery.serve(query), more)
        if url.path.startswith("/upload/"):
            return self.answer(*self.world.uploads.serve(self.command, url, self.headers, body))
        is_start = self.command == "POST" and url.path.endswith("/jobs") and not json.loads(body)["configuration"].get("dryRun")
        if is_start and "start_instead" in faults:
            return self.answer(faults["start_instead"], {})
        status, value = self.world.jobs.condition(self.command, url.path, self.headers) or self.world.jobs.serve(self.command, url.path, query, body)
        if is_start and "start_answers" in faults:
            return self.answer(faults["start_answers"], {})
        if is_start:
            time.sleep(faults.get("hold_start_ms", 0) / 1000)
        return self.answer(status, value, more)

    def denied(self, bearer, url, body, iam):
        """Why IAM refuses a request: of a dataset by its path, of a query by the tables that it reads; None where it does not."""
        name, names, _ = router.read(self.command, url.path) or (None, {}, {})
        datasets = [f"{names['project']}.{names['dataset']}"] if "dataset" in names else []
        if name in ("jobs.insert", "jobs.query"):
            asked = json.loads(body)
            text = asked.get("configuration", asked).get("query", asked.get("query"))
            text = text["query"] if isinstance(text, dict) else text
            _, tables, _ = self.world.analyser.read(text, names["project"], None)
            datasets = [".".join(table[:2]) for table in tables or []]
            if iam.get("no_jobs"):
                return f"Project {names['project']}: User does not have bigquery.jobs.create permission in project {names['project']}."
        for dataset in datasets:
            is_held = dataset in iam.get("standing", []) or self.world.tokens.holds(bearer, dataset)
            if dataset in iam.get("denied", []) or not is_held:
                return f"Dataset {dataset}: Permission denied on dataset {dataset} (or it may not exist)."
        return None

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.world.faults().get("ahead_s", 0))

    def answer(self, status, value, headers=None):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        faults = self.world.faults()
        coding, parts = self.coded(body, headers or {}, faults.get("gzip"))
        length = sum(map(len, parts))
        self.world.answered({"method": self.command, "path": self.path, "coding": coding, "plain": len(body), "sent": length})
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.send_header("content-length", str(length))
        for name, text in {**({"content-encoding": coding} if coding else {}), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        pause_s = faults.get("drip_ms", 0) / 1000
        for part in parts:
            self.wfile.write(part)
            time.sleep(pause_s)

    def coded(self, body, headers, fault):
        """How an answer goes out, and what of it at once: compressed for whom Google's servers do that, each part so that it can be read when it comes."""
        parts = [body[at:at + 65536] for at in range(0, len(body), 65536)]
        asked = "gzip" in (self.headers.get("accept-encoding") or "") and "gzip" in (self.headers.get("user-agent") or "")
        if not asked or not body or fault == "never" or "content-encoding" in headers:
            return None, parts
        if fault == "bomb":
            parts = [b" " * 65536] * 1024
        coder = zlib.compressobj(wbits=31)
        parts = [coder.compress(part) + coder.flush(zlib.Z_SYNC_FLUSH) for part in parts] + [coder.flush()]
        if fault == "twice":
            return "gzip, gzip", [gzip.compress(b"".join(parts))]
        if fault == "cut":
            parts[-1] = parts[-1][:-1]
        if fault == "damaged":
            parts[-1] = parts[-1][:-8] + bytes([parts[-1][-8] ^ 1]) + parts[-1][-7:]
        if fault == "followed":
            parts.append(b"x")
        return ("br" if fault == "other" else "gzip"), parts

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any


def error(code, message, reason):
    return {"error": {"code": code, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, context):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.context = context
        super().__init__((address, 443), Handler)

    def finish_request(self, request, client_address):
        try:
            request.settimeout(30)
            with self.context.wrap_socket(request, server_side=True) as stream:
                stream.settimeout(600)
                super().finish_request(stream, client_address)
        except OSError:
            pass

    def handle_error(self, request, client_address):
        pass


def serve_tls(world, zones):
    authority = trustme.CA(organization_name="the test world")
    authority.cert_pem.write_to_path(str(world.dir / "world-ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names()).configure_cert(context)
    Handler.world = world
    storage.serve(world, zones[storage.NAME], authority.issue_cert(storage.NAME))
    for address in sorted({address for name, where in zones.items() if name != storage.NAME for address in where}):
        threading.Thread(target=Server(address, context).serve_forever, daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--jwks", required=True)
    parser.add_argument("--dns", nargs="+", required=True)
    parser.add_argument("--address", nargs="+", required=True, help="NAME=ADDRESS[,ADDRESS]")
    options = parser.parse_args()
    world = World(options)
    zones = {name: where.split(",") for name, where in (entry.split("=") for entry in options.address)}
    dns.serve(zones, options.dns, world.dir / "names.json")
    serve_tls(world, zones)
    metadata.serve(world)
    (world.dir / "ready").write_text(secrets.token_hex(4))
    threading.Event().wait()


main()
