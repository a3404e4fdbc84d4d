"""One health check from outside: what a container's health check and a start script ask."""

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class ProbeFailed(Exception):
    """No answer, or the name is not known to the server."""


def read_credentials(
    authority: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials | None:
    """What to ask a server with that speaks TLS; None, which is plain text, where no file is given.

    Args:
        authority: PEM file; the server's certificate must be signed by it. None: by those that gRPC brings.
        certificate: PEM file, for a server that asks for one; with `key`.
        key: Its private key.

    Raises:
        OSError: A file cannot be read.
        ValueError: A certificate without its key, or a key without its certificate.
    """
    if authority is None and certificate is None and key is None:
        return None
    if (certificate is None) != (key is None):
        raise ValueError("a certificate and its key go together")
    return grpc.ssl_channel_credentials(
        root_certificates=authority.read_bytes() if authority else None,
        private_key=key.read_bytes() if key else None,
        certificate_chain=certificate.read_bytes() if certificate else None,
    )


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
