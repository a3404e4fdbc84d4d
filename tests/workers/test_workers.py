"""`tickgate serve --workers 2`, real processes: shares of the symbols, routing, crashes, and the end."""

import asyncio
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.messages import SECOND_NS, START_NS, features, tick, untimed, zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, ServerProcess, run, served, server

from tickgate.symbol_hash import worker_of
from tickgate.v1 import portfolio_pb2, portfolio_pb2_grpc, signal_pb2_grpc, topology_pb2, topology_pb2_grpc
from tickgate.v1 import signal_pb2 as pb
from tickgate_client import AsyncRoutedSignalClient, RoutedSignalClient, ServerUnavailable, SignalClient, WrongWorker
from tickgate_server.config import SettingsInvalid, load

WORKERS = 2
TWO = ("--clock", "replay", "--workers", str(WORKERS))
READY = "workers serving"
OK = ("tickgate_requests_total", frozenset({("code", "OK")}))
SYMBOLS = [f"S{number}" for number in range(12)]
TRADES = 30
OF_THE_PORTFOLIO = {
    pb.REASON_VAR_PORTFOLIO,
    pb.REASON_CORRELATION_PORTFOLIO,
    pb.REASON_EXPOSURE_GROSS,
    pb.REASON_EXPOSURE_NET,
    pb.REASON_LOSS_DAILY,
    pb.REASON_LOSS_DRAWDOWN,
    pb.REASON_RATE_TOTAL,
}
# So little that no limit of the whole portfolio binds: one worker's share of it is another portfolio.
LITTLE = {"TICKGATE_RISK__RISK_BUDGET": "0.1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def two(models: Path) -> Iterator[Served]:
    """For tests that bring symbols of their own and leave the workers as they are."""
    with served(models, *TWO, ready=READY, environment=LITTLE, observed=True) as running:
        yield running


def addresses(process: ServerProcess) -> list[str]:
    found: list[str] = process.logged(READY)[-1]["addresses"]
    return found


def symbol_of_worker(index: int, prefix: str) -> str:
    return next(name for name in (f"{prefix}{n}" for n in range(100)) if worker_of(name, WORKERS) == index)


def interleaved(prefix: str) -> list[pb.PredictRequest]:
    """Trades of many symbols, one of each in turn."""
    # Each prefix has an hour of its own, the next one's later: in replay, time is the ticks' and runs one way.
    start_ns = START_NS + (ord(prefix[0]) - ord("A")) * 3600 * SECOND_NS
    series = [zigzag(f"{prefix}{symbol}", TRADES, start_ns=start_ns) for symbol in SYMBOLS]
    requests = [request for at_once in zip(*series, strict=True) for request in at_once]
    for number, request in enumerate(requests):
        request.request_id = f"{prefix}{number}"
    return requests


def plain(response: pb.PredictResponse, prefix: str) -> pb.PredictResponse:
    """An answer without what differs between two runs under two prefixes, and between one server and its share."""
    answer = untimed(response)
    answer.symbol = answer.symbol.removeprefix(prefix)
    answer.request_id = answer.request_id.removeprefix(prefix)
    answer.signal.order_id = 0
    answer.features.exchange_ts_ns = 0
    own = [check for check in answer.signal.checks if check.reason not in OF_THE_PORTFOLIO]
    del answer.signal.checks[:]
    answer.signal.checks.extend(own)
    return answer


def refusal(address: str, request: pb.PredictRequest) -> tuple[grpc.StatusCode, str]:
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            signal_pb2_grpc.SignalServiceStub(channel).Predict(request, timeout=CALL_S)
        return caught.value.code(), caught.value.details()


def wait_for_end(pid: int) -> None:
    """Until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30.0)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)


def test_every_worker_answers_with_the_whole_topology(two: Served) -> None:
    answers = []
    for address in addresses(two.process):
        with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            stub = topology_pb2_grpc.TopologyServiceStub(channel)
            answers.append(stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S))
    assert [answer.answering_index for answer in answers] == [0, 1]
    for answer in answers:
        assert [(worker.index, worker.address) for worker in answer.workers] == list(enumerate(addresses(two.process)))
        assert answer.symbol_hash == topology_pb2.SYMBOL_HASH_FNV1A64_JUMP
        assert answer.epoch == two.process.logged(READY)[-1]["epoch"]


@pytest.mark.parametrize("kind", ["tick", "features", "symbol"])
def test_a_symbol_is_served_by_its_worker_and_refused_by_the_other(two: Served, kind: str) -> None:
    for owner, address in enumerate(addresses(two.process)):
        symbol = symbol_of_worker(owner, f"OWN-{kind}-")
        first = zigzag(symbol, 1)[0]
        asked = {
            "tick": first,
            "features": features(symbol, [0.0] * 10),
            "symbol": pb.PredictRequest(symbol=symbol),
        }[kind]
        other = addresses(two.process)[1 - owner]
        code, message = refusal(other, asked)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert message == f"symbol: expected worker {owner} of 2, reached worker {1 - owner}"
        with SignalClient(address, deadline_s=CALL_S) as client:
            assert client.ask(first, CALL_S).symbol == symbol
            assert client.ask(asked, CALL_S).symbol == symbol
        with SignalClient(other, deadline_s=CALL_S) as client, pytest.raises(WrongWorker) as caught:
            client.ask(asked, CALL_S)
        assert (caught.value.worker, caught.value.workers) == (owner, WORKERS)


def test_routed_answers_are_those_of_one_worker_in_the_same_order(models: Path, two: Served) -> None:
    with (
        served(models, "--clock", "replay", environment=LITTLE, observed=True) as one,
        SignalClient(one.address, deadline_s=CALL_S) as client,
    ):
        expected = [plain(client.ask(request, CALL_S), "X-") for request in interleaved("X-")]
    assert {answer.signal.action for answer in expected} == {pb.ACTION_BUY, pb.ACTION_HOLD, pb.ACTION_SELL}

    def results_of(results: list[pb.PredictStreamResult], prefix: str) -> list[pb.PredictResponse]:
        assert {result.code for result in results} == {0}
        return [plain(result.response, prefix) for result in results]

    async def routed_aio() -> tuple[list[pb.PredictResponse], list[pb.PredictStreamResult]]:
        async with AsyncRoutedSignalClient(two.address, deadline_s=CALL_S) as client:
            await client.connect(timeout_s=CALL_S)
            assert list((await client.routes()).targets) == addresses(two.process)
            unary = [plain(await client.ask(request, CALL_S), "C-") for request in interleaved("C-")]
            stream = client.predict_stream(interleaved("D-"), batch=7, in_flight=3)
            return unary, [result async for result in stream]

    with RoutedSignalClient(two.address, deadline_s=CALL_S) as client:
        client.connect(timeout_s=CALL_S)
        assert list(client.routes.targets) == addresses(two.process)
        assert [plain(client.ask(request, CALL_S), "A-") for request in interleaved("A-")] == expected
        assert results_of(list(client.predict_stream(interleaved("B-"), batch=7, in_flight=3)), "B-") == expected
    unary, stream = asyncio.run(routed_aio())
    assert unary == expected
    assert results_of(stream, "D-") == expected


def test_one_endpoint_has_the_metrics_of_all_workers(two: Served) -> None:
    before = two.scrape()[OK]
    with RoutedSignalClient(two.address, deadline_s=CALL_S) as client:
        for index in range(WORKERS):
            client.ask(zigzag(symbol_of_worker(index, "METRICS-"), 1)[0], CALL_S)
    while (found := two.scrape()[OK]) < before + WORKERS:  # the observer reads what was journaled a moment ago
        pass
    assert found == before + WORKERS


def test_the_command_line_reaches_every_symbol_routed(two: Served) -> None:
    ticks = ("--price", "100", "--size", "1", "--deadline-ms", "30000")
    for index in range(WORKERS):
        symbol = symbol_of_worker(index, "CLI-")
        ended = run("predict", "--target", two.address, "--routed", "--symbol", symbol, *ticks)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_killed_worker_is_started_again_where_it_was_and_all_journals_replay(models: Path) -> None:
    with (
        served(models, *TWO, ready=READY, observed=True) as two,
        RoutedSignalClient(two.address, deadline_s=CALL_S) as client,
    ):
        process = two.process
        client.connect(timeout_s=CALL_S)
        lost, kept = symbol_of_worker(1, "K-"), symbol_of_worker(0, "K-")
        for symbol in (lost, kept):
            for request in zigzag(symbol, 12):
                client.ask(request, CALL_S)
        victim = next(line["pid"] for line in process.logged("worker started") if line["worker"] == 1)
        os.kill(victim, signal.SIGKILL)
        wait_for_end(victim)
        with pytest.raises(ServerUnavailable):
            client.ask(pb.PredictRequest(symbol=lost), CALL_S)
        assert client.ask(pb.PredictRequest(symbol=kept), CALL_S).features.ready
        ended = process.wait_for("worker ended unasked")
        assert (ended["worker"], ended["status"]) == (1, -signal.SIGKILL)
        again = process.wait_for("serving")
        assert (again["worker"], again["address"]) == (1, addresses(process)[1])
        answers = []
        while not answers:  # the channel comes back by itself
            try:
                answers = [client.ask(request, CALL_S) for request in zigzag(lost, 12)]
            except ServerUnavailable:
                continue
        assert answers[-1].features.ready
        counted = two.scrape()[OK]
        client.ask(pb.PredictRequest(symbol=lost), CALL_S)
        while two.scrape()[OK] <= counted:  # the observer follows the worker's journal as before
            pass
        assert process.stop() == 0
        assert process.logged("workers stopped")[-1]["statuses"] == [0, 0]
        assert sorted(line["worker"] for line in process.logged("stopped")) == [0, 1]
        for index, starts in enumerate((1, 2)):
            folder = Path(process._journal.name) / f"worker-{index}"
            replayed = run("replay", str(folder), "--models", str(models))
            assert replayed.returncode == 0, replayed.stdout + replayed.stderr
            assert " 0 differ" in replayed.stdout
            assert f"{starts} starts" in replayed.stdout


def test_workers_end_with_a_supervisor_that_is_killed(models: Path, tmp_path: Path) -> None:
    sockets = tmp_path / "s"
    with server(models, *TWO, "--listen", f"unix:{sockets}", ready=READY, observed=True) as (process, _):
        assert addresses(process) == [f"unix:{sockets}.0", f"unix:{sockets}.1"]
        workers = [line["pid"] for line in process.logged("worker started")]
        settings = {"TICKGATE_SERVER__LISTEN": f"unix:{sockets}", "TICKGATE_SERVER__WORKERS": "2"}
        assert run("health", environment=settings).stdout == "SERVING\n"
        process.stop(signal.SIGKILL)
        for pid in workers:
            wait_for_end(pid)
        assert sorted(line["worker"] for line in process.logged("stopped")) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--models", "none"), "Error: models.repository: expected a folder of model packages, got 'none'"),
        (("--listen", "127.0.0.1:65535"), "worker 1 of listen '127.0.0.1:65535' would have port 65536"),
        (("--listen", "nowhere"), "several workers need listen to be host:port or unix:/path, got 'nowhere'"),
    ],
)
def test_what_keeps_the_workers_from_starting_is_said_once(models: Path, arguments: tuple[str, ...], why: str) -> None:
    common = (
        "--listen",
        "127.0.0.1:0",
        "--service-listen",
        "",
        "--journal",
        "none",
        "--workers",
        "2",
        "--models",
        str(models),
    )
    ended = run("serve", *common, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.count(why) == 1
    assert "Traceback" not in ended.stderr


def test_several_workers_have_no_process_for_an_observer_thread(models: Path) -> None:
    common = ("--listen", "127.0.0.1:0", "--workers", "2", "--models", str(models))
    ended = run("serve", *common, environment={"TICKGATE_OBSERVER__MODE": "thread"})
    assert (ended.returncode, ended.stderr.count("observer.mode: expected process or none")) == (1, 1)


def test_a_metrics_port_that_is_taken_ends_all_of_them(models: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        common = ("--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0", "--journal", str(tmp_path))
        common += ("--workers", "2", "--models", str(models))
        ended = run("serve", *common, "--metrics-listen", address)
    assert ended.returncode == 1
    assert ended.stderr.count(f"Error: server.metrics_listen: cannot listen on {address}") == 1
    assert "Traceback" not in ended.stderr


def test_a_tick_that_a_worker_refuses_leaves_no_trace(two: Served) -> None:
    symbol = symbol_of_worker(1, "TRACE-")
    code, _ = refusal(two.address, tick(symbol, 1, sequence=1, trade=(1.0, 1.0)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    with SignalClient(addresses(two.process)[1], deadline_s=CALL_S) as client:
        assert client.ask(zigzag(symbol, 1)[0], CALL_S).features.trades_in_window == 1


def listeners(process: ServerProcess, name: str) -> list[str]:
    found: list[str] = process.logged(READY)[-1][name]
    return found


def test_each_worker_has_a_service_listener_that_the_topology_names_and_an_admin_socket(two: Served) -> None:
    stub = topology_pb2_grpc.TopologyServiceStub(two.channel)
    found = stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S).workers
    assert [worker.service_address for worker in found] == listeners(two.process, "service")
    assert len(set(listeners(two.process, "service"))) == WORKERS
    folder = two.process.journal
    assert listeners(two.process, "admin") == [f"unix:{folder}/worker-{index}/admin.sock" for index in range(WORKERS)]


def report(address: str, symbol: str, fill_id: str) -> portfolio_pb2.ReportFillResponse:
    request = portfolio_pb2.ReportFillRequest(
        fill_id=fill_id, symbol=symbol, side=portfolio_pb2.SIDE_BUY, size=1.0, price=1.0
    )
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        return portfolio_pb2_grpc.PortfolioServiceStub(channel).ReportFill(request, timeout=CALL_S)


def test_a_fill_is_booked_by_the_symbols_worker_and_refused_by_the_other(two: Served) -> None:
    for owner, address in enumerate(listeners(two.process, "service")):
        symbol = symbol_of_worker(owner, "FILL-")
        with pytest.raises(grpc.RpcError) as caught:
            report(listeners(two.process, "service")[1 - owner], symbol, f"fill-{owner}")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == f"symbol: expected worker {owner} of 2, reached worker {1 - owner}"
        assert report(address, symbol, f"fill-{owner}").booked


def test_a_worker_that_is_started_again_has_its_listeners_where_they_were(models: Path) -> None:
    with served(models, *TWO, ready=READY, observed=True) as server:
        before = {name: listeners(server.process, name) for name in ("service", "admin")}
        pid = server.process.logged("worker started")[1]["pid"]
        os.kill(pid, signal.SIGKILL)
        again = server.process.wait_for("serving")
        while again["address"] != addresses(server.process)[1]:
            again = server.process.wait_for("serving")
        assert (again["service"], again["admin"]) == (before["service"][1], before["admin"][1])
        assert report(again["service"], symbol_of_worker(1, "AGAIN-"), "again").booked
        assert server.process.stop() == 0


@pytest.mark.parametrize(
    ("listening", "why"),
    [
        ({"listen": "127.0.0.1:7000", "service_listen": "127.0.0.1:7001"}, "both have 127.0.0.1:7001"),
        ({"service_listen": "nowhere"}, "several workers need service_listen to be host:port or unix:/path"),
        ({"service_listen": "127.0.0.1:65535"}, "worker 1 of service_listen '127.0.0.1:65535' would have port 65536"),
    ],
)
def test_listeners_that_no_two_workers_can_have_are_refused(listening: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsInvalid, match=why):
        load(None, {f"server.{key}": value for key, value in listening.items()} | {"server.workers": 2})
