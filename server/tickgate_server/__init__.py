"""The server of tickgate: validated tick, features, model, risk gate, signal, inside a deadline.

Importing it imports neither numba nor ONNX Runtime; `tickgate_server.app` wires the parts together.
"""
