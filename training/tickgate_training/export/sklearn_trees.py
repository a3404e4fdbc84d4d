"""scikit-learn's tree ensembles, whose thresholds are float32 and whose sums are exact already (`learners.forests`).

The leaves go into the graph as they are, not divided by the number of trees as skl2onnx does: a quotient would round
each of them, and what is divided once is the sum, in float64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tickgate_server.models.package import INPUT_NAME
from tickgate_training.calibration.base import Nodes
from tickgate_training.export.nodes import constant, widened
from tickgate_training.learners import GradientBoostingModel, RandomForestModel


def random_forest_nodes(model: RandomForestModel, output: str) -> Nodes:
    """`features` to log(p) - log(1 - p), p the clipped mean of the trees' probabilities; float64 [n, 1]."""
    trees = [tree.tree_ for tree in model.estimator.estimators_]
    constants = [
        constant("trees", float(len(trees))),
        constant("certain_down", model.clip),
        constant("certain_up", 1.0 - model.clip),
        constant("one", 1.0),
    ]
    nodes = [
        _ensemble([(tree, tree.value[:, 0, 1]) for tree in trees], "tree_sum"),
        widened("tree_sum", "votes"),
        helper.make_node("Div", ["votes", "trees"], ["mean_vote"], name="mean_of_trees"),
        helper.make_node("Clip", ["mean_vote", "certain_down", "certain_up"], ["chance_up"], name="clip_certainty"),
        helper.make_node("Sub", ["one", "chance_up"], ["chance_down"], name="down"),
        helper.make_node("Log", ["chance_up"], ["log_up"], name="log_up"),
        helper.make_node("Log", ["chance_down"], ["log_down"], name="log_down"),
        helper.make_node("Sub", ["log_up", "log_down"], [output], name="log_odds"),
    ]
    return nodes, constants


def gradient_boosting_nodes(model: GradientBoostingModel, output: str) -> Nodes:
    """`features` to the base and the trees' sum; float64 [n, 1]."""
    rate = model.estimator.learning_rate
    trees = [tree.tree_ for tree in model.estimator.estimators_[:, 0]]
    nodes = [
        _ensemble([(tree, rate * tree.value[:, 0, 0]) for tree in trees], "tree_sum"),
        widened("tree_sum", "trees"),
        helper.make_node("Add", ["trees", "base"], [output], name="add_base"),
    ]
    return nodes, [constant("base", model.base)]


def _ensemble(trees: Sequence[tuple[Any, NDArray[np.float64]]], output: str) -> onnx.NodeProto:
    """A TreeEnsembleRegressor: the sum of the leaves, float32 [n, 1].

    Args:
        trees: Each a `sklearn.tree._tree.Tree` and its nodes' values, float64 [nodes], all of them float32 numbers.
        output: Name of the sum.
    """
    attributes: dict[str, Any] = {"n_targets": 1, "post_transform": "NONE"}
    for number, (tree, values) in enumerate(trees):
        leaf = tree.children_left < 0
        leaves = np.flatnonzero(leaf)
        columns = {
            "nodes_treeids": np.full(leaf.size, number),
            "nodes_nodeids": np.arange(leaf.size),
            "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ"),
            "nodes_featureids": np.where(leaf, 0, tree.feature),
            "nodes_values": np.where(leaf, 0.0, tree.threshold),
            "nodes_truenodeids": np.where(leaf, 0, tree.children_left),
            "nodes_falsenodeids": np.where(leaf, 0, tree.children_right),
            "target_treeids": np.full(leaves.size, number),
            "target_nodeids": leaves,
            "target_ids": np.zeros(leaves.size, np.int64),
            "target_weights": values[leaves],
        }
        for name, column in columns.items():
            attributes.setdefault(name, []).extend(column.tolist())
    return helper.make_node(
        "TreeEnsembleRegressor", [INPUT_NAME], [output], name="trees", domain="ai.onnx.ml", **attributes
    )
