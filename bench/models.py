"""The model that is measured: 200 trees of 31 leaves on micro10, trained on simulated ticks by training itself."""

from pathlib import Path

from tickgate_training import pipeline
from tickgate_training.config import parse_config


def publish(repository: Path, name: str = "bench", trees: int = 200) -> None:
    """Train and publish one."""
    pipeline.run(
        parse_config(
            {
                "data": {"kind": "simulated", "trades": 20_000, "edge": 0.2},
                "package": {"name": name, "repository": str(repository)},
                "walk_forward": {"train_rows": 12_000, "validation_rows": 3_000, "test_rows": 4_000},
                "learners": [{"kind": "lightgbm", "trees": trees, "leaves": 31, "leaf_rows_minimum": 20}],
            }
        )
    )
