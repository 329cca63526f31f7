"""BigQuery's upload protocols: a job and its data in one body, or the data in parts, each at a place that is told when the upload begins."""

import email.parser
import email.policy
import json
import re
import secrets
import urllib.parse


class Uploads:
    def __init__(self, jobs):
        self.jobs = jobs
        self.begun = {}

    def serve(self, method, url, headers, body):
        """A status, a value and headers."""
        query = urllib.parse.parse_qs(url.query)
        project = url.path.split("/")[5]
        kind = query.get("uploadType", [""])[0]
        if method == "POST" and kind == "multipart":
            head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
            job, data = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body).iter_parts()
            return self.jobs.start(project, json.loads(job.get_payload(decode=True)), {}, None, data.get_payload(decode=True))
        if method == "POST" and kind == "resumable":
            name = secrets.token_hex(16)
            self.begun[name] = (project, json.loads(body), bytearray())
            place = f"https://bigquery.googleapis.com{url.path}?uploadType=resumable&upload_id={name}"
            return 200, b"", {"location": place, "x-guploader-uploadid": name}
        if method == "PUT" and query.get("upload_id", [""])[0] in self.begun:
            return self.part(query["upload_id"][0], headers.get("content-range"), body)
        return 404, {"error": {"code": 404, "message": "no such upload", "errors": [{"reason": "notFound"}]}}

    def part(self, name, range, body):
        project, job, data = self.begun[name]
        first, total = 0, len(body)
        if range:
            part, total = re.fullmatch(r"bytes ([^/]+)/(.+)", range).groups()
            total = None if total == "*" else int(total)
            first = len(data) if part == "*" else int(part.split("-")[0])
        if first != len(data):
            return 400, {"error": {"code": 400, "message": "a part out of its turn", "errors": [{"reason": "invalid"}]}}
        data.extend(body)
        if len(data) != total:
            return 308, b"", {"range": f"bytes=0-{len(data) - 1}"} if data else {}
        del self.begun[name]
        return self.jobs.start(project, job, {}, None, bytes(data))
