"""Any ONNX model, loaded for itself: whatever inputs and outputs its graph has, no features, no meaning of its outputs.

A plain layout is `<repository>/<name>/<version>/model.onnx`, with or without a `config.pbtxt` beside the versions; what
that says is held to the graph. A version with a manifest is held to its hash and its golden vectors as well.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tickgate_server.models.errors import PackageError
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE, Manifest, read_manifest
from tickgate_server.models.plain_config import CONFIG_FILE, DeclaredTensor, PlainConfig
from tickgate_server.models.plain_errors import PlainPackageInvalid

GOLDEN_TOLERANCE = 1e-5

# By ONNX Runtime's name of a type: the protocol's, and numpy's.
_TYPES: dict[str, tuple[str, Any]] = {
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(string)": ("BYTES", np.object_),
}
DTYPES: dict[str, Any] = dict(_TYPES.values())


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as it is served.

    Attributes:
        name: As in the graph.
        datatype: Of the protocol; `DTYPES` has numpy's.
        dims: The whole shape, batch and all; -1: any size.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(slots=True)
class Counted:
    """How often something happened, and how long all of it took."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class RunStatistics:
    """What a version has done since it was loaded; written and read on one thread.

    Attributes:
        success: Requests answered OK, from arrival to the answer's bytes.
        fail: Requests that were not, from arrival to the refusal.
        queue, compute_input, compute_infer, compute_output: Stages of those answered OK.
        rows: That were answered OK.
        last_ms: When the last request came, in milliseconds since the epoch; 0: none did.
    """

    success: Counted = field(default_factory=Counted)
    fail: Counted = field(default_factory=Counted)
    queue: Counted = field(default_factory=Counted)
    compute_input: Counted = field(default_factory=Counted)
    compute_infer: Counted = field(default_factory=Counted)
    compute_output: Counted = field(default_factory=Counted)
    rows: int = 0
    last_ms: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PlainModel:
    """A version that is ready.

    Attributes:
        name, version: Which.
        config: As its configuration has it, or as it is without one.
        inputs, outputs: What it takes and gives, in the order of the graph or the configuration.
        session: Runs on any number of threads at once.
        statistics: Of this loading of it.
    """

    name: str
    version: int
    config: PlainConfig
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    session: ort.InferenceSession
    statistics: RunStatistics = field(default_factory=RunStatistics)

    def run(self, outputs: Sequence[str], feeds: dict[str, Any], options: ort.RunOptions) -> list[Any]:
        """The named outputs for arrays of the inputs' dtypes and shapes.

        Raises:
            Exception: What the graph raises as it runs shares no base; so does a run that was terminated.
        """
        found: list[Any] = self.session.run(list(outputs), feeds, options)
        return found


def has_manifest(folder: Path) -> bool:
    """Whether the version in this folder says that it is a package of tickgate's."""
    return (folder / MANIFEST_FILE).exists()


def load_plain(folder: Path, config: PlainConfig) -> PlainModel:
    """Load the version at `<repository>/<name>/<version>/`.

    Args:
        folder: As above.
        config: Of the model.

    Raises:
        PlainPackageInvalid: The first check that failed, with the file and why.
    """
    path = folder / config.model_file
    if has_manifest(folder):
        session, path = _package(folder)
    else:
        if not path.is_file():
            raise PlainPackageInvalid(path, "there is no such file")
        session = _open(path, path)
    beside = folder.parent / CONFIG_FILE
    inputs = _served(beside, "input", session.get_inputs(), config.inputs, config.max_batch_size)
    outputs = _served(beside, "output", session.get_outputs(), config.outputs, config.max_batch_size)
    missing = {arg.name for arg in session.get_inputs()} - {one.name for one in inputs}
    if missing:
        raise PlainPackageInvalid(beside, f"input: the graph has {sorted(missing)} as well")
    return PlainModel(folder.parent.name, int(folder.name), config, inputs, outputs, session)


