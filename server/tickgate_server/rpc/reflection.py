"""gRPC server reflection for every transport.

protobuf's pool finds services and not their methods; ghz asks for the method, as the protocol allows.
"""

from typing import Any, cast

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tickgate_server.rpc.methods import StreamMethod, handler

REFLECTION_NAME: str = reflection.SERVICE_NAME


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


def method(*services: str) -> StreamMethod:
    """Reflection of so many services, and of itself.

    Args:
        services: Full names.
    """
    pool: Any = MethodPool()
    servicer: Any = reflection.ReflectionServicer((*services, REFLECTION_NAME), pool=pool)

    def answer(request: reflection_pb2.ServerReflectionRequest) -> Message:
        (found,) = servicer.ServerReflectionInfo(iter((request,)), None)
        return cast("Message", found)

    return StreamMethod(
        f"/{REFLECTION_NAME}/ServerReflectionInfo", handler(reflection_pb2.ServerReflectionRequest, answer)
    )
