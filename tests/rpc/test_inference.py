"""The Open Inference Protocol on both transports: what callers may send, what they get, where they meet it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from numpy.typing import NDArray
from tests.rpc.conftest import PATIENT_MS
from tests.support import graphs
from tests.support.desk import refused
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, served

from tickgate.inference import GRPCInferenceServiceStub
from tickgate.inference import grpc_service_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LATE = grpc.StatusCode.DEADLINE_EXCEEDED
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
NUMBERS = [name for name in graphs.TYPES if name != "BYTES"]


@dataclass(frozen=True)
class Stubs:
    """On a server's service and admin listeners, and the channels."""

    ask: GRPCInferenceServiceStub
    admin: GRPCInferenceServiceStub
    channel: grpc.Channel
    admin_channel: grpc.Channel


def stubs_of(server: Served) -> Iterator[Stubs]:
    with (
        grpc.insecure_channel(server.service, options=[*CHANNEL_OPTIONS, *LARGE]) as service,
        grpc.insecure_channel(server.admin, options=CHANNEL_OPTIONS) as admin,
    ):
        yield Stubs(GRPCInferenceServiceStub(service), GRPCInferenceServiceStub(admin), service, admin)


LARGE = [("grpc.max_receive_message_length", -1)]


@pytest.fixture(scope="module")
def stubs(inferring: Served) -> Iterator[Stubs]:
    yield from stubs_of(inferring)


def given(name: str, datatype: str, shape: tuple[int, ...], **contents: Any) -> pb.ModelInferRequest.InferInputTensor:
    found = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        found.contents.CopyFrom(pb.InferTensorContents(**contents))
    return found


def raw(model: str, *arrays: tuple[str, NDArray[Any]], **fields: Any) -> pb.ModelInferRequest:
    """A request with raw contents."""
    kinds = {np.dtype(dtype): name for name, (_, dtype) in graphs.TYPES.items()}
    return pb.ModelInferRequest(
        model_name=model,
        inputs=[given(name, kinds[array.dtype], array.shape) for name, array in arrays],
        raw_input_contents=[array.tobytes() for _, array in arrays],
        **fields,
    )


def add_sub(model: str = "simple", rows: int = 1, **fields: Any) -> pb.ModelInferRequest:
    first = np.arange(rows * 16, dtype=np.int32).reshape(rows, 16)
    return raw(model, ("INPUT0", first), ("INPUT1", np.full_like(first, 2)), **fields)


