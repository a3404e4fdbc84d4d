"""`docs/reasons.md` is what the contract, the checks and the advice make of it, and says something of every reason."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Reason

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate.py"))


@pytest.fixture
def contract(generator: dict[str, Any]) -> str:
    text: str = generator["CONTRACT"].read_text()
    return text


def test_the_committed_document_is_what_is_generated(generator: dict[str, Any], tmp_path: Path) -> None:
    generator["generate"](tmp_path)
    assert (tmp_path / "reasons.md").read_text() == (DOCS / "reasons.md").read_text()


def test_every_reason_has_its_section_with_number_and_comment(generator: dict[str, Any], contract: str) -> None:
    text = generator["reasons"](contract)
    assert [reason.name for reason in Reason if f"### {reason.name} ({reason.value})" not in text] == []
    assert "99 %, one day, in the base currency." in text  # from the contract's comment
    assert "Stage 3: value at risk" not in text  # its heading says so
    assert text.count("- **What to do**: ") == len(Reason)


def test_every_limit_of_the_file_that_a_check_has_is_named(generator: dict[str, Any], contract: str) -> None:
    text = generator["reasons"](contract)
    bounds = [name for name in Limits.model_fields if name.startswith("max_") and "risk_data" not in name]
    assert [name for name in bounds if f"`{name}`" not in text] == []
    assert text.count("passes if value <= limit") == len(CHECKS) - 1
    assert "`allowed_regimes`." in text  # which cannot be "off"


def test_a_reason_without_a_comment_fails(generator: dict[str, Any], contract: str) -> None:
    silent = contract.replace("  // Bid above ask.\n", "")
    with pytest.raises(generator["TextMissing"], match=r"TICK_CROSSED_QUOTE: expected a comment in signal\.proto"):
        generator["reasons"](silent)


def test_a_reason_with_another_number_in_the_contract_fails(generator: dict[str, Any], contract: str) -> None:
    with pytest.raises(generator["TextMissing"], match="LOSS_DAILY: the contract has number 149, not 140"):
        generator["reasons"](contract.replace("LOSS_DAILY = 140", "LOSS_DAILY = 149"))


@pytest.mark.parametrize(
    ("table", "reason", "missing"),
    [
        ("ADVICE", Reason.RATE_TOTAL, "RATE_TOTAL: expected what to do"),
        ("MEASURED", Reason.VAR_PORTFOLIO, "VAR_PORTFOLIO: expected what its check measures"),
    ],
)
def test_a_reason_that_nobody_wrote_about_fails(
    generator: dict[str, Any], contract: str, table: str, reason: Reason, missing: str
) -> None:
    del generator[table][reason]
    with pytest.raises(generator["TextMissing"], match=missing):
        generator["reasons"](contract)


def test_a_key_that_is_none_of_the_limits_fails(generator: dict[str, Any], contract: str) -> None:
    generator["KEYS"][Reason.VAR_PORTFOLIO] = "max_vor"
    with pytest.raises(generator["TextMissing"], match="VAR_PORTFOLIO: max_vor is no key of the limits file"):
        generator["reasons"](contract)
