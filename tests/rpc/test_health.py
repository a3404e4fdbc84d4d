"""Health and reflection, as probes and tools ask for them."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.support.messages import zigzag
from tests.support.processes import CALL_S, Served, served

from tickgate.v1 import signal_pb2 as pb

SERVICE = "tickgate.v1.SignalService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def check(server: Served, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_S).status)


@pytest.mark.parametrize("name", ["", SERVICE, "trend"])
def test_the_server_the_service_and_each_fit_model_are_serving(shared: Served, name: str) -> None:
    assert check(shared, name) == SERVING


def test_a_model_none_of_whose_versions_passed_its_checks_is_not_serving(shared: Served) -> None:
    assert check(shared, "broken") == NOT_SERVING


@pytest.mark.parametrize("name", ["nobody", "trend:1"])
def test_a_name_that_health_does_not_know_is_not_found(shared: Served, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(shared, name)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watching_a_name_that_health_does_not_know_says_so_and_stays(shared: Served) -> None:
    stub = health_pb2_grpc.HealthStub(shared.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=CALL_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


# An open watch must not hold up the end of its server.
NO_GRACE_ENDS = {"TICKGATE_SERVER__DRAIN_S": "3600"}


def watched(server: Served) -> Iterator[health_pb2.HealthCheckResponse]:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return iter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S))


def test_a_watch_sees_not_serving_when_the_server_is_told_to_end(repository: Path, transport: str) -> None:
    with served(repository, "--transport", transport, environment=NO_GRACE_ENDS) as server:
        watch = watched(server)
        assert next(watch).status == SERVING
        server.process.process.terminate()
        assert next(watch).status == NOT_SERVING
        assert list(watch) == []
        assert server.process.stop() == 0


def test_a_server_without_a_fit_model_is_up_and_not_serving(tmp_path: Path, transport: str) -> None:
    ready = "not serving: no model is fit"
    with served(tmp_path, "--transport", transport, ready=ready, environment=NO_GRACE_ENDS) as server:
        assert [check(server, name) for name in ("", SERVICE)] == [NOT_SERVING] * 2
        assert server.refusal(zigzag("A", 1)[0])[0] is grpc.StatusCode.NOT_FOUND
        watch = watched(server)
        assert next(watch).status == NOT_SERVING
        assert server.process.stop() == 0
        assert list(watch) == []


def test_reflection_lists_the_services_and_describes_them(shared: Served) -> None:
    database = ProtoReflectionDescriptorDatabase(shared.channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert [method.name for method in service.methods] == ["Predict", "PredictStream"]
    wanted = [field.name for field in pb.PredictRequest.DESCRIPTOR.fields]
    assert [field.name for field in service.FindMethodByName("Predict").input_type.fields] == wanted


def test_reflection_finds_the_file_of_a_method_as_load_generators_ask(shared: Served) -> None:
    database = ProtoReflectionDescriptorDatabase(shared.channel)
    found = database.FindFileContainingSymbol("tickgate.v1.SignalService.Predict")
    assert found.name == "tickgate/v1/signal.proto"
    unheard = reflection_pb2.ServerReflectionRequest(file_containing_symbol="tickgate.v1.SignalService.Unheard")
    stub = reflection_pb2_grpc.ServerReflectionStub(shared.channel)
    (answer,) = stub.ServerReflectionInfo(iter((unheard,)), timeout=CALL_S)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_of_an_unknown_name_is_not_found(shared: Served) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(shared.channel))
    with pytest.raises(KeyError):
        pool.FindServiceByName("tickgate.v1.Nothing")