def infer(stubs: Stubs, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return stubs.ask.ModelInfer(request, timeout=CALL_S)


def arrays(response: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    return {
        output.name: np.frombuffer(data, graphs.TYPES[output.datatype][1]).reshape(tuple(output.shape))
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


# -- tensors -----------------------------------------------------------------------------------------------------------


def test_an_answer_has_id_version_and_each_output_beside_its_bytes(stubs: Stubs) -> None:
    response = infer(stubs, add_sub(rows=2, id="abc"))
    assert (response.model_name, response.model_version, response.id) == ("simple", "1", "abc")
    found = arrays(response)
    np.testing.assert_array_equal(found["OUTPUT0"], np.arange(32, dtype=np.int32).reshape(2, 16) + 2)
    np.testing.assert_array_equal(found["OUTPUT1"], np.arange(32, dtype=np.int32).reshape(2, 16) - 2)
    assert [output.HasField("contents") for output in response.outputs] == [False, False]


def test_only_the_outputs_asked_for_come_in_the_order_asked_for(stubs: Stubs) -> None:
    both = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("OUTPUT1", "OUTPUT0")]
    everything = arrays(infer(stubs, add_sub()))
    response = infer(stubs, add_sub(outputs=both))
    assert [output.name for output in response.outputs] == ["OUTPUT1", "OUTPUT0"]
    np.testing.assert_array_equal(arrays(response)["OUTPUT1"], everything["OUTPUT1"])
    assert [output.name for output in infer(stubs, add_sub(outputs=both[:1])).outputs] == ["OUTPUT1"]


def test_inputs_may_come_in_any_order(stubs: Stubs) -> None:
    first, second = np.full((1, 16), 5, np.int32), np.full((1, 16), 3, np.int32)
    found = arrays(infer(stubs, raw("simple", ("INPUT1", second), ("INPUT0", first))))
    assert np.all(found["OUTPUT1"] == 2)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_every_type_come_back_bit_for_bit(stubs: Stubs, datatype: str) -> None:
    dtype = graphs.TYPES[datatype][1]
    if datatype == "BOOL":
        array = np.array([[True, False, True]])
    elif datatype.startswith("FP"):
        info = np.finfo(dtype)
        array = np.array([[info.max, info.tiny, -0.0, np.nan, np.inf]], dtype)
    else:
        limits = np.iinfo(dtype)
        array = np.array([[limits.min, limits.max, 1]], dtype)
    response = infer(stubs, raw(f"identity_{datatype}", ("x", array)))
    assert response.raw_output_contents == [array.tobytes()]
    assert [(output.datatype, tuple(output.shape)) for output in response.outputs] == [(datatype, array.shape)]


CONTENTS = {
    "BOOL": {"bool_contents": [True, False]},
    "INT8": {"int_contents": [-128, 127]},
    "INT16": {"int_contents": [-32768, 32767]},
    "INT32": {"int_contents": [-(2**31), 2**31 - 1]},
    "INT64": {"int64_contents": [-(2**63), 2**63 - 1]},
    "UINT8": {"uint_contents": [0, 255]},
    "UINT16": {"uint_contents": [0, 65535]},
    "UINT32": {"uint_contents": [0, 2**32 - 1]},
    "UINT64": {"uint64_contents": [0, 2**64 - 1]},
    "FP32": {"fp32_contents": [0.5, -3.25]},
    "FP64": {"fp64_contents": [0.1, float("inf")]},
}


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_are_the_same_numbers(stubs: Stubs, datatype: str) -> None:
    (values,) = CONTENTS[datatype].values()
    request = pb.ModelInferRequest(
        model_name=f"identity_{datatype}", inputs=[given("x", datatype, (1, 2), **CONTENTS[datatype])]
    )
    assert arrays(infer(stubs, request))["y"].tolist() == [values]


def packed(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def test_strings_go_raw_and_typed_and_come_back_raw(stubs: Stubs) -> None:
    values = ("é".encode(), b"", b"a\0b", b"long" * 1000)
    one = given("x", "BYTES", (2, 2))
    for request in (
        pb.ModelInferRequest(model_name="identity_BYTES", inputs=[one], raw_input_contents=[packed(*values)]),
        pb.ModelInferRequest(model_name="identity_BYTES", inputs=[given("x", "BYTES", (2, 2), bytes_contents=values)]),
    ):
        response = infer(stubs, request)
        assert response.raw_output_contents == [packed(*values)]
        assert tuple(response.outputs[0].shape) == (2, 2)


@pytest.mark.parametrize("model", ["simple", "identity_BYTES", "identity_FP16", "lightgbm", "forest", "batched"])
def test_no_rows_in_no_rows_out(stubs: Stubs, model: str) -> None:
    requests = {
        "simple": add_sub(rows=0),
        "batched": raw(model, ("INPUT0", np.empty((0, 4), np.float32)), ("INPUT1", np.empty((0, 4), np.float32))),
        "identity_FP16": raw(model, ("x", np.empty((0, 3), np.float16))),
        "identity_BYTES": pb.ModelInferRequest(
            model_name=model, inputs=[given("x", "BYTES", (0, 3))], raw_input_contents=[b""]
        ),
    }
    features = raw(model, ("features", np.empty((0, 10), np.float32)))
    response = infer(stubs, requests.get(model, features))
    assert set(response.raw_output_contents) == {b""}
    assert {output.shape[0] for output in response.outputs} == {0}


def test_any_byte_but_0_is_true(stubs: Stubs) -> None:
    request = pb.ModelInferRequest(
        model_name="identity_BOOL", inputs=[given("x", "BOOL", (1, 3))], raw_input_contents=[b"\x00\x02\xff"]
    )
    assert infer(stubs, request).raw_output_contents == [b"\x00\x01\x01"]


# -- what is refused ---------------------------------------------------------------------------------------------------

FULL = np.zeros((1, 16), np.int32)
OUTPUT = pb.ModelInferRequest.InferRequestedOutputTensor
PARAMETER = pb.InferParameter
STRINGS_MISMATCH = (
    "input byte size mismatch for input 'x' for model 'identity_BYTES'. Expected 1 elements, each after its length in"
    " four bytes, and nothing more; {} bytes hold {} such"
)
REFUSED: dict[str, tuple[pb.ModelInferRequest, grpc.StatusCode, str]] = {
    "an unknown model": (add_sub("none"), NOT_FOUND, "Request for unknown model: 'none' is not found"),
    "an unknown version": (
        add_sub(model_version="7"),
        NOT_FOUND,
        "Request for unknown model: 'simple' version 7 is not found",
    ),
    "a version that is no number": (
        add_sub(model_version="latest"),
        INVALID,
        "failed to get model version from specified version string 'latest', version should be an integral value > 0",
    ),
    "version 0": (
        add_sub(model_version="0"),
        INVALID,
        "failed to get model version from specified version string '0', version should be an integral value > 0",
    ),
    "too few inputs": (
        raw("simple", ("INPUT0", FULL)),
        INVALID,
        "expected 2 inputs but got 1 inputs for model 'simple': missing ['INPUT1']",
    ),
    "an unknown input": (
        raw("simple", ("INPUT0", FULL), ("INPUT1", FULL), ("INPUT2", FULL)),
        INVALID,
        "unexpected inference input 'INPUT2' for model 'simple'",
    ),
    "an input twice": (
        raw("simple", ("INPUT0", FULL), ("INPUT0", FULL)),
        INVALID,
        "inference input 'INPUT0' for model 'simple' is given twice",
    ),
    "another type": (
        raw("simple", ("INPUT0", FULL.astype(np.float32)), ("INPUT1", FULL)),
        INVALID,
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    "another rank": (
        raw("simple", ("INPUT0", FULL), ("INPUT1", FULL[0])),
        INVALID,
        "unexpected shape for input 'INPUT1' for model 'simple'. Expected [-1,16], got [16]",
    ),
    "a negative size": (
        pb.ModelInferRequest(
            model_name="simple", inputs=[given("INPUT0", "INT32", (-1, 16))], raw_input_contents=[b""]
        ),
        INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [-1,16]",
    ),
    "sizes that no memory holds": (
        pb.ModelInferRequest(
            model_name="identity_INT8", inputs=[given("x", "INT8", (0, 2**63 - 1))], raw_input_contents=[b""]
        ),
        INVALID,
        f"unexpected shape for input 'x' for model 'identity_INT8'. Expected [-1,-1], got [0,{2**63 - 1}]",
    ),
    "a byte too few": (
        pb.ModelInferRequest(
            model_name="identity_INT16", inputs=[given("x", "INT16", (1, 2))], raw_input_contents=[b"abc"]
        ),
        INVALID,
        "input byte size mismatch for input 'x' for model 'identity_INT16'. Expected 4, got 3",
    ),
    "raw contents for some inputs only": (
        pb.ModelInferRequest(
            model_name="simple",
            inputs=[given("INPUT0", "INT32", (1, 16)), given("INPUT1", "INT32", (1, 16))],
            raw_input_contents=[FULL.tobytes()],
        ),
        INVALID,
        "raw_input_contents: expected one for each of 2 inputs, got 1",
    ),
    "raw and typed contents": (
        pb.ModelInferRequest(
            model_name="identity_INT8",
            inputs=[given("x", "INT8", (1, 1), int_contents=[1])],
            raw_input_contents=[b"\1"],
        ),
        INVALID,
        "contents field must not be specified when using raw_input_contents for 'x' for model 'identity_INT8'",
    ),
    "contents of another field": (
        pb.ModelInferRequest(model_name="identity_INT8", inputs=[given("x", "INT8", (1, 1), int64_contents=[1])]),
        INVALID,
        "contents of input 'x' for model 'identity_INT8': expected int_contents for INT8, got ['int64_contents']",
    ),
    "a number that does not fit": (
        pb.ModelInferRequest(model_name="identity_INT8", inputs=[given("x", "INT8", (1, 1), int_contents=[128])]),
        INVALID,
        "contents of input 'x' for model 'identity_INT8': a value does not fit INT8",
    ),
    "too many numbers": (
        pb.ModelInferRequest(model_name="identity_INT8", inputs=[given("x", "INT8", (1, 1), int_contents=[1, 2])]),
        INVALID,
        "unexpected number of elements 2 for inference input 'x' for model 'identity_INT8', expecting 1",
    ),
    "no contents at all": (
        pb.ModelInferRequest(model_name="identity_INT8", inputs=[given("x", "INT8", (1, 1))]),
        INVALID,
        "unexpected number of elements 0 for inference input 'x' for model 'identity_INT8', expecting 1",
    ),
    "halves in typed contents": (
        pb.ModelInferRequest(model_name="identity_FP16", inputs=[given("x", "FP16", (1, 1), fp32_contents=[1.0])]),
        INVALID,
        "contents of input 'x' for model 'identity_FP16': expected raw_input_contents for FP16, got ['fp32_contents']",
    ),
    "a string that is not whole": (
        pb.ModelInferRequest(
            model_name="identity_BYTES", inputs=[given("x", "BYTES", (1, 1))], raw_input_contents=[b"\5\0\0\0abc"]
        ),
        INVALID,
        STRINGS_MISMATCH.format(7, 0),
    ),
    "bytes behind the strings": (
        pb.ModelInferRequest(
            model_name="identity_BYTES", inputs=[given("x", "BYTES", (1, 1))], raw_input_contents=[packed(b"a", b"b")]
        ),
        INVALID,
        STRINGS_MISMATCH.format(10, 1),
    ),
    "a string that is not text": (
        pb.ModelInferRequest(
            model_name="identity_BYTES", inputs=[given("x", "BYTES", (1, 1))], raw_input_contents=[packed(b"\xff")]
        ),
        INVALID,
        "input 'x' for model 'identity_BYTES': element 0 is not UTF-8, which ONNX's strings are",
    ),
    "a batch larger than the model's": (
        raw("batched", ("INPUT0", np.zeros((9, 4), np.float32)), ("INPUT1", np.zeros((9, 4), np.float32))),
        INVALID,
        "inference request batch-size must be <= 8 for 'batched'",
    ),
    "batches that differ": (
        raw("batched", ("INPUT0", np.zeros((2, 4), np.float32)), ("INPUT1", np.zeros((1, 4), np.float32))),
        INVALID,
        "input 'INPUT1' batch size does not match other inputs for 'batched'",
    ),
    "an unknown output": (
        add_sub(outputs=[OUTPUT(name="OUTPUT2")]),
        INVALID,
        "unexpected inference output 'OUTPUT2' for model 'simple'",
    ),
    "an output twice": (
        add_sub(outputs=[OUTPUT(name="OUTPUT0"), OUTPUT(name="OUTPUT0")]),
        INVALID,
        "inference output 'OUTPUT0' for model 'simple' is asked for twice",
    ),
    "classification": (
        add_sub(outputs=[OUTPUT(name="OUTPUT0", parameters={"classification": PARAMETER(int64_param=1)})]),
        UNIMPLEMENTED,
        "output 'OUTPUT0': classification is not served",
    ),
    "shared memory": (
        pb.ModelInferRequest(
            model_name="identity_INT8",
            inputs=[
                pb.ModelInferRequest.InferInputTensor(
                    name="x",
                    datatype="INT8",
                    shape=(1, 1),
                    parameters={"shared_memory_region": PARAMETER(string_param="r")},
                )
            ],
        ),
        UNIMPLEMENTED,
        "tensor 'x': shared memory is not served",
    ),
    "a timeout in words": (
        add_sub(parameters={"timeout": PARAMETER(string_param="1s")}),
        INVALID,
        "invalid value type for 'timeout' parameter, expected int64_param, got string_param",
    ),
    "a timeout below nothing": (
        add_sub(parameters={"timeout": PARAMETER(int64_param=-1)}),
        INVALID,
        "invalid value for 'timeout' parameter, expected microseconds >= 0, got -1",
    ),
    "a reserved parameter": (
        add_sub(parameters={"triton_x": PARAMETER(bool_param=True)}),
        INVALID,
        "parameter 'triton_x': keys that start with 'triton_' are reserved",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_caller_is_told_what_is_wrong(stubs: Stubs, what: str) -> None:
    request, code, message = REFUSED[what]
    assert refused(stubs.ask.ModelInfer, request) == (code, message)


def test_what_is_no_request_is_refused(stubs: Stubs) -> None:
    send = stubs.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as error:
        send(b"\xff\xff", timeout=CALL_S)
    assert error.value.code() is INVALID


def test_other_parameters_change_nothing(stubs: Stubs) -> None:
    said = {"priority": PARAMETER(uint64_param=1), "headers": PARAMETER(string_param="x"), "timeout": PARAMETER()}
    said["timeout"].uint64_param = 2**64 - 1
    assert len(infer(stubs, add_sub(parameters=said)).outputs) == 2


# -- versions, readiness, descriptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "answers"), [("", "10"), ("2", "2"), ("1", "1"), ("10", "10")])
def test_the_highest_version_answers_unless_another_is_asked_for(stubs: Stubs, asked: str, answers: str) -> None:
    width = int(answers)
    array = np.ones((1, width), np.int64)
    response = infer(stubs, raw("versioned", ("INPUT0", array), ("INPUT1", array), model_version=asked))
    assert response.model_version == answers
    metadata = stubs.ask.ModelMetadata(pb.ModelMetadataRequest(name="versioned", version=asked), timeout=CALL_S)
    assert metadata.inputs[0].shape == [-1, width]
    assert metadata.versions == ([asked] if asked else ["1", "2", "10"])


def test_a_package_is_served_as_its_graph_is(stubs: Stubs) -> None:
    metadata = stubs.ask.ModelMetadata(pb.ModelMetadataRequest(name="forest"), timeout=CALL_S)
    found = [(one.name, one.datatype, list(one.shape)) for one in (*metadata.inputs, *metadata.outputs)]
    assert found == [("features", "FP32", [-1, 10]), ("probability_up", "FP32", [-1, 1])]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ModelMetadata", pb.ModelMetadataRequest(name="none")),
        ("ModelConfig", pb.ModelConfigRequest(name="none")),
    ],
)
def test_there_is_nothing_to_say_of_a_model_that_is_not_there(stubs: Stubs, method: str, request_: Any) -> None:
    assert refused(getattr(stubs.ask, method), request_) == (
        NOT_FOUND,
        "Request for unknown model: 'none' is not found",
    )


def test_the_readiness_of_a_version_that_is_no_number_is_an_error(stubs: Stubs) -> None:
    code, _ = refused(stubs.ask.ModelReady, pb.ModelReadyRequest(name="simple", version="one"))
    assert code is INVALID


def statistics(stubs: Stubs, name: str, version: str = "") -> pb.ModelStatistics:
    response = stubs.ask.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version), timeout=CALL_S)
    (found,) = response.model_stats
    return found


def test_statistics_count_each_versions_answers_rows_and_failures(stubs: Stubs) -> None:
    before = statistics(stubs, "batched", "1")
    rows = np.zeros((3, 4), np.float32)
    infer(stubs, raw("batched", ("INPUT0", rows), ("INPUT1", rows)))
    refused(stubs.ask.ModelInfer, raw("batched", ("INPUT0", rows)))
    after = statistics(stubs, "batched", "1")
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    for stage in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        was, now = getattr(before.inference_stats, stage), getattr(after.inference_stats, stage)
        assert now.count - was.count == 1
        assert now.ns > was.ns
    assert after.last_inference >= before.last_inference > 0 or before.last_inference == 0


def test_statistics_of_all_models_name_each_ready_version_once(stubs: Stubs) -> None:
    found = stubs.ask.ModelStatistics(pb.ModelStatisticsRequest(), timeout=CALL_S).model_stats
    names = [(one.name, one.version) for one in found]
    assert len(names) == len(set(names))
    assert {("versioned", "1"), ("versioned", "10"), ("forest", "1")} <= set(names)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("none", ""), "requested model 'none' is not available"),
        (("simple", "9"), "requested model version is not available for model 'simple'"),
    ],
)
def test_there_are_no_statistics_of_what_is_not_ready(stubs: Stubs, asked: tuple[str, str], message: str) -> None:
    request = pb.ModelStatisticsRequest(name=asked[0], version=asked[1])
    assert refused(stubs.ask.ModelStatistics, request) == (INVALID, message)


