"""Make docs/page.png, the observer's page of a server under load: `python docs/picture.py [SECONDS]`.

Two models answer a load that rises and falls, some of it refused; positions are reported as they are approved.
"""

import math
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests.support: run from anywhere

import grpc
from tests.support.chromium import chromium
from tests.support.desk import desk_of
from tests.support.messages import tick
from tests.support.packages import publish_forest, publish_logistic
from tests.support.processes import Served, served

from tickgate.v1 import portfolio_pb2, signal_pb2

_TARGET = Path(__file__).with_name("page.png")
_SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN", "META", "GOOG")
_WAVE_S = 90.0
_PAUSE_S = 0.02
# Bars of a second, so that covariance and regimes are known within the minute.
_ENVIRONMENT = {
    "TICKGATE_CLOCK__STALE_LIMIT_S": "3600",
    "TICKGATE_RISK__MAX_VAR": "25000",
    "TICKGATE_RISK__RISK_BUDGET": "40",
    "TICKGATE_RISK__MAX_POSITION_NOTIONAL": "60000",
    "TICKGATE_RISK__MAX_ORDERS_PER_S": "60",
    "TICKGATE_RISK_VALUES__BAR_S": "1",
    "TICKGATE_RISK_VALUES__BARS_A_DAY": "86400",
}


def main(seconds: float) -> None:
    """Serve, load, and take the picture."""
    with tempfile.TemporaryDirectory(prefix="tickgate-picture-") as name:
        folder = Path(name)
        publish_logistic(folder / "models", name="momentum", weight=20_000.0, latency_budget_ms=20.0)
        publish_forest(folder / "models", name="trees", latency_budget_ms=20.0)
        with served(folder / "models", environment=_ENVIRONMENT, observed=True) as server:
            print(f"http://{server.metrics}/ for {seconds:.0f} s", flush=True)
            _load(server, seconds)
            flags = ("--window-size=1280,800", f"--screenshot={_TARGET}")
            chromium(f"http://{server.metrics}/", folder, *flags)
    print(_TARGET)


def _load(server: Served, seconds: float) -> None:
    draw = random.Random(8)
    began = time.monotonic()
    prices = dict.fromkeys(_SYMBOLS, 100.0)
    numbers = dict.fromkeys(_SYMBOLS, 0)
    with desk_of(server) as desk:
        while (past_s := time.monotonic() - began) < seconds:
            for _ in range(round(8 + 6 * math.sin(math.tau * past_s / _WAVE_S) + draw.uniform(0, 4))):
                symbol = draw.choice(_SYMBOLS)
                numbers[symbol] += 1
                prices[symbol] *= math.exp(draw.gauss(0.0, 2e-5))
                trade = (prices[symbol], draw.uniform(1.0, 3.0))
                request = tick(symbol, time.time_ns(), sequence=numbers[symbol], trade=trade)
                request.model = draw.choice(("momentum", "trees"))
                try:
                    signal = server.predict(request).signal
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
                    continue  # a busy machine: it is in the picture
                if signal.approved:
                    side = portfolio_pb2.SIDE_BUY if signal.action == signal_pb2.ACTION_BUY else portfolio_pb2.SIDE_SELL
                    of = {"side": side, "price": prices[symbol], "order_id": signal.order_id}
                    desk.fill(f"{symbol}-{numbers[symbol]}", symbol, signal.size, **of)
            time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 150.0)