def _package(folder: Path) -> tuple[ort.InferenceSession, Path]:
    """A package's session, its bytes those that the manifest was made for, its answers those of the golden vectors."""
    path = folder / MODEL_FILE
    try:
        manifest = read_manifest(folder)
        model = path.read_bytes()
    except PackageError as error:
        raise PlainPackageInvalid(error.path, error.why) from error
    except OSError as error:
        raise PlainPackageInvalid(path, f"cannot be read ({error})") from error
    found = hashlib.sha256(model).hexdigest()
    if found != manifest.model_sha256:
        raise PlainPackageInvalid(path, f"sha256 is {found}, the manifest says {manifest.model_sha256}")
    session = _open(path, model)
    _check_golden(path, session, manifest)
    return session, path


def _check_golden(path: Path, session: ort.InferenceSession, manifest: Manifest) -> None:
    inputs = np.asarray(manifest.golden.inputs, np.float32)
    expected = np.asarray(manifest.golden.outputs)
    try:
        (got,) = session.run(None, {session.get_inputs()[0].name: inputs})
    # What ONNX Runtime raises shares no base; a graph with two outputs is a ValueError.
    except Exception as error:
        raise PlainPackageInvalid(path, f"it fails on its golden vectors ({error})") from error
    if not (got.shape == (len(expected), 1) and np.all(np.abs(got[:, 0] - expected) <= GOLDEN_TOLERANCE)):
        raise PlainPackageInvalid(path, "it does not give its golden vectors' outputs within 1e-5")


def _open(path: Path, model: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # The threads that run sessions are bounded in number, and each runs one request: see `plain_threads`.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised and answered, not also written to stderr
    try:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    # onnxruntime's errors share no base of their own: each is a direct subclass of Exception.
    except Exception as error:
        raise PlainPackageInvalid(path, f"ONNX Runtime refuses it ({error})") from error


# -- what a graph takes and gives, and what its configuration says of that ---------------------------------------------


def _served(
    path: Path, what: str, args: list[ort.NodeArg], declared: tuple[DeclaredTensor, ...], batch: int
) -> tuple[TensorSpec, ...]:
    """The tensors of a graph as they are served: all of them, or those declared, held to the graph.

    Args:
        path: Of the configuration, for messages.
        what: `input` or `output`.
        args: The graph's.
        declared: The configuration's; none: as the graph has them.
        batch: `max_batch_size`.
    """
    graph = {arg.name: _spec(path, what, arg) for arg in args}
    for spec in graph.values():
        if batch and spec.dims[:1] != (-1,):
            raise PlainPackageInvalid(
                path,
                f"max_batch_size is {batch}, and {what} {spec.name!r} of the graph has shape {list(spec.dims)}:"
                " expected a free first dimension",
            )
    if not declared:
        return tuple(graph.values())
    return tuple(_held(path, what, one, graph, batch) for one in declared)


def _spec(path: Path, what: str, arg: ort.NodeArg) -> TensorSpec:
    if arg.type not in _TYPES:
        raise PlainPackageInvalid(path, f"{what} {arg.name!r} of the graph is {arg.type}: not served here")
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in arg.shape)
    return TensorSpec(arg.name, _TYPES[arg.type][0], dims)


def _held(path: Path, what: str, declared: DeclaredTensor, graph: dict[str, TensorSpec], batch: int) -> TensorSpec:
    where = f"{what} {declared.name!r}"
    if declared.name not in graph:
        raise PlainPackageInvalid(path, f"{where}: the graph has {sorted(graph)}")
    found = graph[declared.name]
    if declared.datatype != found.datatype:
        raise PlainPackageInvalid(path, f"{where}: data_type is {declared.datatype}, the graph's {found.datatype}")
    dims = (-1, *declared.dims) if batch else declared.dims
    fits = len(dims) == len(found.dims) and all(
        there in (-1, said) for said, there in zip(dims, found.dims, strict=True)
    )
    if not fits:
        note = " with the batch before them" if batch else ""
        raise PlainPackageInvalid(
            path, f"{where}: dims are {list(declared.dims)}{note}, the graph's shape is {list(found.dims)}"
        )
    return TensorSpec(declared.name, declared.datatype, dims)