# -- time --------------------------------------------------------------------------------------------------------------

SMALL = np.full((1, 1), 3.0, np.float32)


def test_a_run_ends_between_two_nodes_when_its_timeout_is_over(stubs: Stubs) -> None:
    request = raw("long", ("x", SMALL), parameters={"timeout": PARAMETER(int64_param=20_000)})
    code, message = refused(stubs.ask.ModelInfer, request)
    assert (code, message) == (LATE, "Request timeout expired: 20000 us since arrival, while it ran")


def test_a_timeout_that_is_over_before_a_thread_is_free_ends_the_wait(stubs: Stubs) -> None:
    running = [stubs.ask.ModelInfer.future(raw("long", ("x", SMALL)), timeout=CALL_S) for _ in range(4)]
    code, message = refused(stubs.ask.ModelInfer, add_sub(parameters={"timeout": PARAMETER(int64_param=1)}))
    assert code is LATE
    assert message == "Request timeout expired: 1 us since arrival, while it waited"
    for call in running:
        call.cancel()


def test_the_models_threads_are_free_again_after_callers_have_gone(stubs: Stubs) -> None:
    for _ in range(3):
        running = [stubs.ask.ModelInfer.future(raw("long", ("x", SMALL)), timeout=CALL_S) for _ in range(4)]
        for call in running:
            call.cancel()
    assert len(infer(stubs, add_sub()).outputs) == 2  # 12 long runs would take a minute


