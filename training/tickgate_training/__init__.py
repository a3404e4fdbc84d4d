"""Training: load ticks, compute the server's features, label, validate walk-forward, export and publish a package.

The main road is `tickgate_training.pipeline.run`; each stage is a module of its own name.
"""
