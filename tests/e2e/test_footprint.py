"""What a server of the stated size takes."""

from pathlib import Path

from tests.support.messages import START_NS, tick
from tests.support.packages import publish_forest
from tests.support.processes import served

from tickgate.v1 import signal_pb2 as pb

SYMBOLS = 1_000
TRADES = 12


def test_a_thousand_symbols_and_three_models_of_200_trees_fit_in_500_mb(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        publish_forest(tmp_path, name=name, trees=200, latency_budget_ms=60_000.0)
    with served(tmp_path, "--clock", "replay", "--default-model", "one", observed=True) as server:
        for number in range(TRADES):
            messages = [
                [tick(f"SYM-{k}", START_NS + number, trade=(100.0 + number, 1.0)) for k in range(first, first + 500)]
                for first in range(0, SYMBOLS, 500)
            ]
            answers = [result for message in server.stream(messages) for result in message.results]
        assert len(answers) == SYMBOLS
        assert all(answer.response.features.ready for answer in answers)
        assert answers[0].response.timing.engine == pb.INFERENCE_ENGINE_COMPILED_FOREST
        status = Path(f"/proc/{server.process.process.pid}/status").read_text()
        resident_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert resident_kb < 500 * 1024