def test_a_run_that_is_given_time_ends_by_itself(stubs: Stubs) -> None:
    request = raw("long", ("x", SMALL), parameters={"timeout": PARAMETER(int64_param=0)})
    assert arrays(infer(stubs, request))["y"].tolist() == [[3.0]]


def test_predict_answers_while_inference_threads_are_busy(inferring: Served, stubs: Stubs) -> None:
    running = [stubs.ask.ModelInfer.future(raw("long", ("x", SMALL)), timeout=CALL_S) for _ in range(60)]
    *history, last = zigzag("BUSY", 30)
    for request in history:
        request.model = "forest"
        refusal_or_answer(inferring, request)
    last.model = "forest"
    refusal_or_answer(inferring, last)
    assert not running[-1].done()  # it waits still, for half a minute of work: every tick was answered meanwhile
    for call in running:
        call.cancel()


def refusal_or_answer(server: Served, request: Any) -> None:
    """Either is an answer: this server's clock is live, the ticks are old."""
    assert server.predict(request).model.name in {"", "forest"}


# -- loading and unloading ---------------------------------------------------------------------------------------------


def index(stubs: Stubs, *, ready: bool = False) -> dict[str, list[tuple[str, str, str]]]:
    found: dict[str, list[tuple[str, str, str]]] = {}
    response = stubs.admin.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready), timeout=CALL_S)
    for model in response.models:
        found.setdefault(model.name, []).append((model.version, model.state, model.reason))
    return found


