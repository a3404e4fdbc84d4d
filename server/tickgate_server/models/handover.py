"""A loaded version on its way from the process that checked it to the one that serves it: a line of JSON, flat arrays.

Nothing of it can run code, unlike a pickle, and nothing of it takes the receiver long: the manifest comes without its
golden vectors, the forest as it lies in memory. A version that stays with ONNX Runtime comes without a session, which
the receiver makes of the same bytes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features.schema import feature_set
from tickgate_server.models.errors import PackageError, by_name
from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.loading import LoadedModel, read_model
from tickgate_server.models.package import CHECKED, MODEL_FILE, Golden, Manifest
from tickgate_server.models.session import Session

_ARRAYS = ("nodes", "roots", "keys", "program", "registers")


def said_of(model: LoadedModel) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """What to say of a version that passed, and the arrays behind it, in the order of what is said."""
    facts: dict[str, Any] = {
        "manifest": model.manifest.model_dump(mode="json", exclude={"golden"}),
        "not_compiled": model.not_compiled,
        "warm_up_us_p99": model.warm_up_us_p99,
        "inline": model.inline,
        "width": 0,
        "arrays": [],
    }
    if not isinstance(model.scorer, CompiledForest):
        return facts, []
    arrays = [getattr(model.scorer, name) for name in _ARRAYS]
    facts["width"] = model.scorer.width
    facts["arrays"] = [[array.dtype.str, list(array.shape)] for array in arrays]
    return facts, arrays


def said_of_error(error: PackageError) -> dict[str, Any]:
    """What to say of one that did not pass."""
    return {"error": type(error).__name__, "path": str(error.path), "why": error.why}


def error_of(said: dict[str, Any]) -> PackageError:
    """The error again."""
    return by_name(said["error"])(Path(said["path"]), said["why"])


def model_of(folder: Path, said: dict[str, Any], read_into: Callable[[memoryview], None]) -> LoadedModel:
    """The version again, ready to serve.

    Args:
        folder: Of its package.
        said: As `said_of` gave it.
        read_into: Fills a buffer with the next bytes of the arrays.

    Raises:
        PackageError: Its file is another one by now, for a version that stays with ONNX Runtime.
    """
    manifest = _manifest_of(said["manifest"])
    features = feature_set(manifest.features.feature_set, manifest.features.session_gap_ns)
    if said["arrays"]:
        arrays = [np.empty(shape, dtype) for dtype, shape in said["arrays"]]
        for array in arrays:
            if array.nbytes:
                read_into(array.data.cast("B"))
        scorer: CompiledForest | Session = CompiledForest(said["width"], *arrays)
    else:
        path = folder / MODEL_FILE
        scorer = Session(path, read_model(path, manifest), features.width)
    return LoadedModel.of(
        manifest,
        features,
        scorer,
        not_compiled=said["not_compiled"],
        warm_up_us_p99=said["warm_up_us_p99"],
        inline=said["inline"],
    )


def _manifest_of(said: dict[str, Any]) -> Manifest:
    """The manifest but for its golden vectors, which were for the checks: a file of them is long to read."""
    # Every other field is held to its type again.
    return Manifest.model_validate(said | {"golden": Golden.model_construct(inputs=(), outputs=())}, context=CHECKED)
