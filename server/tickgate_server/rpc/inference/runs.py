"""ModelInfer: from a request's bytes to the answer's, on the threads of inference, within its time."""

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from threading import Lock
from time import perf_counter_ns

from tickgate.inference import grpc_service_pb2 as pb
from tickgate_server.models.offload import Outcome
from tickgate_server.models.plain import PlainModel, RunStatistics
from tickgate_server.models.plain_repository import PlainRepository
from tickgate_server.models.plain_threads import InferenceThreads, Job
from tickgate_server.rpc.inference.faults import (
    InferenceFault,
    RequestInvalid,
    RunFailed,
    TimeoutExpired,
    inference_status,
)
from tickgate_server.rpc.inference.tensors import read_inputs, wanted_outputs, write_answer
from tickgate_server.rpc.methods import Answer, parse
from tickgate_server.rpc.status import Status

_TIMEOUT = "timeout"
_RESERVED = "triton_"
# 1,000 years: what a caller may write, and an int64 of nanoseconds cannot hold.
_LONGEST_US = 31_557_600_000_000_000


class Runs:
    """Requests under way.

    Args:
        repository: Whose models run.
        threads: That run them.
        longest_ns: What a request may take at most, whatever it says.
        answer_bytes: Most bytes of an answer's tensors.
    """

    def __init__(
        self, repository: PlainRepository, threads: InferenceThreads, longest_ns: int, answer_bytes: int
    ) -> None:
        self._repository = repository
        self._threads = threads
        self._longest_ns = longest_ns
        self._answer_bytes = answer_bytes
        self._lock = Lock()  # over the statistics of all models

    def begin(self, data: bytes, remaining_ns: int, done: Callable[[Answer], None]) -> Answer | Callable[[], None]:
        """See `LaterMethod`."""
        arrival_ns = perf_counter_ns()
        request = parse(pb.ModelInferRequest, data)
        if isinstance(request, Status):
            return request
        try:
            model = self._repository.acquire(request.model_name, version_of(request.model_version))
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            return inference_status(error)
        try:
            limits_ns = (self._longest_ns, remaining_ns, _timeout_ns(request))
            allowed_ns = min(limit for limit in limits_ns if limit)
            job = Job(arrival_ns + allowed_ns, partial(self._work, model, request))
            callers = allowed_ns == remaining_ns
            job.on_ended = lambda: done(self._concluded(model, job, arrival_ns, callers=callers))
            self._threads.submit(job)
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(model, error, arrival_ns)
        return lambda: self._give_up(model, job, arrival_ns)

    def statistics(self, model: PlainModel) -> RunStatistics:
        """What a version has done, all of it from one moment."""
        with self._lock:
            return deepcopy(model.statistics)

    # -- on a thread of inference --------------------------------------------------------------------------------------

    def _work(self, model: PlainModel, request: pb.ModelInferRequest, job: Job) -> None:
        specs = wanted_outputs(model, request)
        feeds, job.rows = read_inputs(model, request)
        job.read_ns = perf_counter_ns()
        try:
            arrays = model.run([spec.name for spec in specs], feeds, job.options)
        # What ONNX Runtime raises shares no base.
        except Exception as error:
            raise RunFailed(model.name, model.version, str(error)) from error
        job.ran_ns = perf_counter_ns()
        job.answer = write_answer(model, request.id, specs, arrays, self._answer_bytes)

    # -- on whichever thread ends it -----------------------------------------------------------------------------------

    def _concluded(self, model: PlainModel, job: Job, arrival_ns: int, *, callers: bool) -> Answer:
        """The answer to a job that has an outcome; counted, and the model let go of."""
        job.work = None
        now_ns = perf_counter_ns()
        if job.outcome is not Outcome.SCORED:
            late = TimeoutExpired(job.due_ns - arrival_ns, ran=job.started_ns != 0, callers=callers)
            # A run that was stopped raises as well.
            fault = job.error if job.outcome is Outcome.FAILED and job.error is not None else late
            return self._refused(model, fault, arrival_ns)
        with self._lock:
            found = model.statistics
            found.last_ms = time.time_ns() // 1_000_000
            found.rows += job.rows
            found.queue.add(job.started_ns - arrival_ns)
            found.compute_input.add(job.read_ns - job.started_ns)
            found.compute_infer.add(job.ran_ns - job.read_ns)
            found.compute_output.add(job.ended_ns - job.ran_ns)
            found.success.add(now_ns - arrival_ns)
        self._repository.release(model)
        return job.answer

    def _refused(self, model: PlainModel, error: Exception, arrival_ns: int) -> Answer:
        with self._lock:
            model.statistics.last_ms = time.time_ns() // 1_000_000
            model.statistics.fail.add(perf_counter_ns() - arrival_ns)
        self._repository.release(model)
        return inference_status(error)

    def _give_up(self, model: PlainModel, job: Job, arrival_ns: int) -> None:
        """The caller has gone, or was answered; then nothing is left to do."""
        if self._threads.give_up(job):
            job.work = None
            self._refused(model, InferenceFault("the caller went away"), arrival_ns)


def version_of(text: str) -> int | None:
    """A version as requests name it; None: the highest.

    Raises:
        RequestInvalid: It is no positive integer.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text)):
        raise RequestInvalid(
            f"failed to get model version from specified version string '{text[:64]}', version should be an integral"
            " value > 0"
        )
    return int(text)


def _timeout_ns(request: pb.ModelInferRequest) -> int:
    """What the request allows itself; 0: it does not say."""
    for name in request.parameters:
        if name.startswith(_RESERVED):
            raise RequestInvalid(f"parameter '{name}': keys that start with '{_RESERVED}' are reserved")
    if _TIMEOUT not in request.parameters:
        return 0
    value = request.parameters[_TIMEOUT]
    kind = value.WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise RequestInvalid(f"invalid value type for '{_TIMEOUT}' parameter, expected int64_param, got {kind}")
    timeout_us: int = getattr(value, kind)
    if timeout_us < 0:
        raise RequestInvalid(f"invalid value for '{_TIMEOUT}' parameter, expected microseconds >= 0, got {timeout_us}")
    return min(timeout_us, _LONGEST_US) * 1000
