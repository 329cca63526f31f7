"""Starts the SQL engine without a network: its extension comes from the installed package, below a home of its own.

It waits until somebody knocks: most of what a far side costs is the engine's start, and many tests have no query that gets so far.
It gets one CPU, so that a long query is long on every machine, and leaves the others to what is tested.
"""

import os
import pathlib
import random
import shutil
import socket
import sys

from places import DOOR

with socket.create_server(DOOR) as door:
    door.accept()[0].close()

import duckdb
import duckdb_extension_spatial

home = pathlib.Path(sys.argv[1])
extensions = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / "linux_amd64"
extensions.mkdir(parents=True, exist_ok=True)
source = pathlib.Path(duckdb_extension_spatial.__file__).parent / "extensions" / f"v{duckdb.__version__}"
shutil.copy(source / "spatial.duckdb_extension", extensions)
os.environ["HOME"] = str(home)
os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})
os.execv(pathlib.Path(sys.executable).parent / "bqemulator", ["bqemulator", "start", "--project", "demo-project", "--log-level", "error"])
