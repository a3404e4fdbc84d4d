"""What a paper run is told and what it tells: its configuration, its progress, its figures."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from tickgate_client.execution import Account, EmpiricalLatency, Fill, PaperInstrument, Side
from tickgate_client.execution.commands import paper
from tickgate_client.paper.config import BadPaperConfig, read_config
from tickgate_client.paper.progress import Progress
from tickgate_client.paper.report import SymbolResult, symbols_of

LEAST = 'folder = "run"\n[feed]\nsource = "ticks.csv"\n[server]\nmodels = "models"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "paper.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_and_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    found = read_config(written(tmp_path, LEAST))
    assert found.folder == tmp_path / "run"
    assert found.server.models == str(tmp_path / "models")
    assert found.feed.source == "ticks.csv"  # no such file: its reader may take it for something else
    (tmp_path / "ticks.csv").touch()
    assert read_config(found.path).feed.source == str(tmp_path / "ticks.csv")
    assert (found.plan.kind, found.sla.policy, found.venue.participation) == ("at_once", "HOLD", 0.1)


def test_every_table_is_read(tmp_path: Path) -> None:
    more = """
[venue]
impact = 2
[venue.latency]
kind = "empirical"
samples_us = [1.0, 2.0]
[instruments.ES]
multiplier = 50
[plan]
kind = "vwap"
profile = [1, 2.5]
"""
    found = read_config(written(tmp_path, LEAST + more))
    assert found.venue.impact == 2.0
    assert isinstance(found.venue.latency, EmpiricalLatency)
    assert found.instruments == {"ES": PaperInstrument(multiplier=50.0)}
    assert [one.size for one in found.plan.schedule(7.0, 10**9).slices] == [2.0, 5.0]


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("folder =", "", "expected TOML"),
        (LEAST + "[venue]\nimpct = 1.0\n", "venue.impct", "a key that is not known, expected one of seed, latency"),
        (LEAST + "[venue]\nimpact = -1.0\n", "venue", "impact is -1.0, must be finite and at least 0"),
        (LEAST + '[venue]\nimpact = "1"\n', "venue.impact", "found '1', expected float"),
        (LEAST + '[venue.latency]\nkind = "normal"\n', "venue.latency.kind", "expected one of fixed, lognormal"),
        (LEAST + '[venue.latency]\nkind = "fixed"\n', "venue.latency", "expected arguments of fixed"),
        (LEAST + "[instruments.A]\nlots = 1\n", "instruments.A.lots", "a key that is not known"),
        (LEAST + "instruments = 3\n", "server.instruments", "a key that is not known"),
        (LEAST + '[plan]\nkind = "pov"\n', "plan", "kind is 'pov', must be at_once, twap"),
        (LEAST + '[plan]\nkind = "almgren_chriss"\n', "plan", "temporary_impact is 0.0, must be above"),
        (LEAST + "[plan]\nslices = true\n", "plan.slices", "found True, expected int"),
        (LEAST + '[sla]\npolicy = "PANIC"\n', "sla", "policy is 'PANIC', must be one of CONTINUE"),
        (LEAST.replace('folder = "run"', ""), "", "folder"),
        (LEAST + 'target = "here:1"\n', "server", "one of them"),
        (LEAST.replace("models", "target"), "server", "target and service go together"),
    ],
)
def test_what_cannot_be_taken_is_named(tmp_path: Path, text: str, where: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadPaperConfig) as refused:
        read_config(path)
    assert refused.value.where == where
    assert message in str(refused.value)
    done = CliRunner().invoke(paper, [str(path)])
    assert done.exit_code == 1
    assert message in done.output


def test_progress_is_there_again_and_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    first = Progress(path)
    first.asked, first.prices = 7, {"A": 100.5}
    first.refusals["SLA_HELD"] += 2
    first.save()
    again = Progress(path)
    assert (again.asked, again.prices, again.refusals, again.run) == (7, {"A": 100.5}, {"SLA_HELD": 2}, first.run)
    assert again.request_id(7) == first.request_id(7) != Progress(tmp_path / "other").request_id(7)
    path.write_text(json.dumps({"format": "another"}))
    with pytest.raises(ValueError, match="found format 'another'"):
        Progress(path)


def test_gross_less_slippage_less_fees_is_net() -> None:
    account = Account(lambda _symbol: 10.0)
    account.book(Fill("1", "a", "A", Side.BUY, 2.0, 101.0, fee=1.5), arrival_price=100.5)
    account.book(Fill("2", "b", "A", Side.SELL, 1.0, 103.0, fee=0.5), arrival_price=103.25)
    # Cash: -2020 + 1030 - 2. Held: one at 104. Slippage: 2 x 0.5 x 10 + 1 x 0.25 x 10, of 2010 + 1032.5.
    assert symbols_of(account, {"A": 104.0}) == [
        SymbolResult(
            symbol="A",
            position=1.0,
            price=104.0,
            fills=2,
            bought=2.0,
            sold=1.0,
            fees=2.0,
            slippage=12.5,
            slippage_bps=pytest.approx(12.5 / 3042.5 * 1e4),
            net=48.0,
            gross=62.5,
        )
    ]
    assert math.isnan(symbols_of(account, {})[0].net)
