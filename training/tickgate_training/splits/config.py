"""The configured lengths of walk-forward windows; a section without `kind` counts rows."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag

from tickgate_training.splits.sessions import Embargo, latest_sessions, walk_forward_sessions
from tickgate_training.splits.windows import Window, latest, walk_forward
from tickgate_training.strict import Strict


class RowWindowsConfig(Strict):
    """Lengths of the blocks in rows; a row of daily bars is a session. The step is the test block."""

    kind: Literal["rows"] = "rows"
    train_rows: int = Field(default=252, ge=1)
    validation_rows: int = Field(default=63, ge=1)
    test_rows: int = Field(default=21, ge=1)
    embargo_rows: int = Field(default=0, ge=0)
    anchored: bool = False

    def windows(self, sessions: NDArray[np.int64], stamps_ns: NDArray[np.int64]) -> list[Window]:  # noqa: ARG002
        """All windows that fit; only the number of rows is looked at. Errors: see `windows.walk_forward`."""
        lengths = self.train_rows, self.validation_rows, self.test_rows
        return list(walk_forward(sessions.size, *lengths, self.embargo_rows, anchored=self.anchored))

    def latest(self, sessions: NDArray[np.int64], stamps_ns: NDArray[np.int64]) -> Window:  # noqa: ARG002
        """The newest train and validation blocks; see `windows.latest`."""
        return latest(sessions.size, self.train_rows, self.validation_rows, self.embargo_rows, anchored=self.anchored)


class SessionWindowsConfig(Strict):
    """Lengths of the blocks in sessions, see `splits.sessions`; of the embargoes the longest counts."""

    kind: Literal["sessions"] = "sessions"
    train_sessions: int = Field(default=252, ge=1)
    validation_sessions: int = Field(default=63, ge=1)
    test_sessions: int = Field(default=21, ge=1)
    embargo_sessions: int = Field(default=0, ge=0)
    embargo_rows: int = Field(default=0, ge=0)
    embargo_ns: int = Field(default=0, ge=0)
    anchored: bool = False
    last_session_over: bool = True

    def windows(self, sessions: NDArray[np.int64], stamps_ns: NDArray[np.int64]) -> list[Window]:
        """All windows that fit: session numbers and stamps, int64 [n]; see `sessions.walk_forward_sessions`."""
        return list(
            walk_forward_sessions(
                sessions,
                self.train_sessions,
                self.validation_sessions,
                self.test_sessions,
                embargo=self._embargo,
                stamps_ns=stamps_ns,
                anchored=self.anchored,
                last_session_over=self.last_session_over,
            )
        )

    def latest(self, sessions: NDArray[np.int64], stamps_ns: NDArray[np.int64]) -> Window:
        """The newest train and validation blocks; see `sessions.latest_sessions`."""
        return latest_sessions(
            sessions,
            self.train_sessions,
            self.validation_sessions,
            embargo=self._embargo,
            stamps_ns=stamps_ns,
            anchored=self.anchored,
            last_session_over=self.last_session_over,
        )

    @property
    def _embargo(self) -> Embargo:
        return Embargo(self.embargo_rows, self.embargo_sessions, self.embargo_ns)


def _kind(section: Any) -> Any:
    return section.get("kind", "rows") if isinstance(section, dict) else getattr(section, "kind", None)


WalkForwardConfig = Annotated[
    Annotated[RowWindowsConfig, Tag("rows")] | Annotated[SessionWindowsConfig, Tag("sessions")],
    Discriminator(_kind),
]
"""How a run walks forward."""