def test_a_model_is_gone_once_it_is_unloaded_and_back_once_it_is_loaded(stubs: Stubs) -> None:
    unload = pb.RepositoryModelUnloadRequest(model_name="gone")
    unload.parameters["unload_dependents"].bool_param = True
    stubs.admin.RepositoryModelUnload(unload, timeout=CALL_S)
    assert index(stubs)["gone"] == [("1", "UNAVAILABLE", "unloaded")]
    assert "gone" not in index(stubs, ready=True)
    assert stubs.ask.ModelReady(pb.ModelReadyRequest(name="gone"), timeout=CALL_S).ready is False
    assert stubs.ask.ServerReady(pb.ServerReadyRequest(), timeout=CALL_S).ready is True  # somebody wanted it so
    assert refused(stubs.ask.ModelInfer, add_sub("gone", model_version="1")) == (
        grpc.StatusCode.UNAVAILABLE,
        "Request for unknown model: 'gone' version 1 is not at ready state",
    )
    stubs.admin.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="gone"), timeout=CALL_S)
    assert index(stubs)["gone"] == [("1", "READY", "")]
    assert len(infer(stubs, add_sub("gone")).outputs) == 2
    assert statistics(stubs, "gone").inference_stats.success.count == 1  # since it was loaded


def test_unloading_what_is_not_there_is_no_error(stubs: Stubs) -> None:
    stubs.admin.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="never"), timeout=CALL_S)
    assert "never" not in index(stubs)


