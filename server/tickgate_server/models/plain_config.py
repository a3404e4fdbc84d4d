"""config.pbtxt: what a model in a plain layout says of itself, in protobuf's text format.

What decides which answers a model gives is read and held to its graph. What only tunes another server (batching delays,
instances, optimisations, warm-up) is passed over. What would change answers in a way that is not served here is
refused, and so is a field that is no configuration's.

Source of the names: Triton's model_config.proto.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tickgate_server.models.plain_errors import PlainPackageInvalid
from tickgate_server.models.plain_text import Node, Scalar, Word, parse_text

CONFIG_FILE = "config.pbtxt"
MODEL_FILE = "model.onnx"
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
# Larger files are no configuration.
CONFIG_BYTES = 1 << 20

# Datatype of the protocol by its name in configurations.
DATATYPES = {
    "TYPE_BOOL": "BOOL",
    "TYPE_UINT8": "UINT8",
    "TYPE_UINT16": "UINT16",
    "TYPE_UINT32": "UINT32",
    "TYPE_UINT64": "UINT64",
    "TYPE_INT8": "INT8",
    "TYPE_INT16": "INT16",
    "TYPE_INT32": "INT32",
    "TYPE_INT64": "INT64",
    "TYPE_FP16": "FP16",
    "TYPE_FP32": "FP32",
    "TYPE_FP64": "FP64",
    "TYPE_STRING": "BYTES",
}

_TUNING = frozenset({
    "backend_version", "cc_model_filenames", "dynamic_batching", "instance_group", "metric_tags", "model_metrics",
    "model_warmup", "optimization", "response_cache", "runtime",
})  # fmt: skip
_NOT_SERVED = frozenset({
    "batch_input", "batch_output", "ensemble_scheduling", "model_operations", "model_repository_agents",
    "model_transaction_policy", "sequence_batching",
})  # fmt: skip
_READ = frozenset({
    "name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "default_model_filename",
    "parameters",
})  # fmt: skip
_TENSOR_READ = frozenset({"name", "data_type", "dims"})
_TENSOR_PASSED = frozenset({"format", "label_filename"})
_INT32_MAX = (1 << 31) - 1

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """An input or output as the configuration has it.

    Attributes:
        name: As in the graph.
        datatype: Of the protocol.
        dims: Without the batch where `max_batch_size` > 0; -1: any size.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """What of a configuration is read; as it is here where a model has none.

    Attributes:
        max_batch_size: 0: no batch of its own, shapes are whole.
        inputs, outputs: Empty: as the graph has them.
        latest: Load so many of the highest versions; 0: see `specific`, and all where that is empty too.
        specific: Load these versions.
        model_file: Beside the version's folder name.
        parameters: For clients to read.
        stated: A version policy was.
    """

    max_batch_size: int = 0
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    latest: int = 1
    specific: tuple[int, ...] = ()
    model_file: str = MODEL_FILE
    parameters: dict[str, str] = field(default_factory=dict)
    stated: bool = False

    def wanted(self, versions: list[int]) -> list[int]:
        """Of the versions on disk, ascending, those that are to be loaded."""
        if self.specific:
            return [version for version in versions if version in self.specific]
        return versions[-self.latest :] if self.latest else versions


def read_config(folder: Path) -> PlainConfig:
    """Read `<repository>/<name>/config.pbtxt`; the default where there is none.

    Raises:
        PlainPackageInvalid: It cannot be read, or says what is not served here.
    """
    path = folder / CONFIG_FILE
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES + 1)
    except FileNotFoundError:
        return PlainConfig()
    except OSError as error:
        raise PlainPackageInvalid(path, f"cannot be read ({error})") from error
    if len(data) > CONFIG_BYTES:
        raise PlainPackageInvalid(path, f"expected at most {CONFIG_BYTES:,} bytes")
    try:
        return _config(parse_text(data.decode()), folder.name)
    except ValueError as error:  # UnicodeDecodeError is one
        raise PlainPackageInvalid(path, str(error)) from error


# -- what it means -----------------------------------------------------------------------------------------------------


def _config(tree: Node, name: str) -> PlainConfig:
    for key in tree:
        if key in _NOT_SERVED:
            raise ValueError(f"{key}: not served here")
        if key not in _READ | _TUNING:
            raise ValueError(f"{key}: no field of a model configuration")
    _require(tree, "name", name)
    _require(tree, "platform", PLATFORM)
    _require(tree, "backend", BACKEND)
    batch = _one(tree, "max_batch_size", _integer, 0)
    if not 0 <= batch <= _INT32_MAX:
        raise ValueError(f"max_batch_size: expected 0 to {_INT32_MAX}, got {batch}")
    model_file = _one(tree, "default_model_filename", _string, MODEL_FILE) or MODEL_FILE
    if Path(model_file).name != model_file or model_file in {".", ".."}:
        raise ValueError(f"default_model_filename: expected the name of a file, got {model_file!r}")
    latest, specific = _policy(tree)
    return PlainConfig(
        max_batch_size=batch,
        inputs=_tensors(tree, "input"),
        outputs=_tensors(tree, "output"),
        latest=latest,
        specific=specific,
        model_file=model_file,
        parameters=dict(_parameters(tree)),
        stated="version_policy" in tree,
    )


