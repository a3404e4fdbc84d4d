"""Between the contract's messages and the engine's records. Nothing is decided here."""

import time
from collections.abc import Iterable
from typing import cast

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.errors import FieldInvalid
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import FEATURES, SYMBOL, TICK, Decision, Request
from tickgate_server.risk.checks import CHECKS
from tickgate_server.ticks.market import QUOTE, TRADE

REQUEST_ID_BYTES = 36
STREAM_ITEMS = 1024

_NS_PER_US = 1_000


def decode(message: pb.PredictRequest, request: Request) -> None:
    """Fill `request` from a message; times and budget are the transport's to add.

    Raises:
        FieldInvalid: `request_id` is too long.
    """
    request.request_id = b""
    request.input = 0  # what of the request before is left does not count
    request.symbol = ""
    request.model = message.model
    if len(message.request_id) > REQUEST_ID_BYTES // 4 and len(message.request_id.encode()) > REQUEST_ID_BYTES:
        raise FieldInvalid("request_id", f"up to {REQUEST_ID_BYTES} bytes of UTF-8", message.request_id)
    request.request_id = message.request_id.encode()
    given = message.WhichOneof("input")
    if given == "tick":
        tick = message.tick
        request.input = TICK
        request.symbol = tick.symbol
        request.exchange_ts_ns = tick.exchange_ts_ns
        request.sequence = tick.sequence
        kind = 0
        if tick.HasField("trade"):
            kind = TRADE
            trade = tick.trade
            request.price = trade.price
            request.size = trade.size
        if tick.HasField("quote"):
            kind |= QUOTE
            quote = tick.quote
            request.bid = quote.bid
            request.ask = quote.ask
            request.bid_size = quote.bid_size
            request.ask_size = quote.ask_size
        request.kind = kind
    elif given == "features":
        features = message.features
        request.input = FEATURES
        request.symbol = features.symbol
        request.schema_id = features.schema_id
        request.values = features.values
        request.exchange_ts_ns = features.exchange_ts_ns
        request.reference_price = features.reference_price
    elif given == "symbol":
        request.input = SYMBOL
        request.symbol = message.symbol


class ResponseForm:
    """One response message, filled again for each decision: building its parts anew costs four times as much.

    A form holds prediction and checks of a judged decision; one that never reached the gate has a form without, and an
    answer given again has its prediction alone.
    """

    __slots__ = ("_checks", "_features", "_prediction", "_signal", "_timing", "message")

    def __init__(self, model: LoadedModel | None, *, judged: bool, scored: bool) -> None:
        message = pb.PredictResponse()
        self.message = message
        self._signal = message.signal
        self._features = message.features
        self._timing = message.timing
        self._features.SetInParent()
        if model is not None:
            message.model.name = model.name
            message.model.version = model.version
            message.model.schema_id = model.schema_id
        self._prediction: pb.Prediction | None = None
        self._checks: list[pb.RiskCheck] = []
        if scored and model is not None:
            self._prediction = message.prediction
            self._prediction.decision_threshold = model.threshold
            self._timing.engine = (
                pb.INFERENCE_ENGINE_ONNXRUNTIME if model.not_compiled else pb.INFERENCE_ENGINE_COMPILED_FOREST
            )
        if judged:
            self._checks = [self._signal.checks.add(reason=check.reason, at_least=check.at_least) for check in CHECKS]

    def fill(self, decision: Decision, request_id: str) -> pb.PredictResponse:
        """The response to one decision; the same message each time, so serialize or copy it before the next."""
        message = self.message
        message.request_id = request_id
        message.symbol = decision.symbol
        signal = self._signal
        signal.action = decision.action  # type: ignore[assignment]  # an int of the same numbers
        signal.reason = decision.reason  # type: ignore[assignment]  # an int of the same numbers
        signal.size = decision.size
        signal.limit_price = decision.limit_price
        signal.valid_for_us = decision.valid_for_us
        signal.approved = decision.size > 0.0
        signal.target_position = decision.target
        signal.order_id = decision.order_id
        signal.reducing = decision.reducing
        signal.remaining_size = decision.remaining
        signal.regime = decision.regime  # type: ignore[assignment]  # an int of the same numbers
        signal.trading_state = decision.trading_state  # type: ignore[assignment]  # an int of the same numbers
        message.repeated = decision.sent_ns > 0
        prediction = self._prediction
        if prediction is not None:
            prediction.value = decision.value
            prediction.confidence = decision.confidence
            values, limits, passes = decision.check_values, decision.check_limits, decision.check_passes
            waived = decision.check_waived
            index = 0
            for check in self._checks:
                check.value = values[index]
                check.limit = limits[index]
                check.passed = passes[index] == 1.0
                check.waived = waived[index] == 1.0
                index += 1  # noqa: SIM113 - cheaper than enumerate and zip
        features = self._features
        features.trades_in_window = decision.trades_in_window
        features.ready = decision.ready
        features.exchange_ts_ns = decision.features_ts_ns
        features.age_us = decision.age_ns // _NS_PER_US
        timing = self._timing
        timing.waiting_ns = decision.waiting_ns
        timing.features_ns = decision.features_ns
        timing.inference_ns = decision.inference_ns
        timing.risk_ns = decision.risk_ns
        timing.total_ns = decision.total_ns
        timing.budget_ns = decision.budget_ns
        timing.server_send_ts_ns = decision.sent_ns or time.time_ns()
        return message


class _Forms(dict[LoadedModel, ResponseForm]):
    """The forms of one kind by model, each made when it is first wanted."""

    def __init__(self, *, judged: bool, scored: bool) -> None:
        super().__init__()
        self._judged = judged
        self._scored = scored

    def __missing__(self, model: LoadedModel) -> ResponseForm:
        self[model] = form = ResponseForm(model, judged=self._judged, scored=self._scored)
        return form


class Encoder:
    """From decisions to responses, with three forms for each model that may answer."""

    __slots__ = ("_again", "_held", "_judged")

    def __init__(self, models: Iterable[LoadedModel]) -> None:
        self._judged = _Forms(judged=True, scored=True)
        self._held = _Forms(judged=False, scored=False)
        self._again = _Forms(judged=False, scored=True)
        self.keep(models)

    def keep(self, models: Iterable[LoadedModel]) -> None:
        """Have the forms of these models, and of no others but those that are wanted meanwhile."""
        wanted = set(models)
        for forms in (self._judged, self._held, self._again):
            for model in forms.keys() - wanted:
                del forms[model]
        for model in wanted - self._judged.keys():
            self._judged[model]  # made now, and not for its first answer
            self._held[model]

    def encode(self, decision: Decision, request_id: str) -> pb.PredictResponse:
        """The response; the next call for the same model fills the same message again."""
        forms = self._judged if decision.judged else self._held
        if decision.repeated and decision.scored:
            forms = self._again
        return forms[cast("LoadedModel", decision.model)].fill(decision, request_id)


def budget_ns(budget_us: int, deadline_ns: int) -> int:
    """The lesser of a request's budget and what its gRPC deadline leaves, in nanoseconds; 0 stands for none."""
    budget = budget_us * _NS_PER_US
    if deadline_ns <= 0:
        return budget
    return min(budget, deadline_ns) if budget else deadline_ns
