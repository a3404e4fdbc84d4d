"""The queue transport with a handler that does nothing: what the transport itself costs.

python -m bench.empty_handler ADDRESS ANSWER_HEX
"""

import sys

from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.rpc.completion_queue import QueueListener
from tickgate_server.rpc.listener import ListenerSettings
from tickgate_server.rpc.services import Services
from tickgate_server.rpc.topology import Topology


class Nothing:
    """Answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def predict(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes:
        """The bytes."""
        del data, arrival_ns, deadline_ns
        return self._answer

    predict_stream = predict

    waiting = False

    def abandon(self) -> None:
        """Nothing waits."""

    close = abandon


def main() -> None:
    """Serve until SIGTERM."""
    address, answer = sys.argv[1:]
    engine = Engine(EngineSettings(), ModelRegistry([]))
    listener = QueueListener(engine, ListenerSettings(address), Services(engine, lambda: engine.desk.whole))
    listener._answers = Nothing(bytes.fromhex(answer))  # type: ignore[assignment]  # noqa: SLF001
    listener.run(lambda bound: Topology("", (bound.data,), 0), lambda _: None, lambda: None)


if __name__ == "__main__":
    main()
