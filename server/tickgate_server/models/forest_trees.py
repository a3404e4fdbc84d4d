"""Reads the tree ensembles of ONNX: ai.onnx.ml's TreeEnsembleRegressor and TreeEnsembleClassifier, float32 throughout.

Understood are a regressor with one target, and a classifier of two classes with weights for one: what LightGBM's and
XGBoost's binary models are converted to. Trees are given as they stand in the graph; their layout is `forest`'s. What
comes out follows ONNX Runtime 1.32 for one row on one thread (onnxruntime/core/providers/cpu/ml/tree_ensemble_common.h,
tree_ensemble_aggregator.h, ml_common.h): float32 sums in the order of the trees, the base value last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from tickgate_server.models.forest_tail import Op, Tail

# The operators, and the word that their weights' attributes begin with.
TREES = {"TreeEnsembleRegressor": "target", "TreeEnsembleClassifier": "class"}
Attribute = int | float | bytes | NDArray[np.int64] | NDArray[np.float32] | list[bytes]


class Unsupported(Exception):
    """The graph is not one that is compiled; the message is the reason."""


def refuse(why: str) -> NoReturn:
    """Raise `Unsupported`."""
    raise Unsupported(why)


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """The nodes of an ensemble in the order of the graph; all arrays [nodes] but the last three, [leaves].

    Attributes:
        tree, node: Ids of the node; a tree's first node is its root.
        leaf: Whether it is one.
        feature, threshold: x[feature] <= threshold goes to `yes`, else to `no`; without meaning in leaves.
        yes, no: Node ids in the same tree.
        weight_tree, weight_node, weight: What each leaf adds.
    """

    tree: NDArray[np.int64]
    node: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    yes: NDArray[np.int64]
    no: NDArray[np.int64]
    weight_tree: NDArray[np.int64]
    weight_node: NDArray[np.int64]
    weight: NDArray[np.float32]


def read_trees(node: onnx.NodeProto, tail: Tail) -> tuple[Trees, tuple[int, ...]]:
    """The trees of an ensemble, and the registers of its output's columns.

    Raises:
        Unsupported: It is an ensemble of another kind.
    """
    attributes = _attributes(node)
    if doubles := sorted(name for name in attributes if name.endswith("_as_tensor")):
        refuse(f"its trees are in float64 ({doubles[0]})")
    trees = _trees(attributes, TREES[node.op_type])
    if node.op_type == "TreeEnsembleRegressor":
        return trees, _regressor(attributes, tail)
    return trees, _classifier(attributes, tail, all_positive=not (trees.weight < 0.0).any())


def _sum(attributes: Mapping[str, Attribute], tail: Tail) -> int:
    """The register of the trees' sum with the base value."""
    base = _floats(attributes, "base_values")
    if base.size > 1:
        refuse(f"its trees have {base.size} base_values, expected one at most")
    return tail.emit(Op.ADD, 0, tail.constant(float(base[0])), narrow=True) if base.size else 0


def _regressor(attributes: Mapping[str, Attribute], tail: Tail) -> tuple[int]:
    targets = _integer(attributes, "n_targets", 1)
    if targets != 1 or _integers(attributes, "target_ids").any():
        refuse(f"its trees have {targets} targets, expected one")
    aggregate, transform = _text(attributes, "aggregate_function", "SUM"), _text(attributes, "post_transform", "NONE")
    if (aggregate, transform) != ("SUM", "NONE"):
        refuse(f"its trees are aggregated by {aggregate} and transformed by {transform}, expected SUM and NONE")
    return (_sum(attributes, tail),)


