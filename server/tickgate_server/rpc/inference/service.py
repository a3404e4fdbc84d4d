"""`GRPCInferenceService`: which of its calls each listener has, and what they answer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from tickgate.inference import grpc_service_pb2 as pb
from tickgate_server.models.plain import PlainModel
from tickgate_server.models.plain_errors import PlainError
from tickgate_server.models.plain_repository import PlainRepository
from tickgate_server.models.plain_threads import InferenceThreads
from tickgate_server.rpc.inference import describe
from tickgate_server.rpc.inference.faults import NotServed, RequestInvalid, inference_status
from tickgate_server.rpc.inference.runs import Runs, version_of
from tickgate_server.rpc.methods import Answer, LaterMethod, Method, UnaryMethod, parse
from tickgate_server.rpc.status import Status

INFERENCE_NAME: str = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SERVER_NAME = "tickgate"
EXTENSIONS = ("model_configuration", "statistics", "parameters", "binary_tensor_data", "model_repository")

_Request = TypeVar("_Request", bound=Message)


@dataclass(frozen=True, slots=True)
class InferenceBounds:
    """How much inference there may be.

    Attributes:
        threads: That run models.
        queue_limit: Requests that wait for one.
        longest_ns: What a request may take.
        answer_bytes: Of an answer's tensors.
    """

    threads: int
    queue_limit: int
    longest_ns: int
    answer_bytes: int


class Inference:
    """The service, over one repository.

    Attributes:
        name: Full, for reflection.

    Args:
        repository: It is closed with this.
        bounds: See `InferenceBounds`.
        version: Of the server.
    """

    def __init__(self, repository: PlainRepository, bounds: InferenceBounds, version: str) -> None:
        self.name = INFERENCE_NAME
        self._repository = repository
        self._bounds = bounds
        self._version = version
        self._threads = InferenceThreads(bounds.threads, bounds.queue_limit)
        self._runs = Runs(repository, self._threads, bounds.longest_ns, bounds.answer_bytes)

    def serving(self) -> tuple[Method, ...]:
        """What the service listener has."""
        return (
            _at_once("ServerLive", pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True)),
            _at_once("ServerReady", pb.ServerReadyRequest, self._server_ready),
            _at_once("ModelReady", pb.ModelReadyRequest, self._model_ready),
            _at_once("ServerMetadata", pb.ServerMetadataRequest, self._server_metadata),
            _at_once("ModelMetadata", pb.ModelMetadataRequest, self._model_metadata),
            LaterMethod(_path("ModelInfer"), self._runs.begin),
            _at_once("ModelConfig", pb.ModelConfigRequest, self._model_config),
            _at_once("ModelStatistics", pb.ModelStatisticsRequest, self._model_statistics),
        )

    def controlling(self) -> tuple[Method, ...]:
        """What the admin listener has."""
        return (
            *self.serving(),
            LaterMethod(_path("RepositoryIndex"), self._index),
            LaterMethod(_path("RepositoryModelLoad"), self._load),
            LaterMethod(_path("RepositoryModelUnload"), self._unload),
        )

    def close(self) -> None:
        """End all threads; nobody is answered any more."""
        self._threads.close()
        self._repository.close()

    # -- what there is -------------------------------------------------------------------------------------------------

    def _server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        del request
        return pb.ServerReadyResponse(ready=self._repository.ready)

    def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        try:
            self._resolved(request.name, request.version)
        except PlainError:  # also for one that there is not: clients test for false, not for an error
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def _server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        del request
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=self._version, extensions=EXTENSIONS)

    def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        model = self._resolved(request.name, request.version)
        ready = [model] if request.version else self._repository.ready_models(request.name)
        return describe.metadata(model, [one.version for one in ready])

    def _model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        return describe.configuration(self._resolved(request.name, request.version), self._bounds.threads)

    def _model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        models = self._repository.ready_models(request.name)
        version = version_of(request.version)
        if request.name and not models:
            raise RequestInvalid(f"requested model '{request.name}' is not available")
        if request.name and version is not None:
            models = [model for model in models if model.version == version]
            if not models:
                raise RequestInvalid(f"requested model version is not available for model '{request.name}'")
        return pb.ModelStatisticsResponse(
            model_stats=[describe.statistics(model, self._runs.statistics(model)) for model in models]
        )

    def _resolved(self, name: str, version: str) -> PlainModel:
        return self._repository.resolve(name, version_of(version))

    # -- what is done with the repository ------------------------------------------------------------------------------

    def _index(self, data: bytes, remaining_ns: int, done: Callable[[Answer], None]) -> Answer | Callable[[], None]:
        del remaining_ns

        def begin(request: pb.RepositoryIndexRequest) -> None:
            _one_repository(request.repository_name)
            self._repository.index(
                lambda entries: done(describe.index(entries, ready=request.ready).SerializeToString())
            )

        return _begun(pb.RepositoryIndexRequest, data, begin)

    def _load(self, data: bytes, remaining_ns: int, done: Callable[[Answer], None]) -> Answer | Callable[[], None]:
        del remaining_ns

        def begin(request: pb.RepositoryModelLoadRequest) -> None:
            _one_repository(request.repository_name)
            _known_parameters(request.parameters, ())
            told = _told(done, pb.RepositoryModelLoadResponse())
            self._repository.load(request.model_name, told)

        return _begun(pb.RepositoryModelLoadRequest, data, begin)

    def _unload(self, data: bytes, remaining_ns: int, done: Callable[[Answer], None]) -> Answer | Callable[[], None]:
        del remaining_ns

        def begin(request: pb.RepositoryModelUnloadRequest) -> None:
            _one_repository(request.repository_name)
            _known_parameters(request.parameters, ("unload_dependents",))
            told = _told(done, pb.RepositoryModelUnloadResponse())
            self._repository.unload(request.model_name, told)

        return _begun(pb.RepositoryModelUnloadRequest, data, begin)


def _one_repository(name: str) -> None:
    if name:
        raise NotServed("'repository_name' specification is not supported")


def _known_parameters(given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise NotServed(f"parameter '{name}' of a repository call is not served")


def _told(done: Callable[[Answer], None], response: Message) -> Callable[[Exception | None], None]:
    return lambda error: done(response.SerializeToString() if error is None else inference_status(error))


def _begun(message: type[_Request], data: bytes, begin: Callable[[_Request], None]) -> Answer | Callable[[], None]:
    """Begin what is told later; a caller that goes away does not stop it."""
    request = parse(message, data)
    if isinstance(request, Status):
        return request
    try:
        begin(request)
    except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
        return inference_status(error)
    return _finish


def _finish() -> None:
    """What was begun is finished."""


def _at_once(method: str, message: type[_Request], respond: Callable[[_Request], Message]) -> UnaryMethod:
    def answer(data: bytes) -> Answer:
        request = parse(message, data)
        if isinstance(request, Status):
            return request
        try:
            return respond(request).SerializeToString()
        except Exception as error:  # noqa: BLE001 - as above
            return inference_status(error)

    return UnaryMethod(_path(method), answer)


def _path(method: str) -> str:
    return f"/{INFERENCE_NAME}/{method}"
