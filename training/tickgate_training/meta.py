"""Meta-labels in a run: a rule says the side, a model learns whether acting on it pays.

López de Prado, "Advances in Financial Machine Learning", 2018, 3.6. The *primary* is a rule on one feature: its sign,
or the other one, is the side, and within a dead band there is none. The *secondary* is any learner; it is fitted on
the rows with a side, and its target is whether side x return > 0 (`labels.meta_labels`, without costs: the threshold is
chosen net of these).

What is exported is one model of both. With q the secondary's calibrated P(the side is right) and s the side,

    P(up) = 0.5 + s max(q - 0.5, 0)

in the graph as in the source: the side is computed from the feature inside it. On a row with a side that is more likely
right than not, P(up) is q or 1 - q, so its `value` is that of any other model, s (2 q - 1). Where it is more likely
wrong, or there is no side, the answer is 0.5: no opinion, value 0 and confidence 0.5, which no threshold acts on. A
secondary that doubts the side never turns it round: that the other side pays is nothing it was asked. A move that came
back to where it was counts against the side, so q errs to the careful side where prices often stand still.

The primary cannot be a learner: the secondary would have to be fitted on sides of rows that the primary had not seen,
which needs folds inside each fold, and a calibration for each.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field, model_validator

from tickgate_server.models.package import INPUT_NAME
from tickgate_training.calibration.base import Nodes, double
from tickgate_training.errors import ConfigInvalid
from tickgate_training.strict import Strict

RULES = ("feature_sign",)


@dataclass(frozen=True, slots=True)
class Primary:
    """The rule, on vectors of one feature set.

    Attributes:
        column: Of the feature.
        against: Whether the side is the other one.
        dead_band: No side where the feature's absolute value is at most this.
    """

    column: int
    against: bool
    dead_band: float

    def sides(self, features: NDArray[np.float32]) -> NDArray[np.int8]:
        """Side of each row, int8 [n]: +1 long, -1 short, 0 none; none where the feature is NaN.

        Args:
            features: float32 [n, width].
        """
        values = features[:, self.column].astype(np.float64)
        acts = np.abs(values) > self.dead_band
        return np.where(acts, -np.sign(values) if self.against else np.sign(values), 0.0).astype(np.int8)

    def probabilities(self, features: NDArray[np.float32], right: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(up), float64 [n], from P(the side is right), float64 [n]; see the module's docstring."""
        return np.asarray(0.5 + self.sides(features) * np.maximum(right - 0.5, 0.0))

    def onnx_nodes(self, right: str, output: str) -> Nodes:
        """The same as nodes: `features` and `right` float64 [n, 1] to `output` float64 [n, 1]."""
        constants = [
            numpy_helper.from_array(np.array([self.column], np.int64), "primary_column"),
            double("primary_dead_band", self.dead_band),
            double("primary_turn", -1.0 if self.against else 1.0),
            double("primary_even", 0.5),
            double("primary_nothing", 0.0),
        ]
        nodes = [
            helper.make_node("Gather", [INPUT_NAME, "primary_column"], ["primary_float32"], name="primary", axis=1),
            helper.make_node(
                "Cast", ["primary_float32"], ["primary_value"], name="primary_float64", to=TensorProto.DOUBLE
            ),
            helper.make_node("Abs", ["primary_value"], ["primary_size"], name="primary_abs"),
            helper.make_node("Greater", ["primary_size", "primary_dead_band"], ["primary_acts"], name="primary_beyond"),
            helper.make_node("Cast", ["primary_acts"], ["primary_acts_1"], name="primary_01", to=TensorProto.DOUBLE),
            helper.make_node("Sign", ["primary_value"], ["primary_sign"], name="primary_sign_of"),
            helper.make_node("Mul", ["primary_sign", "primary_turn"], ["primary_turned"], name="primary_turn_it"),
            helper.make_node("Mul", ["primary_turned", "primary_acts_1"], ["primary_side"], name="primary_side_of"),
            helper.make_node("Sub", [right, "primary_even"], ["primary_edge"], name="primary_edge_of"),
            helper.make_node("Max", ["primary_edge", "primary_nothing"], ["primary_acted"], name="primary_or_nothing"),
            helper.make_node("Mul", ["primary_side", "primary_acted"], ["primary_lean"], name="primary_lean_of"),
            helper.make_node("Add", ["primary_lean", "primary_even"], [output], name="primary_up"),
        ]
        return nodes, constants


class MetaConfig(Strict):
    """The primary of a run with meta-labels: the sign of a feature, with it or against it, outside a dead band.

    `primary = "feature_sign"` is the one kind of rule that there is; a learner is refused, see the module's docstring.
    """

    primary: Literal["feature_sign"] = "feature_sign"
    feature: str
    direction: Literal["with", "against"] = "with"
    dead_band: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _the_primary_is_a_rule(cls, section: Any) -> Any:
        primary = section.get("primary", RULES[0]) if isinstance(section, dict) else RULES[0]
        if primary not in RULES:
            raise ValueError(
                f"primary {primary!r}: only a rule on features can be a primary ({', '.join(RULES)}); a learner would "
                "need its sides out of sample for every row that the secondary is fitted on"
            )
        return section

    def rule(self, names: tuple[str, ...]) -> Primary:
        """The rule on vectors of the named features.

        Raises:
            ConfigInvalid: None of them has the configured name.
        """
        if self.feature not in names:
            raise ConfigInvalid(
                "configuration", (f"meta.feature: {self.feature!r} is not in the feature set: {', '.join(names)}",)
            )
        return Primary(names.index(self.feature), self.direction == "against", self.dead_band)
