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
from tickgate.v1.topology_pb2 import GetTopologyRequest, GetTopologyResponse, SymbolHash, Worker
from tickgate.v1.topology_pb2_grpc import TopologyServiceServicer, TopologyServiceStub

__all__ = [
    "Action",
    "AggressorSide",
    "FeatureState",
    "FeatureVector",
    "GetTopologyRequest",
    "GetTopologyResponse",
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
    "SymbolHash",
    "Tick",
    "Timing",
    "TopologyServiceServicer",
    "TopologyServiceStub",
    "Trade",
    "Worker",
]
