"""Programs of the system that tests start: where one is absent the test is skipped by its name, and in CI it fails."""

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str, purpose: str) -> str:
    """Its path. At a module's top it decides for all tests of the module."""
    found = shutil.which(name)
    if found is None:
        absent(f"{name}, which {purpose}, is not installed")
    return found


def absent(reason: str) -> NoReturn:
    """What the test needs is not there: skipped, and in CI failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
