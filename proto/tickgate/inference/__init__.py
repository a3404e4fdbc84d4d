"""Messages and stubs of the Open Inference Protocol, package `inference` on the wire.

Never beside tritonclient in one process: both define that package, and protobuf takes one definition only.
"""

from tickgate.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer, GRPCInferenceServiceStub

__all__ = ["GRPCInferenceServiceServicer", "GRPCInferenceServiceStub"]
