"""What a model's remaining stages usually take: the running medians that early refusal looks at.

A frugal streaming estimate (Q. Ma, S. Muthukrishnan, M. Sandler: Frugal Streaming for Estimating Quantiles, 2013): one
integer a median, which takes a step towards each value. Here a step is 1/64 of the estimate, so that it moves as fast
for 20 us as for 20 ms: off by a factor of ten it is right after 150 values, and then stays within a few per cent.
"""

_STEP_SHIFT = 6

# Without a completed run for so long, one request is let through.
TRIAL_AFTER_NS = 100_000_000


class RemainingTimes:
    """Running medians for one model, in nanoseconds from a stage's start until the answer is encoded; 0: not known.

    Completed runs count, those that came too late among them, and of one that was stopped that it takes longer than it
    had taken by then. What was refused counts for nothing; so that a bad spell ends, `try_one` lets one request through
    when none was completed for 100 ms, and if that run is faster than the median, the median starts anew there.

    Attributes:
        from_features_ns: From the start of the features on.
        from_inference_ns: From the start of the model's run on; waiting for its thread does not count.
        from_risk_ns: From the end of the model's run on.
    """

    __slots__ = ("_known_ns", "from_features_ns", "from_inference_ns", "from_risk_ns")

    def __init__(self) -> None:
        self.from_features_ns = 0
        self.from_inference_ns = 0
        self.from_risk_ns = 0
        self._known_ns = 0

    def completed(self, from_features_ns: int, from_inference_ns: int, from_risk_ns: int, now_ns: int) -> None:
        """Count a run that was completed at `now_ns` on `perf_counter_ns`'s clock."""
        self._known_ns = now_ns
        # Thrice the same, written out: three calls would take longer than all of it.
        median = self.from_features_ns
        if from_features_ns > median:
            self.from_features_ns = median + (median >> _STEP_SHIFT) + 1 if median else from_features_ns
        elif from_features_ns < median:
            self.from_features_ns = median - (median >> _STEP_SHIFT) - 1
        median = self.from_inference_ns
        if from_inference_ns > median:
            self.from_inference_ns = median + (median >> _STEP_SHIFT) + 1 if median else from_inference_ns
        elif from_inference_ns < median:
            self.from_inference_ns = median - (median >> _STEP_SHIFT) - 1
        median = self.from_risk_ns
        if from_risk_ns > median:
            self.from_risk_ns = median + (median >> _STEP_SHIFT) + 1 if median else from_risk_ns
        elif from_risk_ns < median:
            self.from_risk_ns = median - (median >> _STEP_SHIFT) - 1

    def trial_completed(self, from_features_ns: int, from_inference_ns: int, from_risk_ns: int, now_ns: int) -> None:
        """The same for a run that was let through: by single steps a bad spell would outlast a hundred of them."""
        self.completed(from_features_ns, from_inference_ns, from_risk_ns, now_ns)
        self.from_features_ns = min(self.from_features_ns, from_features_ns)
        self.from_inference_ns = min(self.from_inference_ns, from_inference_ns)
        self.from_risk_ns = min(self.from_risk_ns, from_risk_ns)

    def exceeded(self, from_features_ns: int, from_inference_ns: int) -> None:
        """Count a run that was not completed, and took longer than this: where that is over a median, so is the run."""
        median = self.from_features_ns
        if from_features_ns > median:
            self.from_features_ns = median + (median >> _STEP_SHIFT) + 1 if median else from_features_ns
        median = self.from_inference_ns
        if from_inference_ns > median:
            self.from_inference_ns = median + (median >> _STEP_SHIFT) + 1 if median else from_inference_ns

    def try_one(self, now_ns: int) -> bool:
        """Whether to let a request through that the medians speak against: one, then none for another 100 ms."""
        if now_ns - self._known_ns < TRIAL_AFTER_NS:
            return False
        self._known_ns = now_ns
        return True
