import json
import os
from pathlib import Path

import pytest
from tests.support.processes import run

from tickgate_server.config import Settings, SettingsInvalid, flatten, load

FILE = """
[server]
listen = "0.0.0.0:1"
drain_s = 2

[risk]
max_order_notional = 1000.0
valid_for_us = 1000
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TICKGATE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tickgate.toml"
    path.write_text(FILE)
    return path


def refused(file: Path | None = None, **overrides: object) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load(file, {key.replace("__", "."): value for key, value in overrides.items()})
    return str(caught.value)


def test_without_anything_every_value_is_its_default() -> None:
    settings, origins = load()
    assert settings == Settings()
    assert set(origins.values()) == {"default"}
    assert origins.keys() == flatten(settings).keys()


def test_command_line_beats_environment_beats_file_beats_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKGATE_SERVER__LISTEN", "0.0.0.0:2")
    monkeypatch.setenv("TICKGATE_RISK__MAX_ORDER_NOTIONAL", "2e3")
    settings, origins = load(file, {"server.listen": "0.0.0.0:3"})
    assert settings.server.listen == "0.0.0.0:3"
    assert settings.risk.max_order_notional == 2000.0
    assert (settings.risk.valid_for_us, settings.server.drain_s) == (1000, 2.0)
    assert settings.risk.risk_budget == 1000.0
    keys = ("server.listen", "risk.max_order_notional", "risk.valid_for_us", "server.drain_s", "risk.risk_budget")
    assert [origins[key] for key in keys] == ["command line", "environment", str(file), str(file), "default"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[server]\nport = 1\n", "server.port"),
        ("[sever]\nlisten = 'a:1'\n", "sever"),
        ("listen = 'a:1'\n", "listen"),
        ("risk = 3\n", "risk"),
        ("[server]\nlisten = {host = 'a'}\n", "server.listen"),
        ("[risk]\nmax_order_size = 'much'\n", "risk.max_order_size"),
        ("[risk]\nrisk_budget = 0\n", "risk.risk_budget"),
        ("[risk]\nmax_order_size = nan\n", "risk.max_order_size"),
        ("[clock]\nmode = 'slow'\n", "clock.mode"),
        ("[clock]\nfuture_limit_s = -1\n", "clock.future_limit_s"),
        ("[clock]\nstale_limit_s = inf\n", "clock.stale_limit_s"),
        ("[clock]\nstale_limit_s = 1e11\n", "clock.stale_limit_s"),
        ("[instruments]\ncapacity = 0\n", "instruments.capacity"),
        ("[server]\ntls_key = 'a.pem'\n", "tls_certificate and tls_key go together"),
        ("[server]\nworkers = 0\n", "server.workers"),
        ("[server]\nworkers = 2\nlisten = 'here'\n", "several workers need listen to be host:port or unix:/path"),
        ("[server]\nadmin_listen = 'here'\n", "admin_listen: expected unix:/path, host:port or none, got 'here'"),
        ("[server]\nadmin_listen = '[::1]:9'\n", "over TCP it needs mTLS, tls_client_ca"),
        ("[server]\nservice_listen = '127.0.0.1:50051'\n", "listen and service_listen both have 127.0.0.1:50051"),
        ("[worker]\nindex = 1\n", "index is 1, must be below count, 1"),
    ],
)
def test_what_a_file_may_not_say_is_named_with_the_file(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "tickgate.toml"
    path.write_text(text)
    why = refused(path)
    assert why.startswith(f"{path}: ")
    assert key in why


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("TICKGATE_RISK__NOTHING", "1", "risk.nothing"),
        ("TICKGATE_RISK__MAX_ORDER_SIZE", "much", "risk.max_order_size"),
        ("TICKGATE_RISK__MAX_ORDER_SIZE", "nan", "risk.max_order_size"),
        ("TICKGATE_SERVER__MAX_CONCURRENT_REQUESTS", "0", "server.max_concurrent_requests"),
        ("TICKGATE_RISC__MAX_ORDER_SIZE", "1", "TICKGATE_RISC__MAX_ORDER_SIZE"),
        ("TICKGATE_RISK_MAX_ORDER_SIZE", "1", "TICKGATE_RISK_MAX_ORDER_SIZE"),
        ("TICKGATE_LISTEN", "a:1", "TICKGATE_LISTEN"),
    ],
)
def test_what_the_environment_may_not_say_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str
) -> None:
    monkeypatch.setenv(name, value)
    why = refused()
    assert why.startswith("environment: ")
    assert key in why


def test_a_bad_value_of_the_command_line_is_named() -> None:
    assert refused(clock__mode="slow").startswith("command line: clock.mode: ")


def test_a_section_that_is_none_is_named_though_the_environment_sets_a_key_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tickgate.toml"
    path.write_text("risk = 3\n")
    monkeypatch.setenv("TICKGATE_RISK__MAX_ORDER_SIZE", "1")
    assert refused(path).startswith(f"{path}: risk: ")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.toml") == f"{tmp_path / 'none.toml'}: no such file"


@pytest.mark.parametrize("data", [b"[server", b'[server]\nlisten = "\xff"\n'], ids=["toml", "utf-8"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tickgate.toml"
    path.write_bytes(data)
    assert refused(path).startswith(f"{path}: cannot be read")


def test_the_kernel_caches_place_is_no_setting_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKGATE_KERNEL_CACHE", "/nowhere")
    assert load()[0] == Settings()


def test_the_config_command_says_value_and_origin_of_every_setting(file: Path) -> None:
    ended = run("config", "--config", str(file), "--json", environment={"TICKGATE_LOG__LEVEL": "debug"})
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = json.loads(ended.stdout)
    assert shown.keys() == flatten(Settings()).keys()
    assert shown["server.listen"] == {"value": "0.0.0.0:1", "origin": str(file)}
    assert shown["log.level"] == {"value": "debug", "origin": "environment"}
    assert shown["clock.mode"] == {"value": "live", "origin": "default"}


def test_the_config_command_shows_a_table_to_people(file: Path) -> None:
    ended = run("config", "--config", str(file))
    (line,) = [line for line in ended.stdout.splitlines() if " risk.valid_for_us " in line]
    assert "1000" in line
    assert str(file) in line


def test_the_config_command_fails_on_settings_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "tickgate.toml"
    path.write_text("[server]\nport = 1\n")
    ended = run("config", "--config", str(path))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Error: {path}: server.port: ")
