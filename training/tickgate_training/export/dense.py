"""Linear functions and perceptrons of standardised features, in float64 as they were fitted.

In float32 the difference between a feature and its mean would lose what the two have in common, and a perceptron's
probability has no log odds left where it rounds to 1: so skl2onnx's float32 graphs are not used.
"""

from typing import Any

from onnx import helper

from tickgate_server.models.package import INPUT_NAME
from tickgate_training.calibration.base import Nodes
from tickgate_training.export.nodes import constant, widened
from tickgate_training.learners import LinearModel, PerceptronModel


def linear_nodes(model: LinearModel, output: str) -> Nodes:
    """`features` to the linear function of what was scaled; float64 [n, 1]."""
    nodes, constants = _scaled(model.pipeline["scale"], "scaled_features")
    classifier = model.pipeline["classify"]
    constants += [constant("coefficients", classifier.coef_.T), constant("intercept", classifier.intercept_)]
    nodes.append(helper.make_node("Gemm", ["scaled_features", "coefficients", "intercept"], [output], name="linear"))
    return nodes, constants


def perceptron_nodes(model: PerceptronModel, output: str) -> Nodes:
    """`features` to what the output unit is given; float64 [n, 1]."""
    nodes, constants = _scaled(model.pipeline["scale"], "scaled_features")
    network = model.pipeline["classify"]
    operator = {"tanh": "Tanh", "relu": "Relu"}[network.activation]
    last = "scaled_features"
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))
    for number, (weights, biases) in enumerate(layers):
        weights_name, biases_name, sums = f"weights_{number}", f"biases_{number}", f"sums_{number}"
        constants += [constant(weights_name, weights), constant(biases_name, biases)]
        final = number == len(layers) - 1
        given = output if final else sums
        nodes.append(helper.make_node("Gemm", [last, weights_name, biases_name], [given], name=f"layer_{number}"))
        if not final:
            last = f"units_{number}"
            nodes.append(helper.make_node(operator, [sums], [last], name=f"activation_{number}"))
    return nodes, constants


def _scaled(scaler: Any, output: str) -> Nodes:
    nodes = [
        widened(INPUT_NAME, "wide_features"),
        helper.make_node("Sub", ["wide_features", "feature_means"], ["centred"], name="centre"),
        helper.make_node("Div", ["centred", "feature_deviations"], [output], name="scale"),
    ]
    return nodes, [constant("feature_means", scaler.mean_), constant("feature_deviations", scaler.scale_)]