@pytest.mark.parametrize("name", ["never", "../inference0", "", "a/b", ".hidden"])
def test_loading_what_is_not_there_says_so(stubs: Stubs, name: str) -> None:
    code, message = refused(stubs.admin.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=name))
    assert code is grpc.StatusCode.INTERNAL
    assert message.startswith(f"failed to load '{name}', failed to poll from model repository")


def test_a_configuration_in_the_call_or_a_repositorys_name_is_not_served(stubs: Stubs) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="gone")
    load.parameters["config"].string_param = "{}"
    assert refused(stubs.admin.RepositoryModelLoad, load) == (
        UNIMPLEMENTED,
        "parameter 'config' of a repository call is not served",
    )
    assert refused(stubs.admin.RepositoryIndex, pb.RepositoryIndexRequest(repository_name="r")) == (
        UNIMPLEMENTED,
        "'repository_name' specification is not supported",
    )


def test_requests_under_way_finish_on_what_was_unloaded_and_loaded_anew_meanwhile(stubs: Stubs) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(lambda: [len(infer(stubs, add_sub("swapped")).outputs) for _ in range(50)]) for _ in range(4)
        ]
        for _ in range(10):
            stubs.admin.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="swapped"), timeout=CALL_S)
        assert [one.result(CALL_S) for one in asked] == [[2] * 50] * 4


