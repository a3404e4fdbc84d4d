"""What an ONNX graph computes after its trees, as a short program over registers.

The values after the trees are single numbers: a column of the ensemble's output, a constant, or what an elementwise
operator makes of them. Each gets a register, float64; a float32 operator is computed in float64 and its result rounded
to float32, which for + - * / is what float32 arithmetic gives (53 >= 2 * 24 + 2 bits).

The functions are ONNX Runtime's own, so that the last bit is too: its float32 Sigmoid is MLAS's rational function with
fused multiply-adds (onnxruntime/core/mlas/lib/logistic.cpp, from Eigen), its float64 Sigmoid and the trees' LOGISTIC
are 1 / (1 + exp(-|x|)) mirrored at zero (core/providers/cpu/ml/ml_common.h), Log and float64 Exp are the C library's.
Its float32 Exp is an approximation of its own: not here, so a graph with one is not compiled.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, cast

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from tickgate_server.kernels import kernel


class Op(IntEnum):
    """Operators of the program; those ending in 32 or 64 compute in that precision."""

    COPY = 0
    ADD = 1
    SUB = 2
    MUL = 3
    DIV = 4
    MIN = 5
    MAX = 6
    NEG = 7
    LOG32 = 8
    LOG64 = 9
    EXP64 = 10
    SIGMOID32 = 11
    SIGMOID64 = 12
    LOGISTIC32 = 13


_COPY, _ADD, _SUB, _MUL, _DIV = map(int, (Op.COPY, Op.ADD, Op.SUB, Op.MUL, Op.DIV))
_MIN, _MAX, _NEG = map(int, (Op.MIN, Op.MAX, Op.NEG))
_LOG32, _LOG64, _EXP64 = map(int, (Op.LOG32, Op.LOG64, Op.EXP64))
_SIGMOID32, _SIGMOID64, _LOGISTIC32 = map(int, (Op.SIGMOID32, Op.SIGMOID64, Op.LOGISTIC32))


def _fma_codegen(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(a, b, c), codegen


# a * b + c of float32, rounded once.
_fma = cast("Callable[[np.float32, np.float32, np.float32], np.float32]", intrinsic(_fma_codegen))

_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_RANGE = np.float32(18.0)
_P9, _P7, _P5, _P3, _P1 = (
    np.float32(4.37031012579801e-11),
    np.float32(1.15627324459942e-07),
    np.float32(6.08574864600143e-05),
    np.float32(8.51377133304701e-03),
    np.float32(2.48287947061529e-01),
)
_Q10, _Q8, _Q6, _Q4, _Q2, _Q0 = (
    np.float32(6.10247389755681e-13),
    np.float32(5.76102136993427e-09),
    np.float32(6.29106785017040e-06),
    np.float32(1.70198817374094e-03),
    np.float32(1.16817656904453e-01),
    np.float32(9.93151921023180e-01),
)


@kernel("f4(f4)")
def sigmoid32(x: np.float32) -> np.float32:
    """ONNX Runtime's Sigmoid in float32: x p(x^2) / q(x^2) + 1/2 for x clamped to +-18, never below 0."""
    x = min(max(x, -_RANGE), _RANGE)
    z = x * x
    p = _fma(_fma(_fma(_fma(_P9, z, _P7), z, _P5), z, _P3), z, _P1) * x
    q = _fma(_fma(_fma(_fma(_fma(_Q10, z, _Q8), z, _Q6), z, _Q4), z, _Q2), z, _Q0)
    return max(p / q + _HALF, _ZERO)


@kernel("f4(f4)")
def logistic32(x: np.float32) -> np.float32:
    """The tree operators' own LOGISTIC: float32 throughout, exp from the C library."""
    v = _ONE / (_ONE + np.float32(math.exp(-abs(x))))
    return _ONE - v if x < _ZERO else v


@kernel("f8(f8)")
def sigmoid64(x: float) -> float:
    """ONNX Runtime's Sigmoid in float64."""
    v = 1.0 / (1.0 + math.exp(-abs(x)))
    return 1.0 - v if x < 0.0 else v


@kernel("f8(i8[:,::1], f8[::1], f4)")
def run_tail(program: NDArray[np.int64], registers: NDArray[np.float64], score: np.float32) -> float:  # noqa: C901, PLR0912
    """Run a program on the trees' sum; returns the last instruction's result.

    Args:
        program: int64 [instructions, 5]: operator, register of the result, of the first and of the second operand (the
            first again where there is none), and whether the result is rounded to float32.
        registers: float64 [n]: constants where the program wants them; 0 is the trees' sum; the others are scratch.
        score: The trees' sum.
    """
    result: float = np.float64(score)
    registers[0] = result
    for k in range(program.shape[0]):
        op = program[k, 0]
        a = registers[program[k, 2]]
        b = registers[program[k, 3]]
        if op == _ADD:
            result = a + b
        elif op == _MUL:
            result = a * b
        elif op == _MAX:
            result = max(a, b)
        elif op == _MIN:
            result = min(a, b)
        elif op == _SIGMOID32:
            result = np.float64(sigmoid32(np.float32(a)))
        elif op == _COPY:
            result = a
        elif op == _SUB:
            result = a - b
        elif op == _DIV:
            result = a / b
        elif op == _NEG:
            result = -a
        elif op == _LOG32:
            result = np.float64(np.float32(math.log(np.float32(a))))
        elif op == _LOG64:
            result = math.log(a)
        elif op == _EXP64:
            result = math.exp(a)
        elif op == _SIGMOID64:
            result = sigmoid64(a)
        elif op == _LOGISTIC32:
            result = np.float64(logistic32(np.float32(a)))
        if program[k, 4] != 0:
            result = np.float64(np.float32(result))
        registers[program[k, 1]] = result
    return result


class Tail:
    """A program being written: every constant and every result has a register of its own; 0 is the trees' sum."""

    def __init__(self) -> None:
        self._values = [0.0]
        self._instructions: list[tuple[int, int, int, int, int]] = []

    def constant(self, value: float) -> int:
        """The register of a constant."""
        self._values.append(value)
        return len(self._values) - 1

    def emit(self, op: Op, a: int, b: int | None = None, *, narrow: bool) -> int:
        """Append an instruction; returns the register of its result.

        Args:
            op: What it does.
            a: Register of the first operand.
            b: Register of the second, where there is one.
            narrow: Whether the result is float32.
        """
        self._values.append(0.0)
        result = len(self._values) - 1
        self._instructions.append((op, result, a, a if b is None else b, narrow))
        return result

    @property
    def program(self) -> NDArray[np.int64]:
        """The instructions, as `run_tail` takes them."""
        return np.array(self._instructions, np.int64).reshape(-1, 5)

    @property
    def registers(self) -> NDArray[np.float64]:
        """The registers, as `run_tail` takes them."""
        return np.array(self._values)
