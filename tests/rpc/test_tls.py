"""TLS and mTLS on the data listener, with certificates that openssl makes for the test."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, run, served, server
from tests.support.programs import program

from tickgate.tls import read_credentials
from tickgate.v1 import GetPortfolioRequest, PortfolioServiceStub
from tickgate_client import RoutedSignalClient, ServerUnavailable, SignalClient, write_csv

OPENSSL = program("openssl", "makes the certificates")


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """Signs certificates for this machine's loopback."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self.own = self._make(name)

    def sign(self, name: str) -> Pair:
        return self._make(name, "-CA", str(self.own.certificate), "-CAkey", str(self.own.key))

    def _make(self, name: str, *signing: str) -> Pair:
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        names = ["-addext", "subjectAltName=IP:127.0.0.1"] if signing else []
        subprocess.run(
            [
                *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-keyout", str(pair.key), "-out", str(pair.certificate), "-subj", f"/CN={name}", "-days", "2"),
                *(*signing, *names),
            ],
            check=True,
            capture_output=True,
        )
        return pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "desk")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder


def arguments_of(pair: Pair) -> dict[str, str]:
    return {"TICKGATE_SERVER__TLS_CERTIFICATE": str(pair.certificate), "TICKGATE_SERVER__TLS_KEY": str(pair.key)}


@pytest.fixture(scope="module")
def tls(models: Path, authority: Authority, transport: str) -> Iterator[str]:
    """Address of a server that shows a certificate and asks for none."""
    environment = arguments_of(authority.sign(f"tls-{transport}"))
    with server(models, "--transport", transport, "--clock", "replay", environment=environment) as (_, address):
        yield address


@pytest.fixture(scope="module")
def mtls(models: Path, authority: Authority, transport: str) -> Iterator[str]:
    """Address of a server that wants a certificate of the authority's."""
    environment = arguments_of(authority.sign(f"mtls-{transport}"))
    environment["TICKGATE_SERVER__TLS_CLIENT_CA"] = str(authority.own.certificate)
    with server(models, "--transport", transport, "--clock", "replay", environment=environment) as (_, address):
        yield address


def answer(address: str, ca: Path | None, pair: Pair | None = None) -> str:
    """The symbol of an answer over a connection that is made with these files."""
    credentials = read_credentials(ca, pair.certificate, pair.key) if pair else read_credentials(ca)
    with SignalClient(address, deadline_s=CALL_S, channel_credentials=credentials) as client:
        return client.ask(zigzag("A", 1)[0], CALL_S).symbol


def portfolio_revision(address: str, credentials: grpc.ChannelCredentials | None) -> int:
    if credentials is None:
        opened = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    else:
        opened = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
    with opened as channel:
        return PortfolioServiceStub(channel).GetPortfolio(GetPortfolioRequest(), timeout=CALL_S).portfolio.revision


def test_a_client_that_trusts_the_authority_is_answered(tls: str, authority: Authority) -> None:
    assert answer(tls, authority.own.certificate) == "A"


def test_a_routed_client_speaks_tls_to_every_worker(tls: str, authority: Authority) -> None:
    credentials = read_credentials(authority.own.certificate)
    with RoutedSignalClient(tls, deadline_s=CALL_S, channel_credentials=credentials) as client:
        client.connect(timeout_s=CALL_S)
        assert client.ask(zigzag("A", 1)[0], CALL_S).symbol == "A"


def test_a_client_in_plain_text_is_not_answered(tls: str) -> None:
    with pytest.raises(ServerUnavailable):
        answer(tls, None)


def test_a_client_does_not_trust_a_server_that_another_authority_signed(tls: str, tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailable):
        answer(tls, Authority(tmp_path, "stranger").own.certificate)


def test_with_mtls_a_client_with_a_certificate_of_the_authority_is_answered(mtls: str, authority: Authority) -> None:
    assert answer(mtls, authority.own.certificate, authority.sign("gateway")) == "A"


def test_with_mtls_a_client_without_a_certificate_or_with_anothers_is_refused(
    mtls: str, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(ServerUnavailable):
        answer(mtls, authority.own.certificate)
    with pytest.raises(ServerUnavailable):
        answer(mtls, authority.own.certificate, Authority(tmp_path, "stranger").sign("gateway"))


def test_the_command_line_speaks_tls(mtls: str, authority: Authority, tmp_path: Path) -> None:
    pair = authority.sign("operator")
    files = ["--tls-ca", str(authority.own.certificate), "--tls-certificate", str(pair.certificate)]
    files += ["--tls-key", str(pair.key)]
    assert run("health", "--target", mtls, *files, "--timeout-s", "30").stdout == "SERVING\n"
    predict = ["predict", "--target", mtls, "--symbol", "A", "--price", "1", "--size", "1", "--deadline-ms", "30000"]
    predicted = run(*predict, *files)
    assert (predicted.returncode, predicted.stderr) == (0, "")
    ticks = tmp_path / "ticks.csv"
    write_csv(ticks, [request.tick for request in zigzag("B", 2)])
    replayed = run("replay-ticks", str(ticks), "--target", mtls, "--deadline-ms", "30000", *files)
    assert (replayed.returncode, replayed.stderr) == (0, "")


@pytest.mark.parametrize("verb", [["health"], ["predict", "--symbol", "A"]])
def test_a_certificate_without_its_key_is_an_error_in_one_line(verb: list[str], authority: Authority) -> None:
    ended = run(*verb, "--target", "127.0.0.1:1", "--tls-certificate", str(authority.own.certificate))
    assert ended.returncode == 1
    assert ended.stderr == "Error: a certificate and its key go together\n"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    ended = run("health", "--target", "127.0.0.1:1", "--tls-ca", str(tmp_path / "none.pem"))
    assert ended.returncode == 1
    assert str(tmp_path / "none.pem") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_service_listener_speaks_tls_as_the_data_listener_does(
    models: Path, authority: Authority, transport: str
) -> None:
    environment = arguments_of(authority.sign(f"service-{transport}"))
    with served(models, "--transport", transport, environment=environment) as running:
        assert portfolio_revision(running.service, read_credentials(authority.own.certificate)) == 0
        with pytest.raises(grpc.RpcError) as caught:
            portfolio_revision(running.service, None)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert portfolio_revision(running.admin, None) == 0  # a Unix socket for its owner alone


def test_the_admin_listener_is_reached_over_tcp_with_mtls(models: Path, authority: Authority, transport: str) -> None:
    environment = arguments_of(authority.sign(f"admin-{transport}"))
    environment["TICKGATE_SERVER__TLS_CLIENT_CA"] = str(authority.own.certificate)
    pair = authority.sign("ann")
    own = ("--transport", transport, "--admin-listen", "127.0.0.1:0")
    with served(models, *own, environment=environment) as running:
        files = ["--tls-ca", str(authority.own.certificate), "--tls-certificate", str(pair.certificate)]
        files += ["--tls-key", str(pair.key)]
        halted = run("halt", "--reason", "drill", "--admin", running.admin, *files, "--timeout-s", "30")
        assert (halted.returncode, halted.stderr) == (0, "")
        assert halted.stdout.startswith("HALTED since ")
        refused = run("halt", "--reason", "drill", "--admin", running.admin, *files[:2])
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"Error: {running.admin}: UNAVAILABLE: ")
