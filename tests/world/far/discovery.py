"""BigQuery's description of itself, as much of it as a client needs to find a few methods. Served to whoever has a token."""

ROOT = "https://bigquery.googleapis.com/"
PATHS = ("/$discovery/rest", "/discovery/v1/apis/bigquery/v2/rest")


def method(name, verb, path, *required):
    parameters = {part: {"type": "string", "location": "path", "required": True} for part in required}
    return {"id": f"bigquery.{name}", "httpMethod": verb, "path": path, "flatPath": path,
            "parameters": parameters, "parameterOrder": list(required)}


DOCUMENT = {
    "kind": "discovery#restDescription", "discoveryVersion": "v1", "id": "bigquery:v2", "name": "bigquery", "version": "v2",
    "title": "BigQuery API", "protocol": "rest", "rootUrl": ROOT, "servicePath": "bigquery/v2/", "basePath": "/bigquery/v2/",
    "baseUrl": ROOT + "bigquery/v2/", "batchPath": "batch/bigquery/v2",
    "parameters": {"alt": {"type": "string", "location": "query", "enum": ["json"], "default": "json"}},
    "resources": {
        "projects": {"methods": {"list": method("projects.list", "GET", "projects")}},
        "datasets": {"methods": {"list": method("datasets.list", "GET", "projects/{projectId}/datasets", "projectId")}},
        "jobs": {"methods": {
            "insert": method("jobs.insert", "POST", "projects/{projectId}/jobs", "projectId"),
            "query": method("jobs.query", "POST", "projects/{projectId}/queries", "projectId"),
            "get": method("jobs.get", "GET", "projects/{projectId}/jobs/{jobId}", "projectId", "jobId"),
        }},
    },
    "schemas": {},
}


def serve(query):
    """The document, for the one version there is."""
    if query.get("version", ["v2"]) != ["v2"]:
        return 404, {"error": {"code": 404, "message": "Discovery document not found for API service: bigquery"}}
    return 200, DOCUMENT
