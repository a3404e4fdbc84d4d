"""One health check from outside: what a container's health check and a start script ask."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class ProbeFailed(Exception):
    """No answer, or the name is not known to the server."""


def probe(target: str, service: str, timeout_s: float, credentials: grpc.ChannelCredentials | None = None) -> str:
    """The status under a name, `SERVING` or `NOT_SERVING`.

    Args:
        target: `host:port` or `unix:/path`.
        service: Name of a service or model; empty: the whole server.
        timeout_s: Longest wait, connecting included.
        credentials: None: plain text.

    Raises:
        ProbeFailed: Says what gRPC said.
    """
    opened = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
    with opened as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            raise ProbeFailed(f"{target}: {error.code().name}: {error.details()}") from error
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name
