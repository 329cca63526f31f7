import sys
try:
    import grpc
except ImportError:
    print("it has no grpc")
    sys.exit(3)
channel = grpc.secure_channel("bigquerystorage.googleapis.com:443", grpc.ssl_channel_credentials())
call = channel.unary_unary("/google.cloud.bigquery.storage.v1.BigQueryRead/CreateReadSession")
try:
    call(b"", timeout=20)
except grpc.RpcError as error:
    print(error.code().name, error.details())
    sys.exit(1)
