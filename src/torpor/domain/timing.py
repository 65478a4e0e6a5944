"""How long a suspension or a resumption takes: time = fixed + bytes / rate, learnt from what was measured.

The model is Sotomayor's (time to suspend = memory / rate, serial per disk) with a fixed
part, fitted by least squares in which every older measurement weighs less.
"""

from dataclasses import dataclass

FORGET = 0.85
"""Weight of everything learnt before, each time that a measurement is added."""


@dataclass(frozen=True, slots=True)
class TimingModel:
    """Weighted sums over measurements (x: gigabytes, t: seconds), and how many there were."""

    weight: float
    sum_x: float
    sum_t: float
    sum_xx: float
    sum_xt: float
    count: int = 0

    def learn(self, num_bytes: int, seconds: float) -> "TimingModel":
        """The model with one more measurement in it."""
        x = num_bytes / 1e9
        return TimingModel(
            self.weight * FORGET + 1.0,
            self.sum_x * FORGET + x,
            self.sum_t * FORGET + seconds,
            self.sum_xx * FORGET + x * x,
            self.sum_xt * FORGET + x * seconds,
            self.count + 1,
        )

    def coefficients(self) -> tuple[float, float]:
        """(fixed seconds, seconds per gigabyte), neither negative."""
        spread = self.weight * self.sum_xx - self.sum_x * self.sum_x
        if spread <= 1e-12:
            return (self.sum_t / self.weight, 0.0)
        slope = (self.weight * self.sum_xt - self.sum_x * self.sum_t) / spread
        if slope < 0.0:
            return (self.sum_t / self.weight, 0.0)
        fixed = (self.sum_t - slope * self.sum_x) / self.weight
        if fixed < 0.0:
            return (0.0, self.sum_xt / self.sum_xx)
        return (fixed, slope)

    def predict(self, num_bytes: int) -> float:
        """Seconds that `num_bytes` will take."""
        fixed, slope = self.coefficients()
        return fixed + slope * num_bytes / 1e9


def prior(fixed: float, bytes_per_second: float) -> TimingModel:
    """What is assumed before anything was measured, with the weight of a fraction of a measurement."""
    slope = 1e9 / bytes_per_second
    weight = 0.02
    points = ((0.1, fixed + 0.1 * slope), (1.0, fixed + slope))
    return TimingModel(
        weight * len(points),
        weight * sum(x for x, _ in points),
        weight * sum(t for _, t in points),
        weight * sum(x * x for x, _ in points),
        weight * sum(x * t for x, t in points),
    )