def _classifier(attributes: Mapping[str, Attribute], tail: Tail, *, all_positive: bool) -> tuple[int, int]:
    labels = _integers(attributes, "classlabels_int64s").size or len(_strings(attributes, "classlabels_strings"))
    if labels != 2 or _integers(attributes, "class_ids").any():
        refuse(f"its trees tell {labels} classes apart, expected two with weights for the first alone")
    up = _sum(attributes, tail)
    transform = _text(attributes, "post_transform", "NONE")
    if transform == "LOGISTIC":
        down = tail.emit(Op.NEG, up, narrow=True)
        return tail.emit(Op.LOGISTIC32, down, narrow=True), tail.emit(Op.LOGISTIC32, up, narrow=True)
    if transform != "NONE" or not all_positive:  # of a sum of mixed signs ONNX Runtime gives the absolute value
        refuse(f"its classes are transformed by {transform}, expected LOGISTIC, or NONE and no negative leaf")
    return tail.emit(Op.SUB, tail.constant(1.0), up, narrow=True), up


def _attributes(node: onnx.NodeProto) -> dict[str, Attribute]:
    """A node's attributes by name, lists of numbers as arrays."""
    kinds: dict[int, Callable[[onnx.AttributeProto], Attribute]] = {
        onnx.AttributeProto.INT: lambda attribute: attribute.i,
        onnx.AttributeProto.INTS: lambda attribute: np.array(attribute.ints, np.int64),
        onnx.AttributeProto.FLOAT: lambda attribute: attribute.f,
        onnx.AttributeProto.FLOATS: lambda attribute: np.array(attribute.floats, np.float32),
        onnx.AttributeProto.STRING: lambda attribute: attribute.s,
        onnx.AttributeProto.STRINGS: lambda attribute: list(attribute.strings),
    }
    nothing = list[bytes]()  # of tensors, the name alone is wanted
    return {a.name: kinds[a.type](a) if a.type in kinds else nothing for a in node.attribute}


def _integer(attributes: Mapping[str, Attribute], name: str, default: int) -> int:
    value = attributes.get(name, default)
    return value if isinstance(value, int) else default


def _integers(attributes: Mapping[str, Attribute], name: str) -> NDArray[np.int64]:
    return np.asarray(attributes.get(name, ()), np.int64)


def _floats(attributes: Mapping[str, Attribute], name: str) -> NDArray[np.float32]:
    return np.asarray(attributes.get(name, ()), np.float32)


def _text(attributes: Mapping[str, Attribute], name: str, default: str) -> str:
    value = attributes.get(name)
    return value.decode() if isinstance(value, bytes) else default


def _strings(attributes: Mapping[str, Attribute], name: str) -> list[bytes]:
    value = attributes.get(name)
    return value if isinstance(value, list) else []


def _trees(attributes: Mapping[str, Attribute], kind: str) -> Trees:
    modes = np.array(_strings(attributes, "nodes_modes"), dtype="S")
    # Where NaN goes (nodes_missing_value_tracks_true) changes nothing for the finite features that models are given.
    leaf = modes == b"LEAF"
    other = np.unique(modes[~leaf & (modes != b"BRANCH_LEQ")])
    if other.size:
        refuse(f"its trees branch by {other[0].decode()}, expected BRANCH_LEQ")
    trees = Trees(
        tree=_integers(attributes, "nodes_treeids"),
        node=_integers(attributes, "nodes_nodeids"),
        leaf=leaf,
        feature=_integers(attributes, "nodes_featureids"),
        threshold=_floats(attributes, "nodes_values"),
        yes=_integers(attributes, "nodes_truenodeids"),
        no=_integers(attributes, "nodes_falsenodeids"),
        weight_tree=_integers(attributes, f"{kind}_treeids"),
        weight_node=_integers(attributes, f"{kind}_nodeids"),
        weight=_floats(attributes, f"{kind}_weights"),
    )
    nodes = {
        array.size for array in (trees.tree, trees.node, leaf, trees.feature, trees.threshold, trees.yes, trees.no)
    }
    weights = {trees.weight_tree.size, trees.weight_node.size, trees.weight.size}
    if len(nodes) != 1 or len(weights) != 1 or not leaf.size:
        refuse("the arrays of its trees differ in length or are empty")
    if not (np.isfinite(trees.threshold[~leaf]).all() and np.isfinite(trees.weight).all()):
        refuse("a threshold or a leaf of its trees is not finite")
    return trees