def test_a_repository_call_is_finished_though_its_caller_has_gone(stubs: Stubs) -> None:
    stubs.admin.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="counted"), timeout=CALL_S)
    load = pb.RepositoryModelLoadRequest(model_name="long")
    calls = [stubs.admin.RepositoryModelLoad.future(load, timeout=CALL_S) for _ in range(3)]
    back = pb.RepositoryModelLoadRequest(model_name="counted")
    stubs.admin.RepositoryModelLoad(back, timeout=CALL_S)  # in order: it comes behind those
    for call in calls:
        call.cancel()
    calls = [stubs.admin.RepositoryModelLoad.future(load, timeout=CALL_S) for _ in range(3)]
    stubs.admin.ServerLive(pb.ServerLiveRequest(), timeout=CALL_S)  # they have begun
    for call in calls:
        call.cancel()
    assert index(stubs)["counted"] == [("1", "READY", "")]
    assert index(stubs)["long"] == [("1", "READY", "")]


# -- where it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "LogSettings"])
def test_the_service_listener_has_no_call_that_changes_the_repository(stubs: Stubs, method: str) -> None:
    send = stubs.channel.unary_unary(f"/{SERVICE}/{method}")
    assert refused(lambda request, timeout: send(request, timeout=timeout), b"")[0] is UNIMPLEMENTED  # type: ignore[arg-type]


def test_the_data_listener_has_none_of_it(inferring: Served) -> None:
    send = inferring.channel.unary_unary(f"/{SERVICE}/ServerLive")
    assert refused(lambda request, timeout: send(request, timeout=timeout), b"")[0] is UNIMPLEMENTED  # type: ignore[arg-type]


