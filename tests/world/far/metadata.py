"""The metadata server of the machine that the host is: it gives the machine's own identity to who can reach it.

It listens where a machine of Google's has it, also while that address is nobody's: a test puts it there.
"""

import http.server
import json
import socket
import threading
import time

ADDRESS = ("169.254.169.254", 80)
# linux/in.h: an address may be bound before it is there.
IP_FREEBIND = 15
ACCOUNT = "host-a@demo-project.iam.gserviceaccount.com"
ROOT = "/computeMetadata/v1"


def serve(world):
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.headers.get("metadata-flavor") != "Google":
                return self.answer(403, b"")
            path = self.path.partition("?")[0]
            fault = world.faults().get("metadata")
            if fault == "down":
                return self.answer(503, b"busy")
            if fault == "hang":
                time.sleep(3600)
            if path == f"{ROOT}/project/project-id":
                return self.answer(200, b"demo-project")
            if path == f"{ROOT}/instance/service-accounts/default/token":
                token = world.tokens.mint("base", ACCOUNT, world.tokens.base_scope, 3600, {})
                return self.answer(200, json.dumps({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}).encode())
            return self.answer(404, b"")

        def answer(self, status, body):
            world.record({"host": "metadata", "method": "GET", "path": self.path, "status": status, "headers": [], "body": ""})
            self.send_response(status)
            self.send_header("metadata-flavor", "Google")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def server_bind(self):
            self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            super().server_bind()

    threading.Thread(target=Server(ADDRESS, Handler).serve_forever, daemon=True).start()
