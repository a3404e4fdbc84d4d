"""gRPC server reflection for both transports.

protobuf's pool finds services and not their methods; ghz asks for the method, as the protocol allows.
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection

from tickgate_server.rpc.health import HEALTH_NAME, SERVICE_NAME
from tickgate_server.rpc.topology import TOPOLOGY_NAME

REFLECTION_NAME: str = reflection.SERVICE_NAME
NAMES = (SERVICE_NAME, TOPOLOGY_NAME, HEALTH_NAME, REFLECTION_NAME)


class MethodPool:
    """The default pool, for the reflection servicer, that knows methods too."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        """Everything else as the default pool has it."""
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        """The file of a message, enum, field, service or method; raises `KeyError` where there is none."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            name, _, method = symbol.rpartition(".")
            service = self._pool.FindServiceByName(name)
            if method not in service.methods_by_name:
                raise
            return service.file


def enable(server: grpc.aio.Server) -> None:
    """Add reflection to grpcio's own server."""
    pool: Any = MethodPool()
    reflection.enable_server_reflection(NAMES, server, pool=pool)


def servicer() -> reflection.ReflectionServicer:
    """The servicer of grpcio-reflection over every service of the data listener."""
    pool: Any = MethodPool()
    return reflection.ReflectionServicer(NAMES, pool=pool)
