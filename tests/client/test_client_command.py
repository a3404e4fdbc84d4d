"""The command `tickgate` as its users run it: a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import grpc
import pytest
from tests.client.scripted_server import Refusal, ScriptedServer, hold, trade_tick

from tickgate.v1 import market_pb2, signal_pb2
from tickgate_client import write_csv
from tickgate_client.commands import predict, replay_ticks

TICKGATE = Path(sys.executable).with_name("tickgate")


def run(*args: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; `code` instead runs Python that may break something before it calls `main`."""
    command = [str(TICKGATE)] if code is None else [sys.executable, "-c", code]
    environment = {**os.environ, "COLUMNS": "120", "PYTHONUTF8": "1"}
    return subprocess.run(
        [*command, *map(str, args)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


def without(*modules: str) -> str:
    """Python that runs the command as if modules were not installed, then says which slow ones it imported."""
    return (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({modules!r}))\n"
        "from tickgate_client.cli import main\n"
        "try:\n"
        "    main(prog_name='tickgate')\n"
        "finally:\n"
        "    slow = {'numpy', 'numba', 'pydantic', 'tickgate_client.commands'}\n"
        "    slow |= {'tickgate_server', 'tickgate_training'}\n"
        "    print('loaded:', sorted(slow & {k for k, v in sys.modules.items() if v}), file=sys.stderr)\n"
    )


@pytest.fixture
def tick_file(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.csv.gz"
    write_csv(path, [trade_tick(sequence=i + 1, price=100 + i) for i in range(25)])
    return path


def test_importing_the_client_imports_no_numpy_and_not_even_grpc() -> None:
    found = run(code="import sys, tickgate_client; print({'numpy', 'numba', 'pydantic', 'grpc'} & set(sys.modules))")
    assert (found.returncode, found.stdout) == (0, "set()\n")


def test_using_all_of_the_client_imports_neither_numpy_nor_pydantic() -> None:
    found = run(
        code=(
            "import sys, tickgate_client as c\n"
            "[getattr(c, name) for name in c.__all__]\n"
            "import tickgate_client.commands\n"
            "print({'numpy', 'numba', 'pydantic', 'tickgate_server', 'tickgate_training'} & set(sys.modules))"
        )
    )
    assert (found.returncode, found.stdout) == (0, "set()\n"), found.stderr


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    found = run(code="import tickgate_client; tickgate_client.nothing")
    assert "AttributeError: module 'tickgate_client' has no attribute 'nothing'" in found.stderr


def test_version_is_the_distributions() -> None:
    found = run("--version")
    assert (found.returncode, found.stdout) == (0, f"tickgate, version {version('tickgate')}\n")


def test_help_lists_every_verb_without_importing_any() -> None:
    found = run("--help", code=without())
    assert found.returncode == 0, found.stderr
    for verb in ("config", "demo", "health", "models", "predict", "replay-ticks", "serve", "train"):
        assert re.search(rf"^  {verb} +\w", found.stdout, re.MULTILINE), verb
    assert "loaded: []" in found.stderr


def test_help_says_which_extra_a_verb_needs() -> None:
    found = run("--help", code=without("numba", "polars"))
    text = " ".join(found.stdout.split())
    assert "Serve Predict from a folder of model packages. (needs tickgate[server])" in text
    assert "publish it as CONFIG (a TOML file) says. (needs tickgate[training])" in text
    assert re.search(r"Ask a server for one signal\. query ", text), "the base install has the client's verbs"


@pytest.mark.parametrize(
    ("verb", "missing", "extra"),
    [("serve", "tickgate_server", "server"), ("train", "tickgate_training", "training")],
)
def test_a_verb_without_its_extra_says_what_to_install_and_exits_with_2(verb: str, missing: str, extra: str) -> None:
    found = run(verb, code=without(missing))
    assert found.returncode == 2
    assert f"Error: `tickgate {verb}` needs packages that are not installed" in found.stderr
    assert f"pip install 'tickgate[{extra}]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_another_packages_broken_verb_leaves_the_help_whole() -> None:
    register = (
        "from importlib.metadata import EntryPoint\n"
        "from tickgate_client import plugins\n"
        "ours = plugins.registered\n"
        "theirs = EntryPoint('theirs', 'package_that_is_not_there:verb', 'tickgate.verbs')\n"
        "plugins.registered = lambda group: {**ours(group), 'theirs': theirs}\n"
    )
    found = run("--help", code=register + without())
    assert found.returncode == 0, found.stderr
    text = " ".join(found.stdout.split())
    assert "theirs (cannot be loaded: No module named 'package_that_is_not_there')" in text
    assert "Ask a server for one signal." in text


@pytest.mark.parametrize("command", [predict, replay_ticks], ids=lambda command: command.name)
def test_the_line_in_the_help_is_the_verbs_own_first_line(command: click.Command) -> None:
    listed = " ".join(run("--help").stdout.split())
    assert f"{command.name} {(command.help or '').splitlines()[0]}" in listed


def test_a_verb_that_does_not_exist_exits_with_2() -> None:
    found = run("nosuch")
    assert found.returncode == 2
    assert "No such command 'nosuch'" in found.stderr


def test_predict_sends_the_tick_and_prints_the_signal_with_every_check(peer: ScriptedServer) -> None:
    found = run(
        *("predict", "--target", peer.target, "--symbol", "BTCUSDT", "--price", 100.5, "--size", 2),
        *("--aggressor", "sell", "--bid", 100, "--ask", 101, "--bid-size", 5, "--ask-size", 6, "--sequence", 9),
        *("--exchange-ts-ns", 1234567, "--model", "midmove:3", "--budget-us", 900, "--deadline-ms", 20_000),
    )
    assert found.returncode == 0, found.stderr
    (seen,) = peer.seen
    assert seen.request == signal_pb2.PredictRequest(
        model="midmove:3",
        budget_us=900,
        tick=market_pb2.Tick(
            symbol="BTCUSDT",
            exchange_ts_ns=1234567,
            sequence=9,
            trade=market_pb2.Trade(price=100.5, size=2, aggressor=market_pb2.AGGRESSOR_SIDE_SELL),
            quote=market_pb2.Quote(bid=100, ask=101, bid_size=5, ask_size=6),
        ),
    )
    assert 1 < seen.time_remaining_s <= 20.1
    for cells in (
        ("action", "HOLD"),
        ("reason", "CONFIDENCE_BELOW_THRESHOLD"),
        ("CONFIDENCE_BELOW_THRESHOLD", "0.25", "≥ 0.75", "DENIED"),
        ("prediction", "-0.125000"),
        ("model", "midmove:3"),
        ("1.0", "2.0", "3.0", "4.0", "11.0", "50,000.0"),
    ):
        assert re.search(r"[ │]+".join(map(re.escape, cells)), found.stdout), (cells, found.stdout)


def test_predict_without_numbers_asks_about_the_symbol_and_json_is_the_contract(peer: ScriptedServer) -> None:
    found = run("predict", "--target", peer.target, "--symbol", "BTCUSDT", "--json", "--request-id", "q1")
    assert found.returncode == 0, found.stderr
    assert peer.seen[0].request.symbol == "BTCUSDT"
    answer = json.loads(found.stdout)
    assert answer["request_id"] == "q1"
    assert answer["signal"]["action"] == "ACTION_HOLD"
    assert answer["signal"]["approved"] is False
    assert answer["signal"]["limit_price"] == 0
    assert answer["timing"]["total_ns"] == "11000"


def test_predict_imports_no_numpy(peer: ScriptedServer) -> None:
    found = run("predict", "--target", peer.target, "--symbol", "S", code=without())
    assert found.returncode == 0, found.stderr
    assert "loaded: ['tickgate_client.commands']" in found.stderr


def test_predict_that_fails_says_so_in_one_line_and_exits_with_1(peer: ScriptedServer) -> None:
    peer.answer = lambda _: Refusal(grpc.StatusCode.NOT_FOUND, "no model 'x'\nat all")
    found = run("predict", "--target", peer.target, "--symbol", "S", "--request-id", "q1")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "Error: NOT_FOUND: no model 'x' at all (request q1)\n"


def test_predict_without_a_server_says_so_in_one_line_and_exits_with_1() -> None:
    found = run("predict", "--target", "127.0.0.1:1", "--symbol", "S", "--connect-timeout-s", 0.2)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == "Error: UNAVAILABLE: no connection to 127.0.0.1:1 within 0.2 s"


@pytest.mark.parametrize("half", [("--price", 1), ("--aggressor", "buy"), ("--bid", 1, "--ask", 2)])
def test_half_a_trade_or_quote_is_a_usage_error(half: tuple[object, ...]) -> None:
    found = run("predict", "--target", "127.0.0.1:1", "--symbol", "S", *half)
    assert found.returncode == 2
    assert "together" in found.stderr


@pytest.mark.parametrize("how", [(), ("--stream",), ("--stream", "--batch", 4, "--in-flight", 3)])
def test_replay_sends_every_tick_in_order_and_counts_the_answers(
    peer: ScriptedServer, tick_file: Path, tmp_path: Path, how: tuple[object, ...]
) -> None:
    out = tmp_path / "answers.jsonl"
    found = run("replay-ticks", tick_file, "--target", peer.target, "--out", out, "--deadline-ms", 60_000, *how)
    assert found.returncode == 0, found.stderr
    assert [seen.request.tick.sequence for seen in peer.seen] == list(range(1, 26))
    assert "25 of 25 ticks answered" in found.stdout
    for kind, name in (("status", "OK"), ("action", "HOLD"), ("reason", "CONFIDENCE_BELOW_THRESHOLD")):
        assert re.search(rf"{kind}[ │]+{name}[ │]+25\b", found.stdout), found.stdout
    shape = {
        0: "unary, 1 in flight, 1 connection",
        1: "stream, 1 in flight, 1 connection, 1 tick a message",
        5: "stream, 3 in flight, 1 connection, 4 ticks a message",
    }[len(how)]
    assert f"Latency in µs: {shape}" in " ".join(found.stdout.split())
    assert re.search(r"server[ │]+11\.0", found.stdout)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(25))
    assert lines[3] == {
        "index": 3,
        "code": "OK",
        "request_id": "3",
        "symbol": "BTCUSDT",
        "action": "HOLD",
        "size": 0.0,
        "limit_price": 0.0,
        "approved": False,
        "reason": "CONFIDENCE_BELOW_THRESHOLD",
        "target_position": 0.0,
        "value": -0.125,
        "confidence": 0.25,
        "model_name": "midmove",
        "model_version": 3,
        "checks": [
            {
                "reason": "CONFIDENCE_BELOW_THRESHOLD",
                "value": 0.25,
                "limit": 0.75,
                "at_least": True,
                "passed": False,
            }
        ],
    }


def test_equal_replays_are_equal_files_whatever_they_took_and_however_they_asked(
    peer: ScriptedServer, tick_file: Path, tmp_path: Path
) -> None:
    def slower_each_time(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        response = hold(request)
        response.timing.total_ns += len(peer.seen)
        return response

    peer.answer = slower_each_time
    for name, how in (("a", ()), ("b", ()), ("c", ("--stream", "--batch", 7))):
        assert run("replay-ticks", tick_file, "--target", peer.target, "--out", tmp_path / name, *how).returncode == 0
    first = (tmp_path / "a").read_bytes()
    assert first == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert first.count(b"\n") == 25


@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_a_replay_with_failures_goes_on_counts_them_and_exits_with_1(
    peer: ScriptedServer, tick_file: Path, tmp_path: Path, how: tuple[object, ...]
) -> None:
    def fifth_fails(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse | Refusal:
        if request.tick.sequence == 5:
            return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")
        return hold(request)

    peer.answer = fifth_fails
    out = tmp_path / "answers.jsonl"
    found = run("replay-ticks", tick_file, "--target", peer.target, "--out", out, *how)
    assert found.returncode == 1
    assert found.stderr == "Error: 1 of 25 ticks were not answered\n"
    assert re.search(r"RESOURCE_EXHAUSTED[ │]+1\b", found.stdout)
    failed = json.loads(out.read_text().splitlines()[4])
    assert (failed["index"], failed["code"], failed["action"], failed["checks"]) == (4, "RESOURCE_EXHAUSTED", None, [])


def test_a_stream_that_ends_early_shows_what_came_before_and_exits_with_1(
    peer: ScriptedServer, tick_file: Path
) -> None:
    def end_at_fifth(
        message: signal_pb2.PredictStreamRequest, context: grpc.ServicerContext
    ) -> signal_pb2.PredictStreamResponse:
        if message.requests[0].tick.sequence == 5:
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return signal_pb2.PredictStreamResponse(results=[peer.result(item) for item in message.requests])

    peer.stream_step = end_at_fifth
    found = run("replay-ticks", tick_file, "--target", peer.target, "--stream")
    assert found.returncode == 1
    assert "4 of 5 ticks answered" in found.stdout
    assert found.stderr == "Error: the stream ended: UNAVAILABLE: draining\n"


def test_a_limit_bounds_the_replay(peer: ScriptedServer, tick_file: Path) -> None:
    assert run("replay-ticks", tick_file, "--target", peer.target, "--limit", 3).returncode == 0
    assert len(peer.seen) == 3


def test_progress_is_drawn_only_where_it_is_asked_for_or_on_a_terminal(peer: ScriptedServer, tick_file: Path) -> None:
    quiet = run("replay-ticks", tick_file, "--target", peer.target)
    shown = run("replay-ticks", tick_file, "--target", peer.target, "--progress")
    assert quiet.stderr == ""
    assert "ticks" in shown.stderr
    assert quiet.returncode == shown.returncode == 0


def test_a_bad_row_ends_the_replay_with_its_place_in_one_line(peer: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    write_csv(path, [trade_tick()])
    path.write_text(path.read_text() + "S,1,0,-5,1,,,,,\n")
    found = run("replay-ticks", path, "--target", peer.target)
    assert found.returncode == 1
    assert found.stderr == f"Error: {path}, line 3, column price: found '-5', expected a finite number above 0\n"


def test_a_format_without_its_extra_says_what_to_install(tick_file: Path) -> None:
    found = run(
        *("replay-ticks", tick_file, "--format", "binance", "--target", "127.0.0.1:1"),
        code=without("tickgate_training"),
    )
    assert found.returncode == 1
    assert "tick format 'binance' needs packages that are not installed" in found.stderr
    assert "pip install 'tickgate[training]'" in found.stderr


def test_an_unknown_format_is_answered_with_the_known_ones(tick_file: Path) -> None:
    found = run("replay-ticks", tick_file, "--format", "pcap", "--target", "127.0.0.1:1")
    assert found.returncode == 1
    assert re.fullmatch(r"Error: no tick reader 'pcap'; there are: .*csv.*\n", found.stderr)


def test_batches_without_a_stream_are_a_usage_error(tick_file: Path) -> None:
    found = run("replay-ticks", tick_file, "--target", "127.0.0.1:1", "--batch", 2)
    assert found.returncode == 2
    assert "--stream" in found.stderr
