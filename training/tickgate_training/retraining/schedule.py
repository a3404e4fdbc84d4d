"""Round after round: when the next is due, and what begins one earlier."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event

import structlog

from tickgate_server.journal.errors import JournalError
from tickgate_server.models.errors import ModelError
from tickgate_training.errors import ConfigInvalid, TrainingError
from tickgate_training.retraining.config import RetrainConfig, ScheduleConfig
from tickgate_training.retraining.round import Round
from tickgate_training.retraining.rounds import RoundLine, Rounds, TriggerSaid
from tickgate_training.retraining.triggers import Triggers

_NS_PER_S = 1_000_000_000
_LOG = structlog.get_logger()


def due_ns(schedule: ScheduleConfig, last_ns: int, began_ns: int) -> int:
    """When the next round is due, by the wall clock; in the past: now.

    A round that was due while nothing ran is due at once, once.

    Args:
        schedule: When rounds are due.
        last_ns: When the last one began; 0: there was none.
        began_ns: When the process did: without an earlier round one is due then, or at the first of `at` after it.
    """
    if schedule.every_s is not None:
        return last_ns + int(schedule.every_s * _NS_PER_S) if last_ns else began_ns
    after = datetime.fromtimestamp((last_ns or began_ns) // _NS_PER_S, UTC)
    days = (after.date() + timedelta(days=day) for day in (0, 1))
    times = (datetime.combine(day, at, UTC) for day in days for at in schedule.at)
    return int(min(one for one in times if one > after).timestamp()) * _NS_PER_S


class Scheduler:
    """Runs rounds until it is told to stop.

    Args:
        config: Of retraining.
        rounds: So far.
        stop: Set from a signal's handler or another thread; a round ends before its next step.
        told: Given each round's line.
        clock_ns: The wall clock.

    Raises:
        ConfigInvalid: There is neither a schedule nor a trigger.
        JournalError: A journal is not there.
    """

    def __init__(
        self,
        config: RetrainConfig,
        rounds: Rounds,
        stop: Event,
        told: Callable[[RoundLine], None] = lambda line: None,  # noqa: ARG005 - nobody listens
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        section = config.retrain
        watched = section.triggers.on_drift or (section.triggers.on_degraded and section.journal is not None)
        if section.schedule is None and not watched:
            raise ConfigInvalid("retrain", ("schedule: neither it nor a trigger says when a round begins",))
        self._config = config
        self._rounds = rounds
        self._stop = stop
        self._told = told
        self._clock_ns = clock_ns
        self._triggers = Triggers(config, rounds)
        self._began_ns = clock_ns()
        self._trouble = ""

    def run(self) -> None:
        """Run rounds as they are due or triggered; returns once `stop` is set."""
        try:
            while not self._stop.is_set():
                trigger = self._trigger()
                if trigger is not None:
                    self._told(Round(self._config, self._rounds, trigger, stop=self._stop.is_set).run())
                else:
                    self._stop.wait(self._wait_s())
        finally:
            self._triggers.close()

    def _trigger(self) -> TriggerSaid | None:
        schedule = self._config.retrain.schedule
        if schedule is not None and self._due_in_ns(schedule) <= 0:
            return TriggerSaid()
        try:
            found = self._triggers.look()
        except (TrainingError, ModelError, JournalError, OSError) as error:  # the schedule goes on
            if str(error) != self._trouble:
                self._trouble = str(error)
                _LOG.error("triggers cannot be looked at", why=self._trouble)
            return None
        self._trouble = ""
        return found

    def _due_in_ns(self, schedule: ScheduleConfig) -> int:
        lines, now_ns = self._rounds.lines, self._clock_ns()
        return due_ns(schedule, lines[-1].began_ns if lines else 0, self._began_ns) - now_ns

    def _wait_s(self) -> float:
        schedule, wanted = self._config.retrain.schedule, self._config.retrain.triggers
        waits = [wanted.poll_s]
        if schedule is not None:
            waits.append(max(self._due_in_ns(schedule), 0) / _NS_PER_S)
        return min(waits)
