"""What a model goes on learning from: its source beside the repository, by the hash of its bytes.

A package has a graph, from which nothing can be continued. So the challengers' own forms are kept in the state's folder
`sources`, written beside and renamed: LightGBM's text (`.txt`), and a logistic regression's numbers as JSON (`.json`).
A file that no round names is what a round left that was killed, and harms nobody.
"""

import hashlib
import json
import os
from pathlib import Path

import lightgbm
import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tickgate_training.learners import LightGBMModel, Model, SgdLogisticModel
from tickgate_training.retraining.errors import StateInvalid

_SETTINGS = ("alpha", "eta0", "random_state")


class Sources:
    """The folder of sources.

    Args:
        state: Folder of the state.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "sources"

    def keep(self, model: Model) -> str:
        """Keep what a model can go on from; its name there, empty for a kind that cannot."""
        if isinstance(model, LightGBMModel):
            data, kind = model.booster.model_to_string(num_iteration=-1).encode(), "txt"
        elif isinstance(model, SgdLogisticModel):
            data, kind = json.dumps(_numbers(model)).encode(), "json"
        else:
            return ""
        name = f"{hashlib.sha256(data).hexdigest()}.{kind}"
        path = self._folder / name
        if not path.exists():
            self._folder.mkdir(exist_ok=True)
            beside = path.with_name(f".{name}.unfinished")
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        return name

    def booster(self, name: str) -> LightGBMModel:
        """A LightGBM that was kept; raises `StateInvalid` where it is not what was kept."""
        data = self._read(name)
        try:
            return LightGBMModel(lightgbm.Booster(model_str=data.decode()))
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise StateInvalid(self._folder / name, f"is no LightGBM ({error})") from error

    def linear(self, name: str) -> SgdLogisticModel:
        """A logistic regression that was kept; raises `StateInvalid` where it is not what was kept."""
        try:
            return _model(json.loads(self._read(name)))
        except (KeyError, TypeError, ValueError) as error:
            raise StateInvalid(self._folder / name, f"is no logistic regression ({error!r})") from error

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateInvalid(path, f"cannot be read ({error})") from error
        found = hashlib.sha256(data).hexdigest()
        if found != name.partition(".")[0]:
            raise StateInvalid(path, f"its hash is {found}, its name says otherwise")
        return data


def _numbers(model: SgdLogisticModel) -> dict[str, object]:
    """All that `SgdLogisticModel.updated` goes on from; JSON keeps every bit of a double."""
    scale, classify = model.pipeline["scale"], model.pipeline["classify"]
    return {
        "mean": scale.mean_.tolist(),
        "scale": scale.scale_.tolist(),
        "var": scale.var_.tolist(),
        "coefficients": classify.coef_[0].tolist(),
        "intercept": float(classify.intercept_[0]),
        "steps": float(classify.t_),
        "settings": {name: getattr(classify, name) for name in _SETTINGS},
    }


def _model(numbers: dict[str, object]) -> SgdLogisticModel:
    scale = StandardScaler()
    scale.mean_, scale.scale_, scale.var_ = (np.array(numbers[name], np.float64) for name in ("mean", "scale", "var"))
    coefficients = np.array([numbers["coefficients"]], np.float64)
    width = scale.n_features_in_ = coefficients.shape[1]
    if not all(values.shape == (width,) for values in (scale.mean_, scale.scale_, scale.var_)):
        raise ValueError(f"expected {width} values of each feature")
    settings = numbers["settings"]
    if not isinstance(settings, dict) or set(settings) != set(_SETTINGS):
        raise ValueError(f"expected settings {', '.join(_SETTINGS)}")
    classify = SGDClassifier(loss="log_loss", learning_rate="constant", max_iter=1, tol=None, average=False, **settings)
    classify.classes_ = np.array([0, 1], np.int8)
    classify.coef_, classify.intercept_ = coefficients, np.array([numbers["intercept"]], np.float64)
    classify.t_ = float(str(numbers["steps"]))
    classify.n_features_in_ = width
    return SgdLogisticModel(Pipeline([("scale", scale), ("classify", classify)]))
