"""An agent's unmodified google-cloud-bigquery in a network namespace that nobody has seen yet: first the client is made, then the namespace and its
loopback, and at once it queries. SQL by argument. Run it as root of a user namespace: a process with threads, as the client's libraries start, makes none.

Prints one JSON line: its process, the rows or the error as the client shows it, and what the client says of each time that it tried again.
"""

import ctypes
import fcntl
import json
import logging
import os
import socket
import struct
import sys

from google.cloud import bigquery
from google.oauth2.credentials import Credentials

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
LIBC = ctypes.CDLL(None, use_errno=True)

again = []
told = logging.Handler()
told.emit = lambda record: again.append(record.getMessage())
logging.getLogger("google.api_core.retry").addHandler(told)
logging.getLogger("google.api_core.retry").setLevel(logging.DEBUG)
client = bigquery.Client(project="demo-project", credentials=Credentials("ya29.the-agents-own-token"))
if LIBC.unshare(CLONE_NEWNET) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
try:
    done = {"rows": [[str(value) for value in row.values()] for row in client.query(sys.argv[1]).result()]}
except Exception as error:  # whatever the client raises is what the agent sees
    done = {"error": str(error)}
print(json.dumps({"pid": os.getpid(), "again": again, **done}), flush=True)
