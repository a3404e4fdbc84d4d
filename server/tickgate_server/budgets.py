"""Where a request's budget is looked at: before each stage, and once its answer is encoded."""

from time import perf_counter_ns
from typing import cast

from tickgate_server.errors import BudgetSpent
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import Decision, Request, Stage

_INFERENCE = int(Stage.INFERENCE)


def refuse_or_try(decision: Decision, stage: str, spent_ns: int, expected_ns: int) -> None:
    """Raise `BudgetSpent`, unless there is time left and this is the request to try with."""
    remaining = cast("LoadedModel", decision.model).remaining
    if spent_ns < decision.budget_ns:
        decision.trial = decision.trial or remaining.try_one(perf_counter_ns())
        if not decision.trial:
            raise BudgetSpent(stage, decision.budget_ns, spent_ns, expected_ns)
        return
    if decision.stage >= _INFERENCE:
        from_features_ns = spent_ns - decision.waiting_ns
        remaining.exceeded(from_features_ns, from_features_ns - decision.features_ns)
    raise BudgetSpent(stage, decision.budget_ns, spent_ns)


def check_budget(request: Request, decision: Decision) -> None:
    """The last look at a decided request's budget, once its answer is encoded; raises `BudgetSpent`.

    The run is completed here, in time or not, and counts for what is expected of later ones.
    """
    now_ns = perf_counter_ns()
    spent_ns = now_ns - request.arrival_ns
    if decision.scored and not decision.repeated:
        remaining = cast("LoadedModel", decision.model).remaining
        features_ns = spent_ns - decision.waiting_ns
        inference_ns = features_ns - decision.features_ns
        completed = remaining.trial_completed if decision.trial else remaining.completed
        completed(features_ns, inference_ns, inference_ns - decision.inference_ns, now_ns)
    if spent_ns >= decision.budget_ns:
        raise BudgetSpent("sending", decision.budget_ns, spent_ns)
