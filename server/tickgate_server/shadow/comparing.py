"""From records of the journal to comparisons: which decisions count, what the shadow gives for them, how they differ.

Scored is the float32 vector as it was recorded, never one computed anew. The value is 2 P(up) - 1 and the confidence
the larger of P(up) and 1 - P(up), in double, as in the gate (`risk.gate.judge`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.entries import Model
from tickgate_server.journal.layout import Flags, RecordKind
from tickgate_server.journal.segments import Rows
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.registry import PRODUCTION
from tickgate_server.models.shadow_record import Missed
from tickgate_server.risk.reasons import Action
from tickgate_server.shadow.store import ALIASES, COMPARISON, Comparisons
from tickgate_server.shadow.watching import NO_VERSION, Timeline

_PRODUCTION, _CANARY = range(len(ALIASES))

ThresholdOf = Callable[[Model], float | None]
"""Decision threshold of a version that answered; None where its manifest cannot be had."""


class Answers(NamedTuple):
    """Decisions of one segment that a shadow is compared with.

    Attributes:
        rows: Of `layout.DECISION` [n].
        versions: That answered, int64 [n].
        aliases: Places in `store.ALIASES`, int64 [n].
        unknown: How many decisions more were of a model that nobody knows, its record being lost.
    """

    rows: Rows
    versions: NDArray[np.int64]
    aliases: NDArray[np.int64]
    unknown: int


class Chooser:
    """Finds the decisions that a shadow is compared with.

    Those answered OK, with complete features, of the model's name, by the canary's version or else by production's,
    made while this version was the shadow. Who asked without naming a version got production; so did who named a
    version that production was. A repeated answer is none, and neither is one of the shadow itself. One that was
    journaled as OK and did not leave in time counts: the version gave it.

    Attributes:
        since_ns: When the version became the shadow first, as far back as the changes are kept; 0: always was.

    Args:
        name: Of the model.
        version: The shadow.
        aliases: Of the model.
    """

    def __init__(self, name: str, version: int, aliases: Aliases) -> None:
        self._name = name
        self._version = version
        self._shadow = Timeline(aliases, "shadow")
        self.since_ns = self._shadow.first_ns(version)
        self._canary = Timeline(aliases, "canary")
        self._production = Timeline(aliases, "production")
        self._plain = [asked.encode() for asked in ("", name, f"{name}@{PRODUCTION}")]

    def choose(self, rows: Rows, models: Mapping[int, Model]) -> Answers:
        """Of polled rows, and the models that they may name by index, those that count."""
        answered = (rows["kind"] == RecordKind.DECISION) & (rows["status"] == 0) & rows["ready"]
        answered &= (rows["flags"] & Flags.REPEATED == 0) & (rows["model_index"] >= 0)
        rows = rows[answered]
        clocks_ns = rows["clock_ns"]
        rows = rows[self._shadow.at(clocks_ns) == self._version]
        clocks_ns = rows["clock_ns"]
        table = np.full(max(models, default=-1) + 2, -1, np.int64)  # the last: of a model that nobody knows
        for index, model in models.items():
            table[index] = model.version if model.name == self._name else NO_VERSION
        versions = table[np.minimum(rows["model_index"], table.size - 1)]
        canary = versions == self._canary.at(clocks_ns)
        production = np.isin(rows["model_asked"], self._plain) | (versions == self._production.at(clocks_ns))
        kept = (versions > NO_VERSION) & (versions != self._version) & (canary | production)
        aliases = np.where(canary, _CANARY, _PRODUCTION)
        return Answers(rows[kept], versions[kept], aliases[kept], int((versions < 0).sum()))


def compare(
    answers: Answers, models: Mapping[int, Model], shadow: LoadedModel | None, threshold_of: ThresholdOf, worker: int
) -> tuple[Comparisons, Counter[Missed]]:
    """Score what was answered with the shadow.

    Args:
        answers: As chosen.
        models: By index, those that they name.
        shadow: None where it is not loaded: nothing can be compared then.
        threshold_of: For the would-be signals of the versions that answered.
        worker: Whose journal it is.

    Returns:
        Comparisons in the answers' order, without sequence and checksum; and how many answers have none, by why.
    """
    missed: Counter[Missed] = Counter()
    rows = answers.rows
    if shadow is None:
        missed[Missed.NOT_LOADED] += rows.size
        return np.empty(0, COMPARISON), missed
    indices = rows["model_index"]
    used = {index: models[index] for index in np.unique(indices).tolist()}
    other = [index for index, model in used.items() if model.schema_id != shadow.schema_id]
    thresholds = {index: threshold_of(model) for index, model in used.items() if index not in other}
    unknown = [index for index, threshold in thresholds.items() if threshold is None]
    left = np.ones(rows.size, np.bool_)
    for why, found in (
        (Missed.OTHER_FEATURES, np.isin(indices, other)),
        (Missed.VECTOR_CUT, rows["flags"] & Flags.VECTOR_CUT != 0),
        (Missed.ANSWER_INVALID, ~rows["scored"]),
        (Missed.MANIFEST_GONE, np.isin(indices, unknown)),
    ):
        missed[why] += int((left & found).sum())
        left &= ~found
    places = np.flatnonzero(left)
    probabilities = _scores(rows["vector"][places], shadow)
    valid = (probabilities >= 0.0) & (probabilities <= 1.0)
    missed[Missed.INVALID_OUTPUT] += int((~valid).sum())
    places, probabilities = places[valid], probabilities[valid]
    answered_by = np.array([thresholds[index] for index in indices[places].tolist()], np.float64)
    made = _comparisons(rows[places], probabilities, answered_by, shadow.threshold)
    made["worker"] = worker
    made["version"] = answers.versions[places]
    made["alias"] = answers.aliases[places]
    return made, +missed


def signals(
    values: NDArray[np.float64], confidences: NDArray[np.float64], thresholds: NDArray[np.float64] | float
) -> NDArray[np.uint8]:
    """Would-be signals: numbers of `Action`, uint8 [n]."""
    directed = np.where(values > 0.0, Action.BUY, np.where(values < 0.0, Action.SELL, Action.HOLD))
    return np.where(confidences >= thresholds, directed, Action.HOLD).astype(np.uint8)


def _scores(vectors: NDArray[np.float32], shadow: LoadedModel) -> NDArray[np.float64]:
    """P(up) of each vector, one by one as a server would score it, float64 [n]; NaN where the graph fails."""
    width = shadow.features.width
    score = shadow.scorer.score
    found = np.full(len(vectors), np.nan)
    for place, vector in enumerate(vectors[:, :width]):
        try:
            found[place] = score(vector)
        # What a graph's nodes raise as they run shares no base: see `models.session`.
        except Exception:  # noqa: BLE001, S112 - its output is no probability, and counted as such
            continue
    return found


def _comparisons(
    rows: Rows, probabilities: NDArray[np.float64], thresholds: NDArray[np.float64], shadow_threshold: float
) -> Comparisons:
    made = np.zeros(rows.size, COMPARISON)
    values = 2.0 * probabilities - 1.0
    confidences = np.maximum(probabilities, 1.0 - probabilities)
    made["journal_sequence"] = rows["sequence"]
    made["clock_ns"] = rows["clock_ns"]
    made["signal"] = signals(rows["value"], rows["confidence"], thresholds)
    made["shadow_signal"] = signals(values, confidences, shadow_threshold)
    made["agreed"] = np.sign(rows["value"]) == np.sign(values)
    made["value"] = rows["value"]
    made["confidence"] = rows["confidence"]
    made["shadow_value"] = values
    made["shadow_confidence"] = confidences
    made["symbol"] = rows["symbol"]
    return made