def _tensors(tree: Node, key: str) -> tuple[DeclaredTensor, ...]:
    found: dict[str, DeclaredTensor] = {}
    for place, value in enumerate(tree.get(key, [])):
        where = f"{key}[{place}]"
        one = _message(value, where)
        for name in one:
            if name not in _TENSOR_READ | _TENSOR_PASSED and not _is_default(one, name):
                raise ValueError(f"{where}.{name}: not served here")
        declared = DeclaredTensor(
            name=_one(one, "name", _string, ""),
            datatype=DATATYPES.get(_one(one, "data_type", _word, ""), ""),
            dims=tuple(_integer(dim, f"{where}.dims") for dim in one.get("dims", [])),
        )
        if not declared.name or declared.name in found:
            raise ValueError(f"{where}.name: expected a name of its own, got {declared.name!r}")
        if not declared.datatype:
            raise ValueError(f"{where}.data_type: expected one of {', '.join(DATATYPES)}")
        if any(dim < -1 for dim in declared.dims):
            raise ValueError(f"{where}.dims: expected sizes, or -1 for any, got {list(declared.dims)}")
        found[declared.name] = declared
    return tuple(found.values())


def _is_default(tree: Node, key: str) -> bool:
    """`optional: false`, say, asks for nothing."""
    return all(value == "false" and isinstance(value, Word) for value in tree[key])


def _policy(tree: Node) -> tuple[int, tuple[int, ...]]:
    """How many of the highest versions, 0 for all; or which."""
    if "version_policy" not in tree:
        return 1, ()
    policy = _inner(tree, "version_policy")
    if set(policy) == {"all"}:
        _only(_inner(policy, "all"), "version_policy.all")
        return 0, ()
    if set(policy) == {"latest"}:
        latest = _inner(policy, "latest")
        _only(latest, "version_policy.latest", "num_versions")
        count = _one(latest, "num_versions", _integer, 1)
        if count >= 1:
            return count, ()
    if set(policy) == {"specific"}:
        specific = _inner(policy, "specific")
        _only(specific, "version_policy.specific", "versions")
        versions = tuple(_integer(one, "version_policy.specific.versions") for one in specific.get("versions", []))
        if versions:
            return 0, versions
    raise ValueError("version_policy: expected one of latest {num_versions: 1 or more}, all {}, specific {versions}")


def _parameters(tree: Node) -> Iterator[tuple[str, str]]:
    for place, value in enumerate(tree.get("parameters", [])):
        where = f"parameters[{place}]"
        one = _message(value, where)
        inner = _inner(one, "value")
        _only(one, where, "key", "value")
        _only(inner, f"{where}.value", "string_value")
        yield _one(one, "key", _string, ""), _one(inner, "string_value", _string, "")


def _only(tree: Node, where: str, *known: str) -> None:
    for key in tree:
        if key not in known:
            raise ValueError(f"{where}.{key}: no field of it")


def _require(tree: Node, key: str, expected: str) -> None:
    found = _one(tree, key, _string, "")
    if found not in {"", expected}:
        raise ValueError(f"{key}: expected {expected!r}, got {found!r}")


def _one(tree: Node, key: str, read: "Callable[[Scalar | Node, str], _Value]", default: _Value) -> _Value:
    """The value of a field that is not repeated."""
    if key not in tree:
        return default
    if len(tree[key]) != 1:
        raise ValueError(f"{key}: expected one value, got {len(tree[key])}")
    return read(tree[key][0], key)


def _inner(tree: Node, key: str) -> Node:
    """A message in a field that is not repeated; an empty one where it is not given."""
    empty: Node = {}
    return _one(tree, key, _message, empty)


def _message(value: "Scalar | Node", where: str) -> Node:
    if isinstance(value, str):
        raise ValueError(f"{where}: expected a message in braces, got {value!r}")  # noqa: TRY004 - the file's fault
    return value


def _string(value: "Scalar | Node", where: str) -> str:
    if not isinstance(value, str) or isinstance(value, Word):
        raise ValueError(f"{where}: expected a string in quotes")  # noqa: TRY004 - the file's fault
    return value


def _word(value: "Scalar | Node", where: str) -> str:
    if not isinstance(value, Word):
        raise ValueError(f"{where}: expected a name without quotes")  # noqa: TRY004 - the file's fault
    return value


def _integer(value: "Scalar | Node", where: str) -> int:
    if not isinstance(value, Word) or not re.fullmatch(r"-?[0-9]{1,19}", value) or not _fits(int(value)):
        raise ValueError(f"{where}: expected an integer, got {value!r}")
    return int(value)


def _fits(value: int) -> bool:
    return -(1 << 63) <= value < 1 << 63
