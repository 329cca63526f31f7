"""A far side that only answers names: BigQuery's addresses are known, and nobody is there."""

import pathlib
import sys
import threading

import names

directory = pathlib.Path(sys.argv[1])
names.serve({"bigquery.googleapis.com": sys.argv[3:]}, [sys.argv[2]], directory / "names.json")
(directory / "ready").touch()
threading.Event().wait()
