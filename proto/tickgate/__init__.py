"""The contract of tickgate: generated protobuf messages and gRPC stubs, one package a version."""
