"""What packages register by entry point: verbs of the command line, and readers of recorded ticks.

Everything is found by name and imported only when it is used: most of tickgate is in extras, and the base install
has to say which one is wanted instead of failing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from tickgate_client.errors import ExtraMissing

_EXTRA_OF_PACKAGE: Mapping[str, str] = MappingProxyType(
    {
        "tickgate_server": "server",
        "tickgate_training": "training",
    }
)

# Parts of the client that need more than the base install.
_EXTRA_OF_MODULE: Mapping[str, str] = MappingProxyType({"tickgate_client.feeds.redis_streams": "server"})

# One look for each tells whether the extra is there; importing them would take seconds.
_PACKAGES_OF_EXTRA: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "server": ("numpy", "numba", "onnxruntime", "prometheus_client", "pydantic", "pydantic_settings", "structlog"),
        "training": ("numba", "onnxruntime", "pydantic", "arch", "lightgbm", "onnx", "polars", "sklearn", "skl2onnx"),
    }
)


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, in alphabetical order."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def is_own(entry: EntryPoint) -> bool:
    """Whether it belongs to the distribution `tickgate` itself."""
    package = entry.module.partition(".")[0]
    return package == "tickgate_client" or package in _EXTRA_OF_PACKAGE


def missing_extra(entry: EntryPoint) -> str | None:
    """The extra that has to be installed before the entry point can be loaded; None if nothing is missing.

    Looks without importing anything. Of packages that are not tickgate's own nothing is known: None.
    """
    package = entry.module.partition(".")[0]
    extra = _EXTRA_OF_PACKAGE.get(package)
    if extra is None:
        return None
    needed = _PACKAGES_OF_EXTRA[extra]
    if all(find_spec(name) is not None for name in needed) and _module_exists(package, entry.module):
        return None
    return extra


def load(entry: EntryPoint, feature: str) -> Any:
    """Import what an entry point names.

    Raises ExtraMissing if a package of an extra is not installed; any other failure to import is a fault of the
    entry point's own and comes through as it is.

    Args:
        entry: What to load.
        feature: What the user asked for, for the error.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        raise missing(entry, feature, error) from error


def missing(entry: EntryPoint, feature: str, error: ModuleNotFoundError) -> ImportError:
    """The error for a module that was not found while something of the entry point ran."""
    extra = _EXTRA_OF_MODULE.get(entry.module, _EXTRA_OF_PACKAGE.get(entry.module.partition(".")[0]))
    return error if extra is None else ExtraMissing(feature, extra, str(error))


def _module_exists(package: str, module: str) -> bool:
    spec = find_spec(package)
    name = package
    for part in module.split(".")[1:]:
        if spec is None or spec.submodule_search_locations is None:
            return False
        name = f"{name}.{part}"
        # Not importlib.util.find_spec: it imports the parents.
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec is not None
