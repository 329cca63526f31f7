"""What a request's target says, as the far side reads it: which method of BigQuery's, of what, with which parameters.

The methods are those of the API's own description, as BigQuery's client library for Python carries it. Run by itself it reads one request a
line on standard input, `[verb, target]` in JSON, and prints for each, by name, what readers of several kinds make of it: see `READERS`.
"""

import importlib.resources
import json
import re
import sys
import urllib.parse

from urllib3.util import parse_url

BASE = "/bigquery/v2/"
#: How the description calls what stands in a path, and how it is called here.
NAMES = {"projectsId": "project", "datasetsId": "dataset", "tablesId": "table", "jobsId": "job", "queriesId": "job", "modelsId": "model",
         "routinesId": "routine", "rowAccessPoliciesId": "policy"}
DISCOVERY = ("/$discovery/rest", "/discovery/v1/apis/bigquery/v2/rest")
UPLOAD = re.compile(r"/upload/bigquery/v2/projects/(?P<project>[^/]+)/jobs")


def methods(part):
    yield from part.get("methods", {}).values()
    for resource in part.get("resources", {}).values():
        yield from methods(resource)


def pattern(path):
    """A path of the description: what stands in braces is one segment, what follows it an action."""
    path = re.sub(r"\\\{(\w+)\\\}", lambda place: f"(?P<{NAMES[place[1]]}>[^/]+)", re.escape(path))
    return re.compile(re.escape(BASE) + path)


def table():
    text = importlib.resources.files("googleapiclient.discovery_cache.documents").joinpath("bigquery.v2.json").read_text()
    # Those with an action before those whose last name could hold it.
    found = sorted(methods(json.loads(text)), key=lambda method: "}:" not in method["flatPath"])
    return [(method["httpMethod"], pattern(method["flatPath"]), method["id"].removeprefix("bigquery.")) for method in found]


METHODS = table()


def route(verb, path):
    """(method, names) of a path, or None."""
    if verb == "GET" and path in DISCOVERY:
        return "discovery", {}
    uploads = {"POST": "jobs.insert (upload)", "PUT": "upload"}
    if verb in uploads and (match := UPLOAD.fullmatch(path)):
        return uploads[verb], match.groupdict()
    for own, shape, name in METHODS:
        if verb == own and (match := shape.fullmatch(path)):
            return name, match.groupdict()
    return None


def read(verb, target):
    """(method, names, parameters), or None. A name is decoded once, where it stands; a parameter is a list; one without a value is none."""
    if target.startswith("//"):
        # As the HTTP library has it.
        target = "/" + target.lstrip("/")
    url = urllib.parse.urlsplit(target)
    routed = route(verb, url.path)
    if routed is None:
        return None
    method, names = routed
    return method, {name: urllib.parse.unquote(text) for name, text in names.items()}, urllib.parse.parse_qs(url.query)


def normalised(verb, target):
    """As an HTTP library sends it on: dot segments are gone."""
    return read(verb, parse_url("http://bigquery.googleapis.com" + target).request_uri)


def decoded(verb, target):
    """As by one that decodes the path before it looks for segments in it."""
    path, mark, query = target.partition("?")
    return read(verb, urllib.parse.quote(urllib.parse.unquote(path), safe="/:$%?#;\\") + mark + query)


def semicolons(verb, target):
    """As by one that takes a semicolon for what divides parameters."""
    path, mark, query = target.partition("?")
    return read(verb, path + mark + query.replace(";", "&"))


READERS = {"plain": read, "normalised": normalised, "decoded": decoded, "semicolons": semicolons}


def said(reader, verb, target):
    try:
        found = reader(verb, target)
    except ValueError:
        return None
    return found and dict(zip(("method", "names", "parameters"), found))


def main():
    for line in sys.stdin:
        verb, target = json.loads(line)
        print(json.dumps({name: said(reader, verb, target) for name, reader in READERS.items()}), flush=True)


if __name__ == "__main__":
    main()
