"""`TopologyService`: which worker of the server serves which symbol, from bytes to bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from tickgate.v1 import topology_pb2 as pb
from tickgate_server.rpc.status import Status

TOPOLOGY_NAME: str = pb.DESCRIPTOR.services_by_name["TopologyService"].full_name

# Hosts that mean every interface: a caller cannot connect to them from elsewhere.
_EVERY_INTERFACE = ("0.0.0.0", "[::]", "*", "")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True, slots=True)
class Topology:
    """What a server's workers are.

    Attributes:
        epoch: Names this topology.
        addresses: What channels are made to, by worker; see `Worker.address` in the contract.
        answering: Index of the worker that this process is.
    """

    epoch: str
    addresses: Sequence[str]
    answering: int

    def answer(self, data: bytes) -> bytes | Status:
        """The answer to `GetTopology`, serialized; INVALID_ARGUMENT for bytes that are no request."""
        try:
            pb.GetTopologyRequest.FromString(data)
        except DecodeError as error:
            return Status(grpc.StatusCode.INVALID_ARGUMENT, f"request: {error}")
        response = pb.GetTopologyResponse(
            workers=[pb.Worker(index=index, address=address) for index, address in enumerate(self.addresses)],
            symbol_hash=pb.SYMBOL_HASH_FNV1A64_JUMP,
            epoch=self.epoch,
            answering_index=self.answering,
        )
        return bytes(response.SerializeToString())


def reachable(address: str, advertise_host: str) -> str:
    """The address of a listener as callers are told it.

    Args:
        address: As it was bound: `host:port` or `unix:/path`.
        advertise_host: What callers reach the server by; empty: the host it listens on.
    """
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    if advertise_host:
        host = advertise_host
    return f":{port}" if host in _EVERY_INTERFACE else f"{host}:{port}"
