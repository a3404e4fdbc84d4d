"""Feature sets of the versions that a journal names: from their packages, or by the schema ids of the sets as built."""

from pathlib import Path

from tickgate_server.features.schema import FeatureSet, FeatureSetUnknown, Fundamental, feature_set, micro10, micro32
from tickgate_server.models.errors import ModelError
from tickgate_server.models.package import read_manifest


class FeatureSets:
    """Looks feature sets up; called with name, version and schema id.

    Args:
        repository: Of the models.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._known = {found.schema_id: found for found in (micro10(), micro32())}

    def __call__(self, name: str, version: int, schema_id: str) -> FeatureSet | None:
        """The set of that schema id; None: the version's package is not there, or is of another one by now."""
        known = self._known.get(schema_id)
        if known is not None:
            return known
        try:
            found = feature_set_of(self._repository / name / str(version))
        except (ModelError, FeatureSetUnknown, ValueError):
            return None
        self._known[found.schema_id] = found
        return found if found.schema_id == schema_id else None


def feature_set_of(folder: Path) -> FeatureSet:
    """The feature set of the package in a folder, `<repository>/<name>/<version>`.

    Raises:
        ModelError: There is no such package.
        FeatureSetUnknown: It names no set of these.
        ValueError: Its parameters make none.
    """
    said = read_manifest(folder).features
    fundamentals = [Fundamental(one.name, one.maximum_age_ns) for one in said.fundamentals]
    return feature_set(said.feature_set, said.session_gap_ns, fundamentals)


def named(name: str, session_gap_s: float) -> FeatureSet:
    """The set of a name without fundamentals; raises as `feature_set_of`."""
    return feature_set(name, round(session_gap_s * 1e9))
