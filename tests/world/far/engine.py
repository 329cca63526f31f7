"""Starts the SQL engine without a network: its extension comes from the installed package, below a home of its own."""

import os
import pathlib
import shutil
import sys

import duckdb
import duckdb_extension_spatial

home = pathlib.Path(sys.argv[1])
extensions = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / "linux_amd64"
extensions.mkdir(parents=True, exist_ok=True)
source = pathlib.Path(duckdb_extension_spatial.__file__).parent / "extensions" / f"v{duckdb.__version__}"
shutil.copy(source / "spatial.duckdb_extension", extensions)
os.environ["HOME"] = str(home)
os.execv(pathlib.Path(sys.executable).parent / "bqemulator", ["bqemulator", "start", "--project", "demo-project", "--log-level", "error"])
