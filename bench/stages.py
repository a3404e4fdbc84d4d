"""In process: from a request's bytes to its answer's, stage by stage, hot and after other memory was written."""

import gc
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from bench.requests import tick_requests
from rich.table import Table

from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.models.registry import load_repository
from tickgate_server.rpc.answers import Answers

REQUESTS = 50_000
WARM_UP = 1_000
COLD_BYTES = 4 << 20
STAGES = ("waiting", "features", "inference", "risk", "total")


def stages(models: Path) -> Table:
    """Percentiles in microseconds; `features` begins with parsing, `bytes to bytes` adds the call and the encoding."""
    table = Table(title=f"in process, us, {REQUESTS:,} requests")
    for heading in ("stage", "p50", "p99", "p99.9", "cold p50", "cold p99"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    hot, cold = _run(models, cold=False), _run(models, cold=True)
    for index, stage in enumerate((*STAGES, "bytes to bytes")):
        cells = [*np.percentile(hot[:, index], [50, 99, 99.9]), *np.percentile(cold[:, index], [50, 99])]
        table.add_row(stage, *(f"{cell / 1e3:.1f}" for cell in cells))
    return table


def _run(models: Path, *, cold: bool) -> np.ndarray:
    engine = Engine(EngineSettings(replay=True), load_repository(models))
    answers = Answers(engine)
    requests = [request.SerializeToString() for request in tick_requests("SYM", REQUESTS, seed=1)]
    if cold:
        requests = requests[: REQUESTS // 5]
    other = np.zeros(COLD_BYTES // 8)
    took_ns = np.empty((len(requests), len(STAGES) + 1))
    lane = answers._lane  # noqa: SLF001 - its own times
    gc.collect()
    gc.freeze()
    for index, request in enumerate(requests):
        if cold:
            other += 1.0
        start_ns = perf_counter_ns()
        answers.predict(request, start_ns, 0)
        took_ns[index, -1] = perf_counter_ns() - start_ns
        took_ns[index, :-1] = lane._facts[: len(STAGES)]  # noqa: SLF001 - as above
    return took_ns[WARM_UP:]
