"""Between the protocol's messages and arrays; runs on the threads of inference.

What a caller sends is held to what the model takes before anything is made of it: no array is larger than the message
that it came in.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate.inference import grpc_service_pb2 as pb
from tickgate_server.models.plain import DTYPES, PlainModel, TensorSpec
from tickgate_server.rpc.inference.faults import AnswerTooLarge, NotServed, RequestInvalid

# Sizes of one dimension, and of all but empty ones together: far beyond what a message holds, and within an int64.
_LARGEST = (1 << 31) - 1
_DIMENSIONS = 32
# Elements of a typed field that are converted at a time: the interpreter is another thread's in between.
_PIECE = 4096
_LENGTH = struct.Struct("<I")
# Most elements of a BYTES tensor: each is an object of its own.
STRINGS = 262_144

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


# -- in ----------------------------------------------------------------------------------------------------------------


def read_inputs(model: PlainModel, request: pb.ModelInferRequest) -> tuple[dict[str, NDArray[Any]], int]:
    """The arrays that a request feeds a model, and the rows in them: the batch where the model has one, else 1.

    Raises:
        RequestInvalid: An input is missing, unknown or given twice, or has another type, shape or size.
        NotServed: Shared memory.
    """
    specs = {spec.name: spec for spec in model.inputs}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestInvalid(
            f"raw_input_contents: expected one for each of {len(request.inputs)} inputs, got {len(raw)}"
        )
    feeds: dict[str, NDArray[Any]] = {}
    for place, given in enumerate(request.inputs):
        spec = specs.get(given.name)
        if spec is None:
            raise RequestInvalid(f"unexpected inference input '{given.name}' for model '{model.name}'")
        if given.name in feeds:
            raise RequestInvalid(f"inference input '{given.name}' for model '{model.name}' is given twice")
        _refuse_shared_memory(given.name, given.parameters)
        shape = _shape(model, spec, given)
        if raw and given.HasField("contents"):
            raise RequestInvalid(
                f"contents field must not be specified when using raw_input_contents for '{given.name}' for model"
                f" '{model.name}'"
            )
        array = _from_raw(model, spec, shape, raw[place]) if raw else _from_contents(model, spec, shape, given.contents)
        feeds[given.name] = array.reshape(shape)
    missing = [name for name in specs if name not in feeds]
    if missing:
        raise RequestInvalid(
            f"expected {len(specs)} inputs but got {len(feeds)} inputs for model '{model.name}': missing {missing}"
        )
    return feeds, _rows(model, feeds)


def _shape(model: PlainModel, spec: TensorSpec, given: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    if given.datatype != spec.datatype:
        raise RequestInvalid(
            f"inference input '{spec.name}' data-type is '{given.datatype}', but model '{model.name}' expects"
            f" '{spec.datatype}'"
        )
    shape: tuple[int, ...] = tuple(given.shape)
    fits = len(shape) == len(spec.dims) <= _DIMENSIONS and all(
        0 <= size <= _LARGEST and wanted in (-1, size) for size, wanted in zip(shape, spec.dims, strict=True)
    )
    # numpy multiplies the sizes of an empty array too.
    if not fits or math.prod(size for size in shape if size) > _LARGEST:
        raise RequestInvalid(
            f"unexpected shape for input '{spec.name}' for model '{model.name}'. Expected {_sizes(spec.dims)}, got"
            f" {_sizes(shape)}"
        )
    return shape


def _sizes(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape[:_DIMENSIONS]))}]"


def _rows(model: PlainModel, feeds: Mapping[str, NDArray[Any]]) -> int:
    largest = model.config.max_batch_size
    if not largest:
        return 1
    rows: int = next(iter(feeds.values())).shape[0]
    for name, array in feeds.items():
        if array.shape[0] != rows:
            raise RequestInvalid(f"input '{name}' batch size does not match other inputs for '{model.name}'")
    if rows > largest:
        raise RequestInvalid(f"inference request batch-size must be <= {largest} for '{model.name}'")
    return rows


def _from_raw(model: PlainModel, spec: TensorSpec, shape: tuple[int, ...], data: bytes) -> NDArray[Any]:
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        return _strings(model, spec, count, _split(model, spec, count, data))
    dtype = np.dtype(DTYPES[spec.datatype]).newbyteorder("<")
    if len(data) != count * dtype.itemsize:
        raise RequestInvalid(
            f"input byte size mismatch for input '{spec.name}' for model '{model.name}'. Expected"
            f" {count * dtype.itemsize}, got {len(data)}"
        )
    if spec.datatype == "BOOL":
        # Another byte than 0 and 1 is no bool for compiled code.
        return np.asarray(np.frombuffer(data, np.uint8) != 0)
    return np.frombuffer(data, dtype)


def _split(model: PlainModel, spec: TensorSpec, count: int, data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor: each after its length, four bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if len(found) == count or at + _LENGTH.size > len(data):
            break
        (length,) = _LENGTH.unpack_from(data, at)
        if at + _LENGTH.size + length > len(data):
            break
        at += _LENGTH.size
        found.append(data[at : at + length])
        at += length
    if at != len(data) or len(found) != count:
        raise RequestInvalid(
            f"input byte size mismatch for input '{spec.name}' for model '{model.name}'. Expected {count} elements,"
            f" each after its length in four bytes, and nothing more; {len(data)} bytes hold {len(found)} such"
        )
    return found


def _from_contents(
    model: PlainModel, spec: TensorSpec, shape: tuple[int, ...], contents: pb.InferTensorContents
) -> NDArray[Any]:
    count = math.prod(shape)
    wanted = _CONTENTS.get(spec.datatype)
    used = [found.name for found, _ in contents.ListFields()]
    if used and used != [wanted]:
        raise RequestInvalid(
            f"contents of input '{spec.name}' for model '{model.name}': expected"
            f" {wanted or 'raw_input_contents'} for {spec.datatype}, got {used}"
        )
    if wanted is None and count:
        raise RequestInvalid(
            f"unable to find data for input tensor '{spec.name}' for model '{model.name}' in request:"
            f" {spec.datatype} goes in raw_input_contents"
        )
    values = getattr(contents, wanted) if wanted else ()
    if len(values) != count:
        raise RequestInvalid(
            f"unexpected number of elements {len(values)} for inference input '{spec.name}' for model"
            f" '{model.name}', expecting {count}"
        )
    if spec.datatype == "BYTES":
        return _strings(model, spec, count, values)
    return _numbers(model, spec, values)


def _numbers(model: PlainModel, spec: TensorSpec, values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), DTYPES[spec.datatype])
    for at in range(0, len(values), _PIECE):
        try:
            array[at : at + _PIECE] = values[at : at + _PIECE]
        except OverflowError:
            raise RequestInvalid(
                f"contents of input '{spec.name}' for model '{model.name}': a value does not fit {spec.datatype}"
            ) from None
    return array


def _strings(model: PlainModel, spec: TensorSpec, count: int, values: Sequence[bytes]) -> NDArray[Any]:
    if count > STRINGS:
        raise RequestInvalid(
            f"input '{spec.name}' for model '{model.name}': a BYTES tensor may have {STRINGS} elements, got {count}"
        )
    array = np.empty(count, np.object_)
    for place, value in enumerate(values):
        try:
            array[place] = value.decode()
        except UnicodeDecodeError:
            raise RequestInvalid(
                f"input '{spec.name}' for model '{model.name}': element {place} is not UTF-8, which ONNX's strings are"
            ) from None
    return array


def _refuse_shared_memory(name: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    if "shared_memory_region" in parameters:
        raise NotServed(f"tensor '{name}': shared memory is not served")


# -- out ---------------------------------------------------------------------------------------------------------------


def wanted_outputs(model: PlainModel, request: pb.ModelInferRequest) -> list[TensorSpec]:
    """The outputs that a request asks for, in its order; all, in the model's, where it names none.

    Raises:
        RequestInvalid: An output is unknown, or asked for twice.
        NotServed: Shared memory, or classification.
    """
    if not request.outputs:
        return list(model.outputs)
    specs = {spec.name: spec for spec in model.outputs}
    found: dict[str, TensorSpec] = {}
    for asked in request.outputs:
        if asked.name not in specs:
            raise RequestInvalid(f"unexpected inference output '{asked.name}' for model '{model.name}'")
        if asked.name in found:
            raise RequestInvalid(f"inference output '{asked.name}' for model '{model.name}' is asked for twice")
        _refuse_shared_memory(asked.name, asked.parameters)
        if "classification" in asked.parameters:
            raise NotServed(f"output '{asked.name}': classification is not served")
        found[asked.name] = specs[asked.name]
    return list(found.values())


def write_answer(
    model: PlainModel, request_id: str, specs: Sequence[TensorSpec], arrays: Sequence[NDArray[Any]], limit: int
) -> bytes:
    """A response's bytes: each output with its shape as it came out, and its elements raw.

    Args:
        model: That ran.
        request_id: Echoed.
        specs: What was asked for.
        arrays: What came out, in that order.
        limit: Most bytes that the elements may have.

    Raises:
        AnswerTooLarge: They have more.
    """
    response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request_id)
    size = 0
    for spec, array in zip(specs, arrays, strict=True):
        data = _to_strings(array) if spec.datatype == "BYTES" else array
        size += len(data) if isinstance(data, bytes) else data.nbytes
        if size > limit:
            raise AnswerTooLarge(model.name, size, limit)
        response.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        response.raw_output_contents.append(data if isinstance(data, bytes) else _to_raw(data))
    return response.SerializeToString()


def _to_raw(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _to_strings(array: NDArray[Any]) -> bytes:
    parts: list[bytes] = []
    for value in array.flat:
        data = str(value).encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)
