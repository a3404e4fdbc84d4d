"""A round in a process of its own, which kills itself before a step: `retrain_child.py FOLDER STEP`."""

import os
import signal
import sys
from pathlib import Path

from tests.training.turning_market import one_round, settings

from tickgate_training.retraining.round import Stage


def main() -> None:
    folder, step = Path(sys.argv[1]), sys.argv[2]

    def kill(stage: Stage) -> None:
        if stage == step:
            os.kill(os.getpid(), signal.SIGKILL)

    one_round(settings(folder), on_stage=kill)


if __name__ == "__main__":
    main()
