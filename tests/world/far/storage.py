"""BigQuery's storage API in front of the SQL engine's: over TLS, to whoever has a token, and with the results of queries among its tables."""

import sys
import time
from concurrent import futures

import grpc

# What the messages come with is a client that would load it, for nothing and for longer than all else here takes.
sys.modules["pandas"] = None
from google.cloud.bigquery_storage_v1 import types

from jobs import ANONYMOUS
from places import STORAGE

NAME = "bigquerystorage.googleapis.com"
READ = "/google.cloud.bigquery.storage.v1.BigQueryRead/"
#: What is not compressed twice over is as long as it says.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Storage(grpc.GenericRpcHandler):
    def __init__(self, world):
        self.world = world
        self.channel = grpc.insecure_channel("{}:{}".format(*STORAGE), options=OPTIONS)

    def engine(self):
        self.world.engine.wait()
        return self.channel

    def service(self, details):
        """Puts on record what was called; whoever has no token is refused."""
        headers = [[name, value] for name, value in details.invocation_metadata if isinstance(value, str)]
        self.world.record({"unix": time.time(), "host": NAME, "method": "POST", "path": details.method, "headers": headers})
        bearer = dict(headers).get("authorization", "").removeprefix("Bearer ")
        if not self.world.tokens.is_valid(bearer):
            return grpc.unary_unary_rpc_method_handler(self.unauthenticated)
        served = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(self.create),
            "SplitReadStream": grpc.unary_unary_rpc_method_handler(self.split),
            "ReadRows": grpc.unary_stream_rpc_method_handler(self.rows),
        }
        return served.get(details.method.removeprefix(READ))

    @staticmethod
    def unauthenticated(_, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.")

    def ask(self, method, body, context):
        try:
            return self.engine().unary_unary(READ + method)(body, timeout=60)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())

    def create(self, body, context):
        asked = types.CreateReadSessionRequest.deserialize(body)
        named = asked.read_session.table
        _, project, _, dataset, _, table = named.split("/")
        if dataset == ANONYMOUS:
            kept = self.world.jobs.kept(table)
            if kept is None:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: Table {project}:{dataset}.{table}")
            asked.read_session.table = f"projects/{project}/datasets/{kept[0]}/tables/{kept[1]}"
        made = types.ReadSession.deserialize(self.ask("CreateReadSession", types.CreateReadSessionRequest.serialize(asked), context))
        made.table = named
        # The engine does not say it.
        scanned = 0 if dataset == ANONYMOUS else self.world.jobs.analyser.bytes([(project, dataset, table)])
        made.estimated_total_bytes_scanned = self.world.faults().get("scans", scanned)
        return types.ReadSession.serialize(made)

    def split(self, body, context):
        return self.ask("SplitReadStream", body, context)

    def rows(self, body, context):
        """The rows, each message as often as the test has asked for, and so far apart."""
        faults = self.world.faults()
        if "rows_error" in faults:
            context.set_trailing_metadata((("grpc-status-details-bin", faults["rows_error"].encode()),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, faults["rows_error"])
        try:
            for message in self.engine().unary_stream(READ + "ReadRows")(body, timeout=60):
                for _ in range(faults.get("rows_again", 1)):
                    yield message
                    time.sleep(faults.get("rows_drip_ms", 0) / 1000)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())


def serve(world, addresses, certificate):
    """Serves until the process ends."""
    pair = (certificate.private_key_pem.bytes(), b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), handlers=[Storage(world)], options=OPTIONS)
    for address in addresses:
        server.add_secure_port(f"[{address}]:443" if ":" in address else f"{address}:443", grpc.ssl_server_credentials([pair]))
    server.start()
    world.serving = server
