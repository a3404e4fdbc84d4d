"""A process that records fills in an outbox and says so, until it is killed: `python -m ... OUTBOX FIRST [TARGET]`.

With a target it also has them sent to a server's service listener.
"""

import itertools
import sys

import grpc

from tickgate_client.execution import Fill, Outbox, Reporter, Side


def fill(number: int) -> Fill:
    side = Side.BUY if number % 3 else Side.SELL
    return Fill(f"f{number}", f"{number}-1", f"S{number % 5}", side, 1.0 + number % 7, 100.0 + number, 0.25, number)


def main() -> None:
    with Outbox(sys.argv[1], compact_bytes=20_000, capacity=1_000_000) as outbox:
        if len(sys.argv) > 3:
            Reporter(outbox, grpc.insecure_channel(sys.argv[3], options=[("grpc.enable_http_proxy", 0)])).start()
        for number in itertools.count(int(sys.argv[2])):
            outbox.fill(fill(number), number)
            print(number, flush=True)  # noqa: T201 - what the test reads: from here on it must not be lost
            if len(sys.argv) <= 3 and number % 3 == 0:  # else nobody would acknowledge, and nothing be rewritten
                outbox.acknowledge(outbox.to_send(1)[0][0])


if __name__ == "__main__":
    main()
