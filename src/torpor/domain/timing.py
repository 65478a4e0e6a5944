"""How long a suspension or a resumption takes: time = fixed + bytes / rate, learnt from what was measured.

The model is Sotomayor's (time to suspend = memory / rate, serial per disk) with a fixed
part, fitted by least squares of relative errors in which every older measurement weighs less.
"""

from dataclasses import dataclass

FORGET = 0.7
"""Weight of everything learnt before, each time that a measurement is added."""
PRIOR = 0.05
"""Weight, in measurements, of each of the two points that stand for what was assumed."""


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
        before = self if self.count else self._scaled_to(x, seconds)
        return before._with(x, seconds, before.count + 1, FORGET)

    def _scaled_to(self, x: float, seconds: float) -> "TimingModel":
        """What was assumed, made as fast or slow as the first measurement; it is forgotten as others come.

        It lies near that measurement: an assumption at a size that never occurs would have more leverage than
        everything that was measured.
        """
        factor = seconds / max(self._at(x), 1e-9)
        assumed = TimingModel(0.0, 0.0, 0.0, 0.0, 0.0)
        for near in (0.5 * x, 1.5 * x):
            assumed = assumed._with(near, factor * self._at(near), 0, 1.0, PRIOR)
        return assumed

    def _with(self, x: float, seconds: float, count: int, forget: float, share: float = 1.0) -> "TimingModel":
        """Weights are relative: being off by a tenth counts the same for a short time as for a long one."""
        weight = share / max(seconds, 1e-3) ** 2
        return TimingModel(
            self.weight * forget + weight,
            self.sum_x * forget + weight * x,
            self.sum_t * forget + weight * seconds,
            self.sum_xx * forget + weight * x * x,
            self.sum_xt * forget + weight * x * seconds,
            count,
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
        return self._at(num_bytes / 1e9)

    def _at(self, x: float) -> float:
        fixed, slope = self.coefficients()
        return fixed + slope * x


def prior(fixed: float, bytes_per_second: float) -> TimingModel:
    """What is assumed before anything was measured."""
    slope = 1e9 / bytes_per_second
    model = TimingModel(0.0, 0.0, 0.0, 0.0, 0.0)
    for x in (0.1, 1.0):
        model = model._with(x, fixed + slope * x, 0, 1.0)
    return model
