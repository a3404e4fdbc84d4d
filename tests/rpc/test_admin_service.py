"""AdminService on the admin listener, on both transports, and who gets to its socket."""

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.support.desk import ACTIVE, HALTED, REDUCING, DeskOf, desk_of, refused
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, run, served

from tickgate.v1 import admin_pb2 as pb
from tickgate_server.risk.limits import SLICED, Limits
from tickgate_server.rpc.sockets import SocketRefused, claimed

SERVICE = "tickgate.v1.AdminService"
OWNER_ONLY = 0o600


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def desk(models: Path, transport: str) -> Iterator[DeskOf]:
    """For tests that bring symbols of their own and set the trading state that they need."""
    with served(models, "--transport", transport) as server, desk_of(server) as found:
        yield found


# -- trading state, positions, limits, models --------------------------------------------------------------------------


@pytest.mark.parametrize("state", [REDUCING, HALTED, ACTIVE])
def test_a_person_sets_the_trading_state_with_name_and_reason(desk: DeskOf, state: int) -> None:
    request = pb.SetTradingStateRequest(state=state, reason="drill", who="ann@desk")
    found = desk.admin.SetTradingState(request, timeout=CALL_S).desk
    assert (found.state, found.reason, found.who) == (state, "drill", "ann@desk")
    assert found.since_ns > 0
    assert desk.portfolio().desk == found


def test_who_does_not_say_who_they_are_is_recorded_as_unknown(desk: DeskOf) -> None:
    request = pb.SetTradingStateRequest(state=ACTIVE, reason="drill")
    assert desk.admin.SetTradingState(request, timeout=CALL_S).desk.who == "unknown"


POSITION = pb.PositionSet(symbol="SET", size=1.0, average_cost=1.0)


@pytest.mark.parametrize("reason", ["", " "])
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("SetTradingState", pb.SetTradingStateRequest(state=HALTED)),
        ("SetPositions", pb.SetPositionsRequest(positions=[POSITION])),
        ("ReloadLimits", pb.ReloadLimitsRequest()),
        ("ReopenModel", pb.ReopenModelRequest(name="tiny", version=1)),
    ],
)
def test_every_change_wants_a_reason(desk: DeskOf, method: str, request_: Message, reason: str) -> None:
    wanted = type(request_)()
    wanted.CopyFrom(request_)
    wanted.reason = reason
    before = desk.portfolio()
    code, message = refused(getattr(desk.admin, method), wanted)
    assert (code, message.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "reason")
    assert desk.portfolio() == before


