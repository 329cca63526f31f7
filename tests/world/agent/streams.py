"""An agent on one HTTP/2 connection. Each line of its standard input is a JSON list of requests, sent at once, each a stream of its own.

For each request it prints a JSON line when the head of its answer comes, and one when the answer ends: `whole` (END_STREAM), `reset`
(RST_STREAM) or `lost` (the connection ended). It never connects a second time. A request that is `stalled` gives no leave to send more
of its answer than fits at first, and says so when that is used up.
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

HOST = sys.argv[2] if len(sys.argv) > 2 else "bigquery.googleapis.com"
#: The largest answer whose text is shown, bytes.
SHOWN_BYTES_MAX = 65536


def say(number, **what):
    print(json.dumps({"request": number, **what}), flush=True)


class Streams:
    def __init__(self, authority):
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2"])
        self.wire = context.wrap_socket(socket.create_connection((HOST, 443)), server_hostname=HOST)
        if self.wire.selected_alpn_protocol() != "h2":
            raise SystemExit("HTTP/2 is not spoken")
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        #: The requests under way, their numbers, and what came of each so far, by stream.
        self.open = {}

    def send(self, number, request):
        stream = self.connection.get_next_available_stream_id()
        body = json.dumps(request["body"]).encode() if "body" in request else b""
        head = [(":method", request["method"]), (":authority", request.get("authority", HOST)), (":scheme", "https"), (":path", request["path"]),
                ("content-type", "application/json")]
        self.connection.send_headers(stream, head, end_stream=not body)
        if body:
            self.connection.send_data(stream, body, end_stream=True)
        self.open[stream] = (number, request, bytearray())

    def take(self, event):
        if getattr(event, "stream_id", None) not in self.open:
            return
        number, request, got = self.open[event.stream_id]
        if isinstance(event, h2.events.ResponseReceived):
            head = dict(event.headers)
            say(number, status=int(head[":status"]), length=int(head.get("content-length", -1)))
        elif isinstance(event, h2.events.DataReceived):
            got += event.data
            if not request.get("stalled"):
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif self.connection.remote_flow_control_window(event.stream_id) == 0:
                say(number, stalled=True)
        elif isinstance(event, h2.events.StreamEnded):
            self.end(event.stream_id, "whole")
        elif isinstance(event, h2.events.StreamReset):
            self.end(event.stream_id, "reset")

    def end(self, stream, how):
        number, _, got = self.open.pop(stream)
        shown = {"body": got.decode()} if how == "whole" and len(got) <= SHOWN_BYTES_MAX else {}
        say(number, ending=how, got=len(got), **shown)

    def receive(self):
        """Takes what the wire gives next. False when it gives nothing more."""
        try:
            self.wire.sendall(self.connection.data_to_send())
            data = self.wire.recv(65536)
        except OSError:
            return False
        for event in self.connection.receive_data(data) if data else []:
            self.take(event)
        return bool(data)


streams = Streams(sys.argv[1])
for line in sys.stdin:
    for number, request in enumerate(json.loads(line)):
        streams.send(number, request)
    while streams.open:
        if not streams.receive():
            for stream in list(streams.open):
                streams.end(stream, "lost")
            sys.exit(1)