def test_reflection_names_the_service_where_it_is(stubs: Stubs) -> None:
    assert SERVICE in ProtoReflectionDescriptorDatabase(stubs.channel).get_services()
    assert SERVICE in ProtoReflectionDescriptorDatabase(stubs.admin_channel).get_services()


def test_nobody_meets_it_where_it_was_not_switched_on(shared: Served) -> None:
    for stubs in stubs_of(shared):
        for stub in (stubs.ask, stubs.admin):
            assert refused(stub.ServerLive, pb.ServerLiveRequest())[0] is UNIMPLEMENTED
        assert SERVICE not in ProtoReflectionDescriptorDatabase(stubs.channel).get_services()


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One thread, one place to wait, little time, small answers; and a repository with faults."""
    folder = tmp_path_factory.mktemp("narrow")
    publish_logistic(folder, latency_budget_ms=PATIENT_MS)
    graphs.place(folder, "simple", graphs.add_sub())
    graphs.place(folder, "long", graphs.long(400, 1_000_000))
    graphs.place(folder, "broken", b"no graph")
    settings = {"ENABLED": "true", "QUEUE_LIMIT": "1", "LONGEST_S": "0.5", "MAX_ANSWER_BYTES": "1024"}
    environment = {f"TICKGATE_INFERENCE__{name}": value for name, value in settings.items()}
    with served(folder, "--transport", transport, environment=environment) as running:
        loaded = "inference models loaded"
        if not running.process.logged(loaded):
            running.process.wait_for(loaded)
        yield running


def test_too_many_requests_too_much_time_and_too_large_answers_are_refused(narrow: Served) -> None:
    for stubs in stubs_of(narrow):
        running = [stubs.ask.ModelInfer.future(raw("long", ("x", SMALL)), timeout=CALL_S) for _ in range(6)]
        found = sorted((call.exception().code().name, call.exception().details()) for call in running)
        late = [details for name, details in found if name == "DEADLINE_EXCEEDED"]
        busy = [details for name, details in found if name == "RESOURCE_EXHAUSTED"]
        assert len(late) + len(busy) == 6
        assert late
        assert set(busy) == {"Exceeds maximum queue size: 1 requests wait, and no more may"}
        assert all(details.startswith("Request timeout expired: 500000 us since arrival, while it") for details in late)
        code, message = refused(stubs.ask.ModelInfer, add_sub(rows=9))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert message == "outputs of model 'simple' have 1152 bytes, an answer may have 1024"


def test_a_model_that_cannot_be_loaded_leaves_the_server_unready_and_the_others_served(narrow: Served) -> None:
    for stubs in stubs_of(narrow):
        assert stubs.ask.ServerReady(pb.ServerReadyRequest(), timeout=CALL_S).ready is False
        ((version, state, reason),) = index(stubs)["broken"]
        assert (version, state) == ("1", "UNAVAILABLE")
        assert "broken/1/model.onnx: ONNX Runtime refuses it" in reason
        code, message = refused(stubs.admin.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="broken"))
        assert code is grpc.StatusCode.INTERNAL
        assert "ONNX Runtime refuses it" in message
        assert len(infer(stubs, add_sub()).outputs) == 2


def test_a_drain_lets_runs_finish(transport: str, tmp_path: Path) -> None:
    publish_logistic(tmp_path, latency_budget_ms=PATIENT_MS)
    graphs.place(tmp_path, "long", graphs.long(400))
    environment = {"TICKGATE_INFERENCE__ENABLED": "true"}
    with served(tmp_path, "--transport", transport, environment=environment) as running:
        for stubs in stubs_of(running):
            if not running.process.logged("inference models loaded"):
                running.process.wait_for("inference models loaded")
            infer(stubs, raw("long", ("x", SMALL)))
            before = statistics(stubs, "long").inference_stats.success.count
            call = stubs.ask.ModelInfer.future(raw("long", ("x", SMALL)), timeout=CALL_S)
            stubs.ask.ServerLive(pb.ServerLiveRequest(), timeout=CALL_S)  # it came behind the call
            assert before == 1
            assert running.process.stop() == 0
            assert arrays(call.result(CALL_S))["y"].tolist() == [[3.0]]
