"""`TopologyService`: which worker of the server serves which symbol, from bytes to bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tickgate.v1 import topology_pb2 as pb
from tickgate_server.rpc.methods import UnaryMethod, handler

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
        service_addresses: The same of the service listeners; none where there are none.
    """

    epoch: str
    addresses: Sequence[str]
    answering: int
    service_addresses: Sequence[str] = ()

    def method(self) -> UnaryMethod:
        """`GetTopology`."""
        response = pb.GetTopologyResponse(
            workers=[
                pb.Worker(index=index, address=address, service_address=service)
                for index, (address, service) in enumerate(
                    zip_longest(self.addresses, self.service_addresses, fillvalue="")
                )
            ],
            symbol_hash=pb.SYMBOL_HASH_FNV1A64_JUMP,
            epoch=self.epoch,
            answering_index=self.answering,
        )
        return UnaryMethod(f"/{TOPOLOGY_NAME}/GetTopology", handler(pb.GetTopologyRequest, lambda _: response))


def reachable(address: str, advertise_host: str) -> str:
    """The address of a listener as callers are told it.

    Args:
        address: As it was bound: `host:port` or `unix:/path`; empty for a listener that there is not.
        advertise_host: What callers reach the server by; empty: the host it listens on.
    """
    if not address or address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    if advertise_host:
        host = advertise_host
    return f":{port}" if host in _EVERY_INTERFACE else f"{host}:{port}"
