"""The limits file in `docs/risk.md` is whole, valid, and has the defaults that it says it has."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tickgate_server.config import DeskSection
from tickgate_server.risk.limits import SLICED, Limits, read_limits

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "risk.md").read_text()
SETTINGS, EXAMPLE = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def example() -> dict[str, Any]:
    return tomllib.loads(EXAMPLE)


def test_the_example_has_every_key_with_its_default(example: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(EXAMPLE)
    assert set(example) == set(Limits.model_fields)
    assert read_limits(path) == Limits(version=1)


def test_what_may_be_off_says_so(example: dict[str, Any]) -> None:
    lines = {line.partition(" = ")[0]: line for line in EXAMPLE.splitlines()}
    may_be_off = [name for name, field in Limits.model_fields.items() if "'off'" in str(field.annotation)]
    assert [name for name in example if ('"off"' in lines.get(name, "")) != (name in may_be_off)] == []


def test_what_is_commented_out_is_valid_too(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(re.sub(r"^# ", "", EXAMPLE, flags=re.MULTILINE))
    found = read_limits(path)
    assert (set(found.currencies), set(found.symbols)) == ({"EUR"}, {"AAPL", "GME"})


def test_the_settings_exist() -> None:
    assert set(tomllib.loads(SETTINGS)["desk"]) < set(DeskSection.model_fields)


def test_the_limits_that_are_sliced_are_those_named() -> None:
    (workers,) = re.findall(r"## Workers\n(.*?)the other limits", TEXT, re.DOTALL)
    assert set(re.findall(r"`(max_\w+)`", workers)) == set(SLICED)
