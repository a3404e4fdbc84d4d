"""Messages and stubs of `tickgate.v1`; the proto files beside this one say what each field means."""

from tickgate.v1.market_pb2 import AggressorSide, Quote, Tick, Trade
from tickgate.v1.signal_pb2 import (
    Action,
    FeatureState,
    FeatureVector,
    InferenceEngine,
    ModelVersion,
    Prediction,
    PredictRequest,
    PredictResponse,
    PredictStreamRequest,
    PredictStreamResponse,
    PredictStreamResult,
    Reason,
    RiskCheck,
    Signal,
    Timing,
)
from tickgate.v1.signal_pb2_grpc import SignalServiceServicer, SignalServiceStub

__all__ = [
    "Action",
    "AggressorSide",
    "FeatureState",
    "FeatureVector",
    "InferenceEngine",
    "ModelVersion",
    "PredictRequest",
    "PredictResponse",
    "PredictStreamRequest",
    "PredictStreamResponse",
    "PredictStreamResult",
    "Prediction",
    "Quote",
    "Reason",
    "RiskCheck",
    "Signal",
    "SignalServiceServicer",
    "SignalServiceStub",
    "Tick",
    "Timing",
    "Trade",
]
