"""Programs of the system that tests start: where one is absent the test is skipped by its name, and in CI it fails."""

import os
import shutil

import pytest


def program(name: str, purpose: str) -> str:
    """Its path. At a module's top it decides for all tests of the module."""
    found = shutil.which(name)
    if found is not None:
        return found
    reason = f"{name}, which {purpose}, is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
