"""Where a server listens, and what its log says of the models it found."""

import socket
import tempfile
from pathlib import Path

import pytest
from tests.support.messages import zigzag
from tests.support.processes import Served, run, served

from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE


def test_a_unix_socket_is_listened_on(repository: Path, transport: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is short
        address = f"unix:{folder}/s"
        with served(repository, "--clock", "replay", "--listen", address, "--transport", transport) as server:
            assert server.address == address
            assert server.predict(zigzag("A", 1)[0]).model.name == "tiny"


def test_a_second_server_on_the_same_port_fails_and_the_first_serves_on(
    repository: Path, shared: Served, transport: str
) -> None:
    second = run(
        "serve",
        "--models",
        str(repository),
        "--listen",
        shared.address,
        "--service-listen",
        "",
        "--metrics-listen",
        "",
        "--journal",
        "none",
        "--transport",
        transport,
    )
    assert second.returncode == 1
    assert f"cannot listen on {shared.address}" in second.stderr
    assert "Traceback" not in second.stderr
    assert shared.predict(zigzag("PORT-TAKEN", 1)[0]).model.name == "trend"


def test_a_metrics_port_that_is_taken_is_named(repository: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        own = ("--listen", "127.0.0.1:0", "--service-listen", "", "--journal", str(tmp_path / "journal"))
        ended = run("serve", "--models", str(repository), *own, "--metrics-listen", address)
    assert ended.returncode == 1
    assert f"server.metrics_listen: cannot listen on {address}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_log_names_file_and_check_of_each_package_that_is_not_fit(shared: Served, mixed_repository: Path) -> None:
    refused = {
        (line["model"], line["version"]): (line["check"], line["file"])
        for line in shared.process.logged("model refused")
    }
    assert refused == {
        ("broken", 1): ("HashMismatch", str(mixed_repository / "broken" / "1" / MODEL_FILE)),
        ("failing", 1): ("GraphInvalid", str(mixed_repository / "failing" / "1" / MODEL_FILE)),
        ("half", 1): ("PackageFileMissing", str(mixed_repository / "half" / "1" / MANIFEST_FILE)),
        ("trend", 3): ("LatencyOverBudget", str(mixed_repository / "trend" / "3" / MODEL_FILE)),
    }
    assert all(line["why"] for line in shared.process.logged("model refused"))
    assert [line["version"] for line in shared.process.logged("model loaded")] == [1, 2]


@pytest.mark.parametrize("name", ["trend", "trend:1", "trend:2"])
def test_fit_models_serve_beside_those_that_are_not(shared: Served, name: str) -> None:
    request = zigzag("BESIDE", 1)[0]
    request.model = name
    assert shared.predict(request).model.name == "trend"
