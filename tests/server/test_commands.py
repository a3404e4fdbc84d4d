"""`tickgate models list`, and the ways in which `tickgate serve` does not start."""

import queue
from pathlib import Path

import grpc
import pytest
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import run, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.features.schema import micro10
from tickgate_server.models.package import MODEL_FILE


def test_models_list_says_of_every_version_whether_it_is_fit_and_why_not(repository: Path) -> None:
    (publish_logistic(repository, version=2) / MODEL_FILE).write_bytes(b"other")
    ended = run("models", "list", "--models", str(repository), environment={"COLUMNS": "600"})
    assert ended.returncode == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.stdout.splitlines() if "tiny" in line]
    assert [row[:3] for row in rows] == [["tiny", "1", "yes"], ["tiny", "2", "no"]]
    assert rows[0][3:5] == [micro10().schema_id, "5 trades"]
    assert rows[1][6].startswith(f"{repository / 'tiny' / '2' / MODEL_FILE}: sha256 is")


@pytest.mark.parametrize("command", [["models", "list"], ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", ""]])
def test_a_repository_that_is_no_folder_is_named(tmp_path: Path, command: list[str]) -> None:
    ended = run(*command, "--models", str(tmp_path / "none"))
    assert ended.returncode == 1
    assert f"Error: models.repository: expected a folder of model packages, got '{tmp_path / 'none'}'" in ended.stderr


SERVE = ("serve", "--listen", "127.0.0.1:0", "--service-listen", "", "--metrics-listen", "", "--journal", "none")


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        (("--metrics-listen", "9464"), {}, "Error: server.metrics_listen: expected host:port, got '9464'"),
        (("--instruments", "none.toml"), {}, "Error: none.toml: cannot be read"),
        (("--config", "none.toml"), {}, "Error: none.toml: no such file"),
        ((), {"TICKGATE_SERVER__PORT": "1"}, "Error: environment: server.port: "),
        (("--default-model", "other"), {}, "Error: models.default: no model 'other'; known: tiny"),
        (("--clock", "slow"), {}, "Invalid value for '--clock'"),
        (
            (),
            {"TICKGATE_SERVER__TLS_KEY": "none.pem", "TICKGATE_SERVER__TLS_CERTIFICATE": "none.pem"},
            "Error: TLS file none.pem: cannot be read",
        ),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    repository: Path, arguments: tuple[str, ...], environment: dict[str, str], why: str
) -> None:
    ended = run(*SERVE, "--models", str(repository), *arguments, environment=environment)
    assert ended.returncode in {1, 2}
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_full_symbol_table_holds_new_symbols_and_serves_those_it_has(repository: Path) -> None:
    with served(repository, "--clock", "replay", environment={"TICKGATE_INSTRUMENTS__CAPACITY": "2"}) as server:
        reasons = [server.predict(zigzag(symbol, 1)[0]).signal.reason for symbol in ("A", "B", "C", "A")]
        assert reasons == [
            pb.REASON_FEATURES_NOT_READY,
            pb.REASON_FEATURES_NOT_READY,
            pb.REASON_TICK_SYMBOL_TABLE_FULL,
            pb.REASON_FEATURES_NOT_READY,
        ]


@pytest.mark.parametrize("transport", ["queue", "aio"])
def test_a_call_beyond_the_limit_is_refused_at_once_and_those_within_go_on(repository: Path, transport: str) -> None:
    limits = {"TICKGATE_SERVER__MAX_CONCURRENT_REQUESTS": "1"}
    arguments = ("--clock", "replay", "--default-model", "tiny", "--transport", transport)
    one, two = zigzag("A", 2)
    more: queue.Queue[list[pb.PredictRequest] | None] = queue.Queue()
    with served(repository, *arguments, environment=limits) as server:
        answers = server.stream(iter(more.get, None))
        more.put([one])
        assert next(answers).results[0].response.model.name == "tiny"
        assert server.refusal(two)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        more.put([two])
        assert next(answers).results[0].response.features.trades_in_window == 2
        more.put(None)
        assert list(answers) == []
