"""Tree ensembles as ONNX graphs, of any shape and size, and the slow way to score them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tickgate_server.models.package import INPUT_NAME, OUTPUT_NAME

# What STAC-ML's tree ensembles have: features and nodes.
GBT_A = (64, 12_000)
GBT_B = (128, 512_000)
GBT_C = (1_000, 4_000_000)
RAW = "raw"


@dataclass
class Forest:
    """An ensemble's attributes as ONNX has them, node by node and leaf by leaf."""

    tree: NDArray[np.int64]
    node: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    yes: NDArray[np.int64]
    no: NDArray[np.int64]
    weight: NDArray[np.float32]  # of each node; counts in leaves

    def nodes(self, kind: str) -> dict[str, Any]:
        leaves = np.flatnonzero(self.leaf)
        return {
            "nodes_treeids": self.tree.tolist(),
            "nodes_nodeids": self.node.tolist(),
            "nodes_modes": np.where(self.leaf, "LEAF", "BRANCH_LEQ").tolist(),
            "nodes_featureids": self.feature.tolist(),
            "nodes_values": self.threshold.tolist(),
            "nodes_truenodeids": self.yes.tolist(),
            "nodes_falsenodeids": self.no.tolist(),
            f"{kind}_treeids": self.tree[leaves].tolist(),
            f"{kind}_nodeids": self.node[leaves].tolist(),
            f"{kind}_ids": [0] * leaves.size,
            f"{kind}_weights": self.weight[leaves].tolist(),
        }

    def sum(self, vector: NDArray[np.float32]) -> np.float32:
        """Tree by tree, node by node, in float32."""
        place = {ids: at for at, ids in enumerate(zip(self.tree.tolist(), self.node.tolist(), strict=True))}
        total = np.float32(0.0)
        for tree in dict.fromkeys(self.tree.tolist()):
            at = int(np.flatnonzero(self.tree == tree)[0])
            while not self.leaf[at]:
                down = self.yes if vector[self.feature[at]] <= self.threshold[at] else self.no
                at = place[tree, int(down[at])]
            total += self.weight[at]
        return total


def grown(rng: np.random.Generator, trees: int, depth: int, width: int, *, points: int = 0) -> Forest:
    """Trees that end at random, none deeper than `depth`; with `points`, only so many distinct thresholds."""
    choices = rng.normal(size=points or 1).astype(np.float32)
    rows: list[list[Any]] = []

    def grow(tree: int, left: int, first: int) -> int:
        node = len(rows) - first
        row = [tree, node, True, 0, 0.0, 0, 0, rng.normal() / 10]
        rows.append(row)
        if left and rng.random() < 0.8:
            threshold = rng.choice(choices) if points else rng.normal()
            row[2:5] = [False, rng.integers(width), threshold]
            row[5] = grow(tree, left - 1, first)
            row[6] = grow(tree, left - 1, first)
        return node

    for tree in range(trees):
        grow(tree, depth, len(rows))
    types = (np.int64, np.int64, bool, np.int64, np.float32, np.int64, np.int64, np.float32)
    return Forest(*(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)))


def full(rng: np.random.Generator, trees: int, depth: int, width: int) -> Forest:
    """Trees all of whose leaves are at `depth`, 2^(depth + 1) - 1 nodes each; fast also for many."""
    size = (2 << depth) - 1
    node = np.tile(np.arange(size), trees)
    leaf = node >= size // 2
    return Forest(
        tree=np.repeat(np.arange(trees), size),
        node=node,
        leaf=leaf,
        feature=np.where(leaf, 0, rng.integers(width, size=node.size)),
        threshold=np.where(leaf, 0, rng.normal(size=node.size)).astype(np.float32),
        yes=np.where(leaf, 0, 2 * node + 1),
        no=np.where(leaf, 0, 2 * node + 2),
        weight=(rng.normal(size=node.size) / 10).astype(np.float32),
    )


def of_shape(rng: np.random.Generator, shape: tuple[int, int]) -> Forest:
    """Full trees with as many features and about as many nodes as `GBT_A` (depth 5), or larger ones (depth 8)."""
    width, nodes = shape
    depth = 5 if nodes < 100_000 else 8
    return full(rng, round(nodes / ((2 << depth) - 1)), depth, width)


def constant(name: str, value: float, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


SIGMOID = (helper.make_node("Sigmoid", [RAW], [OUTPUT_NAME]),)


def graph(
    width: int, nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (), opset: int = 15
) -> bytes:
    """A model with tickgate's input and output."""
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [None, 1])],
        list(constants),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())


def regressor(forest: Forest, **attributes: Any) -> onnx.NodeProto:
    """Trees whose sum is the output RAW, float32 [N, 1]; an attribute that is None is left out."""
    everything = {**forest.nodes("target"), "n_targets": 1, "post_transform": "NONE", **attributes}
    return _node("TreeEnsembleRegressor", [RAW], everything)


def classifier(forest: Forest, **attributes: Any) -> onnx.NodeProto:
    """Trees as LightGBM's classifier is converted; output RAW float32 [N, 2]."""
    everything = {
        **forest.nodes("class"),
        "classlabels_int64s": [0, 1],
        "post_transform": "LOGISTIC",
        **attributes,
    }
    return _node("TreeEnsembleClassifier", ["label", RAW], everything)


def _node(operator: str, outputs: list[str], attributes: dict[str, Any]) -> onnx.NodeProto:
    given = {name: value for name, value in attributes.items() if value is not None}
    return helper.make_node(operator, [INPUT_NAME], outputs, domain="ai.onnx.ml", **given)
