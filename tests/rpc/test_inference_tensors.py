"""Messages to arrays and back: whatever is sent is refused by name or is what the model takes, and comes back whole."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support import graphs

from tickgate.inference import grpc_service_pb2 as pb
from tickgate_server.models.plain import PlainModel, load_plain
from tickgate_server.models.plain_config import PlainConfig
from tickgate_server.rpc.inference.faults import AnswerTooLarge, InferenceFault
from tickgate_server.rpc.inference.tensors import STRINGS, read_inputs, wanted_outputs, write_answer

LIMIT = 1 << 20


@cache
def model_of(datatype: str, dims: tuple[int | None, ...] = (None, None), batch: int = 0) -> PlainModel:
    with TemporaryDirectory() as folder:
        place = graphs.place(Path(folder), "m", graphs.identity(datatype, dims))
        return load_plain(place, PlainConfig(max_batch_size=batch))


def answered(model: PlainModel, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """As a thread of inference does it."""
    specs = wanted_outputs(model, request)
    feeds, _ = read_inputs(model, request)
    arrays = model.run([spec.name for spec in specs], feeds, ort.RunOptions())
    return pb.ModelInferResponse.FromString(write_answer(model, request.id, specs, arrays, LIMIT))


def request_for(datatype: str, shape: tuple[int, ...], data: bytes) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    return pb.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=[data])


shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7)
numbers = st.sampled_from([name for name in graphs.TYPES if name != "BYTES"]).flatmap(
    lambda name: st.tuples(st.just(name), hnp.arrays(graphs.TYPES[name][1], shapes))
)
FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


@given(numbers)
def test_any_numbers_come_back_as_the_bytes_they_were(sent: tuple[str, Any]) -> None:
    datatype, array = sent
    response = answered(model_of(datatype), request_for(datatype, array.shape, array.tobytes()))
    assert response.raw_output_contents == [array.tobytes()]
    assert tuple(response.outputs[0].shape) == array.shape
    if datatype == "FP16":
        return
    field = FIELDS.get(datatype, "uint_contents" if datatype.startswith("U") else "int_contents")
    typed = request_for(datatype, array.shape, b"")
    typed.ClearField("raw_input_contents")
    getattr(typed.inputs[0].contents, field).extend(array.ravel().tolist())
    np.testing.assert_array_equal(read_inputs(model_of(datatype), typed)[0]["x"], array)


def test_a_typed_field_of_many_pieces_is_one_array() -> None:
    values = np.arange(10_001, dtype=np.float32)
    request = request_for("FP32", (1, values.size), b"")
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.fp32_contents.extend(values.tolist())
    np.testing.assert_array_equal(read_inputs(model_of("FP32"), request)[0]["x"], values[np.newaxis])


@given(st.lists(st.text(max_size=9), max_size=20))
def test_any_strings_come_back_as_the_bytes_they_were(values: list[str]) -> None:
    data = b"".join(len(value.encode()).to_bytes(4, "little") + value.encode() for value in values)
    response = answered(model_of("BYTES"), request_for("BYTES", (1, len(values)), data))
    assert response.raw_output_contents == [data]


def test_strings_beyond_the_bound_are_refused() -> None:
    with pytest.raises(InferenceFault, match=f"may have {STRINGS} elements, got {STRINGS + 1}"):
        read_inputs(model_of("BYTES"), request_for("BYTES", (1, STRINGS + 1), bytes(4 * (STRINGS + 1))))


def test_an_answer_is_as_large_as_it_may_be_and_no_larger() -> None:
    model = model_of("INT8")
    for size, fits in ((LIMIT, True), (LIMIT + 1, False)):
        request = request_for("INT8", (1, size), bytes(size))
        if fits:
            assert len(answered(model, request).raw_output_contents[0]) == size
        else:
            with pytest.raises(AnswerTooLarge):
                answered(model, request)


tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["x", "x", "x", "y"]),
    datatype=st.sampled_from([*graphs.TYPES, "FP32", "BYTES", "INT8", "BF16", ""]),
    shape=st.lists(st.one_of(st.integers(-1, 4), st.integers(-(2**63), 2**63 - 1)), max_size=4),
    contents=st.one_of(
        st.none(),
        st.builds(
            pb.InferTensorContents,
            int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
            fp32_contents=st.lists(st.floats(width=32), max_size=4),
            bytes_contents=st.lists(st.binary(max_size=3), max_size=4),
        ),
    ),
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.just("m"),
    inputs=st.lists(tensors, max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=20), max_size=2),
    outputs=st.lists(
        st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=st.sampled_from("xy")), max_size=2
    ),
)


@given(
    requests,
    st.sampled_from(["FP32", "INT8", "BYTES", "FP16", "BOOL"]),
    st.sampled_from([(None, None), (None, 2), (None,), (), (2, 2)]),
    st.sampled_from([0, 3]),
)
def test_whatever_is_sent_is_refused_in_words_or_fits_the_model(
    request: pb.ModelInferRequest, datatype: str, dims: tuple[int | None, ...], batch: int
) -> None:
    model = model_of(datatype, dims, batch if dims[:1] == (None,) else 0)
    try:
        specs = wanted_outputs(model, request)
        feeds, rows = read_inputs(model, request)
    except InferenceFault:  # anything else would be an error of ours
        return
    (array,) = feeds.values()
    assert array.dtype == graphs.TYPES[datatype][1]
    assert len(array.shape) == len(dims)
    assert all(wanted in (None, size) for wanted, size in zip(dims, array.shape, strict=True))
    assert rows == (array.shape[0] if model.config.max_batch_size else 1)
    (found,) = model.run([spec.name for spec in specs], feeds, ort.RunOptions())
    np.testing.assert_array_equal(found, array)
