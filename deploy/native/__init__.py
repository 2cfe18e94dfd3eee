"""The line's servers on a machine without containers: installed into the user's cache, run on loopback.

    KafkaServer     the broker, from the artifacts of its release (Maven)
    TritonServer    the model server, from a wheel (pip)
    MinioServer     an S3 server (Go)
    VersityServer   a second S3 server, so that nothing depends on the first (Go)

`dapo up`, `dapo down` and `dapo doctor` are made of them, and so are tests, demo and benchmarks.
"""

from deploy.native.kafka import KafkaServer
from deploy.native.minio import MinioServer
from deploy.native.server import Server, ServerError
from deploy.native.triton import TritonServer
from deploy.native.versity import VersityServer

__all__ = ["KafkaServer", "MinioServer", "Server", "ServerError", "TritonServer", "VersityServer"]