@pytest.mark.parametrize("state", [0, 99])
def test_a_trading_state_that_is_none_is_refused(desk: DeskOf, state: int) -> None:
    code, message = refused(desk.admin.SetTradingState, pb.SetTradingStateRequest(state=state, reason="drill"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("state: expected one of TRADING_STATE_ACTIVE, TRADING_STATE_REDUCING")


def test_a_person_states_positions(desk: DeskOf) -> None:
    desk.fill("before", "STATED", 9.0)
    positions = [pb.PositionSet(symbol="STATED", size=-4.0, average_cost=50.0), POSITION]
    desk.admin.SetPositions(pb.SetPositionsRequest(positions=positions, reason="drill", who="ann"), timeout=CALL_S)
    found = {position.symbol: position for position in desk.portfolio("STATED", "SET").positions}
    assert (found["STATED"].filled, found["STATED"].average_cost) == (-4.0, 50.0)
    assert found["SET"].filled == 1.0


@pytest.mark.parametrize(
    ("positions", "field"),
    [
        ([], "positions"),
        ([POSITION] * 4097, "positions"),
        ([POSITION, pb.PositionSet(symbol="", size=1.0, average_cost=1.0)], "symbol"),
        ([POSITION, pb.PositionSet(symbol="X", size=float("nan"), average_cost=1.0)], "positions.size"),
    ],
)
def test_positions_that_are_none_are_refused_all_of_them(
    desk: DeskOf, positions: list[pb.PositionSet], field: str
) -> None:
    before = desk.portfolio().revision
    code, message = refused(desk.admin.SetPositions, pb.SetPositionsRequest(positions=positions, reason="drill"))
    assert (code, message.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert desk.portfolio().revision == before


def test_the_limits_in_force_are_told_as_json(desk: DeskOf) -> None:
    found = desk.admin.GetLimits(pb.GetLimitsRequest(), timeout=CALL_S)
    whole = json.loads(found.whole_json)
    in_force = Limits(max_var="off", max_correlation="off")  # as the tests' servers are started
    assert whole == json.loads(found.limits_json) == json.loads(in_force.model_dump_json())
    assert whole["max_order_size"] is None  # infinite
    assert (found.version, found.worker_index, found.workers) == (0, 0, 1)
    assert tuple(found.sliced) == SLICED


def test_a_model_that_is_not_loaded_cannot_be_reopened(desk: DeskOf) -> None:
    code, message = refused(desk.admin.ReopenModel, pb.ReopenModelRequest(name="other", version=1, reason="drill"))
    assert (code, message.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "name")
    desk.admin.ReopenModel(pb.ReopenModelRequest(name="tiny", version=1, reason="drill"), timeout=CALL_S)


@pytest.mark.parametrize("method", ["SetTradingState", "SetPositions", "GetLimits", "ReloadLimits", "ReopenModel"])
def test_bytes_that_are_no_request_are_invalid(desk: DeskOf, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        desk.admin_channel.unary_unary(f"/{SERVICE}/{method}")(b"\xff", timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reflection_of_the_admin_listener_lists_what_it_serves(desk: DeskOf) -> None:
    assert set(ProtoReflectionDescriptorDatabase(desk.admin_channel).get_services()) == {
        SERVICE,
        "tickgate.v1.ModelService",
        "tickgate.v1.PortfolioService",
        "grpc.reflection.v1alpha.ServerReflection",
    }


# -- the socket --------------------------------------------------------------------------------------------------------


def path_of(address: str) -> Path:
    return Path(address.removeprefix("unix:"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_socket_is_in_the_journals_folder_for_its_owner_alone_and_goes_with_the_server(
    models: Path,
) -> None:
    with served(models) as server:
        path = path_of(server.admin)
        assert path == server.process.journal / "admin.sock"
        assert mode_of(path) == OWNER_ONLY
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert server.process.stop() == 0
        assert not path.exists()


def test_a_socket_has_its_mode_from_the_first_moment_and_files_after_it_have_theirs(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listening:
            with claimed(f"unix:{path}", private=True):
                listening.bind(str(path))
                assert mode_of(path) == OWNER_ONLY
            (tmp_path / "after").touch()
            assert mode_of(tmp_path / "after") == 0o666
    finally:
        os.umask(before)


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_a_socket_that_is_listened_on_is_not_taken_away(tmp_path: Path, form: str) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with (
            pytest.raises(SocketRefused, match="another server listens there"),
            claimed(form.format(path), private=True),
        ):
            pass
        assert path.exists()
    with claimed(form.format(path), private=True):
        assert not path.exists()


def test_the_socket_of_a_server_that_was_killed_is_replaced(models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'admin'}"
    arguments = ("--admin-listen", address)
    with served(models, *arguments) as server:
        server.process.stop(signal.SIGKILL)
        assert path_of(address).exists()
    with served(models, *arguments) as server, desk_of(server) as desk:
        assert server.admin == address
        assert desk.set_state(HALTED).state == HALTED


@pytest.mark.parametrize("option", ["--admin-listen", "--listen"])
def test_the_socket_of_a_server_that_lives_is_left_to_it(models: Path, tmp_path: Path, option: str) -> None:
    address = f"unix:{tmp_path / 's'}"
    own = ("--listen", "127.0.0.1:0", "--service-listen", "", "--metrics-listen", "", "--journal", "none")
    with served(models, option, address) as server, desk_of(server) as desk:
        ended = run("serve", "--models", str(models), *own, option, address)
        assert ended.returncode == 1
        assert f"Error: cannot listen on {address}: another server listens there" in ended.stderr
        assert desk.set_state(ACTIVE).state == ACTIVE
        assert server.predict(zigzag("LEFT", 1)[0]).symbol == "LEFT"


def refused_start(models: Path, *arguments: str, **environment: str) -> str:
    own = ("--listen", "127.0.0.1:0", "--service-listen", "", "--metrics-listen", "")
    ended = run("serve", "--models", str(models), *own, *arguments, environment=environment)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_path_that_no_socket_can_have_is_refused(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("j" * 100)
    why = refused_start(models, "--journal", str(folder))
    length = len(str(folder / "admin.sock"))
    assert f"cannot listen on unix:{folder / 'admin.sock'}" in why
    assert f"expected a path of at most 107 bytes, this one has {length}" in why


def test_a_file_that_is_no_socket_stays(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    why = refused_start(models, "--journal", "none", "--admin-listen", f"unix:{path}")
    assert f"cannot listen on unix:{path}: there is a file that is no socket" in why
    assert path.read_text() == "kept"


def test_a_folder_that_is_not_there_is_an_error(models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'none' / 's'}"
    why = refused_start(models, "--journal", "none", "--admin-listen", address)
    assert f"cannot listen on {address}" in why


def test_over_tcp_the_admin_listener_wants_mtls(models: Path) -> None:
    why = refused_start(models, "--journal", "none", "--admin-listen", "127.0.0.1:0")
    assert (
        "admin_listen is '127.0.0.1:0': over TCP it needs mTLS, tls_client_ca with tls_certificate and tls_key" in why
    )


@pytest.mark.parametrize("arguments", [("--admin-listen", "none"), ("--journal", "none", "--metrics-listen", "")])
def test_a_server_without_an_admin_listener_serves_on(models: Path, arguments: tuple[str, ...]) -> None:
    with served(models, *arguments) as server:
        assert server.admin == "None"
        assert server.predict(zigzag("A", 1)[0]).symbol == "A"
