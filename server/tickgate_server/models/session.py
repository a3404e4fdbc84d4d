"""ONNX Runtime behind a fixed input and output: one row in, one probability out, no allocation a call."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tickgate_server.models.errors import GraphInvalid
from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME


class Session:
    """One model in ONNX Runtime, its input and output bound to arrays of its own.

    One thread and no spinning: a request's row is too small to share, and idle spinning starves its neighbours.
    Not for two threads at once.
    """

    __slots__ = ("_binding", "_input", "_output", "_session", "width")

    def __init__(self, path: Path, model: bytes, width: int) -> None:
        """Open a model and hold it to its declared shape.

        Args:
            path: Where the bytes came from, for messages.
            model: The ONNX graph.
            width: Number of features.

        Raises:
            GraphInvalid: ONNX Runtime refuses the graph, or it is not `features` float32 [N, width] ->
                `probability_up` float32 [N, 1].
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors are raised; warnings would go to stderr beside our log
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        # onnxruntime's errors share no base of their own: each is a direct subclass of Exception.
        except Exception as error:
            raise GraphInvalid(path, f"ONNX Runtime refuses it ({error})") from error
        self.width = width
        self._require(path, "input", self._session.get_inputs(), INPUT_NAME, width)
        self._require(path, "output", self._session.get_outputs(), OUTPUT_NAME, 1)
        self._input = np.zeros((1, width), np.float32)
        self._output = np.full((1, 1), np.nan, np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_input(INPUT_NAME, "cpu", 0, np.float32, (1, width), self._input.ctypes.data)
        self._binding.bind_output(OUTPUT_NAME, "cpu", 0, np.float32, (1, 1), self._output.ctypes.data)

    @staticmethod
    def _require(path: Path, what: str, found: list[ort.NodeArg], name: str, width: int) -> None:
        if len(found) != 1:
            raise GraphInvalid(path, f"has {len(found)} {what}s, expected one named {name!r}")
        arg = found[0]
        shape = list(arg.shape)
        fits = len(shape) == 2 and not isinstance(shape[0], int) and shape[1] == width
        if arg.name != name or arg.type != "tensor(float)" or not fits:
            raise GraphInvalid(
                path,
                f"{what} is {arg.name!r} {arg.type} {shape}, expected {name!r} tensor(float) [N, {width}] with N free",
            )

    def score(self, vector: NDArray[np.float32], options: ort.RunOptions | None = None) -> float:
        """P(up) for one vector, float32 [width]; whatever the graph gives, NaN included.

        With options another thread may set their `terminate`, which ends the run before its next node.

        Raises:
            RuntimeError: It was terminated; the session is as good as before.
        """
        self._output[0, 0] = np.nan  # a run that writes nothing must not leave the last answer standing
        self._input[0, :] = vector
        self._session.run_with_iobinding(self._binding, options)
        return float(self._output[0, 0])

    def score_all(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """P(up) for many vectors in one run, float32 [n] for float32 [n, width]; whatever the graph gives.

        For checks: it allocates, and nothing can end it.
        """
        found = self._session.run([OUTPUT_NAME], {INPUT_NAME: rows})[0]
        return np.asarray(found, np.float32).reshape(len(rows))
