"""A far side that only answers names: BigQuery's addresses are known and two others, and nobody is there."""

import pathlib
import sys
import threading

import names

directory = pathlib.Path(sys.argv[1])
zones = {"bigquery.googleapis.com": sys.argv[3:], "example.com": ["192.0.2.9"], "storage.googleapis.com": ["192.0.2.10"]}
names.serve(zones, [sys.argv[2]], directory / "names.json")
(directory / "ready").touch()
threading.Event().wait()
