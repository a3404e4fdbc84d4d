"""TopologyService of a server of one process, on both transports."""

from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.support.messages import zigzag
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, server

from tickgate.v1 import topology_pb2, topology_pb2_grpc
from tickgate_client import RoutedSignalClient
from tickgate_server.rpc.topology import reachable

GET_TOPOLOGY = "/tickgate.v1.TopologyService/GetTopology"


def test_a_server_of_one_process_is_its_only_worker(shared: Served) -> None:
    stub = topology_pb2_grpc.TopologyServiceStub(shared.channel)
    first, second = (stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S) for _ in range(2))
    assert [(worker.index, worker.address) for worker in first.workers] == [(0, shared.address)]
    assert first.symbol_hash == topology_pb2.SYMBOL_HASH_FNV1A64_JUMP
    assert first == second
    assert first.epoch


def test_bytes_that_are_no_request_are_invalid(shared: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shared.channel.unary_unary(GET_TOPOLOGY)(b"\xff", timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reflection_lists_the_topology(shared: Served) -> None:
    assert "tickgate.v1.TopologyService" in ProtoReflectionDescriptorDatabase(shared.channel).get_services()


def test_a_server_on_every_interface_is_found_by_the_host_that_was_asked(repository: Path, transport: str) -> None:
    arguments = ("--listen", "0.0.0.0:0", "--clock", "replay", "--transport", transport)
    with server(repository, *arguments) as (_, address):
        port = address.rpartition(":")[2]
        target = f"localhost:{port}"
        with grpc.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            stub = topology_pb2_grpc.TopologyServiceStub(channel)
            answer = stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S)
        assert [worker.address for worker in answer.workers] == [f":{port}"]
        with RoutedSignalClient(target, deadline_s=CALL_S) as client:
            client.connect(timeout_s=CALL_S)
            assert client.routes.targets == (target,)
            assert client.ask(zigzag("A", 1)[0], CALL_S).symbol == "A"


@pytest.mark.parametrize(
    ("address", "advertised", "told"),
    [
        ("127.0.0.1:7", "", "127.0.0.1:7"),
        ("0.0.0.0:7", "", ":7"),
        ("[::]:7", "", ":7"),
        ("[::1]:7", "", "[::1]:7"),
        ("0.0.0.0:7", "gate.desk", "gate.desk:7"),
        ("unix:/run/t.1", "gate.desk", "unix:/run/t.1"),
    ],
)
def test_an_address_is_told_as_callers_can_use_it(address: str, advertised: str, told: str) -> None:
    assert reachable(address, advertised) == told
