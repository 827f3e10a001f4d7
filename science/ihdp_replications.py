"""x and t of IHDP -> any of its 1,000 replications, as R drew them.

Hill's response surface (Journal of Computational and Graphical Statistics 2011, 20:1, section 4, surface B with sigma 1 and an effect of 4
on the treated): mu0 = exp((x + 0.5) b), mu1 = x b - omega. Replication i draws b and the noise from R's generator with seed 5 i + 565
(5 i + 7565 above 500): Mersenne Twister, normals by inversion, samples by the rule of R before 3.6. Published replications differ from
these by rounding only (`tests/science/test_ihdp.py` compares the same draws).
"""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Floats = npt.NDArray[np.float64]
COUNT = 1_000
INTERCEPTS = np.arange(-1.0, 1.01, 0.25)
SLOPES, CHANCES = (0.0, 0.2, 0.3, 0.4, 0.1), (0.6, 0.1, 0.1, 0.1, 0.1)  # in the order in which R's sort leaves the equal chances
SHIFT, EFFECT_ON_TREATED = 0.5, 4.0
_BITS = 134_217_728
"""2 ** 27: R makes a normal from two uniforms so that its tail has enough digits."""


class RGenerator:
    """Uniform, normal and sampled numbers as R draws them after set.seed(seed)."""

    def __init__(self, seed: int) -> None:
        state = seed & 0xFFFFFFFF
        words = []
        for step in range(50 + 625):
            state = (69_069 * state + 1) & 0xFFFFFFFF
            if step >= 50:
                words.append(state)
        self._twister = np.random.MT19937()
        # the first word is R's position in the state, which set.seed puts at its end
        self._twister.state = {"bit_generator": "MT19937", "state": {"key": np.array(words[1:], np.uint32), "pos": 624}}

    def uniform(self, count: int) -> Floats:
        """[count] in (0, 1), 32 bits each."""
        drawn = self._twister.random_raw(count).astype(np.float64) * 2.3283064365386963e-10
        return np.clip(drawn, 2.328306437080797e-10, 1 - 2.328306437080797e-10)

    def normal(self, count: int) -> Floats:
        """[count] standard normal, by inversion of a number of 54 bits."""
        pairs = self.uniform(2 * count).reshape(count, 2)
        return np.asarray(ndtri((np.floor(_BITS * pairs[:, 0]) + pairs[:, 1]) / _BITS))

    def choice(self, values: npt.ArrayLike) -> float:
        """One of equally likely values."""
        table = np.asarray(values, np.float64)
        return float(table[int(self.uniform(1)[0] * len(table))])

    def sample(self, values: npt.ArrayLike, chances: npt.ArrayLike, count: int) -> Floats:
        """[count] values with replacement. R walks the chances from the largest down: give them in that order."""
        steps = np.cumsum(np.asarray(chances, np.float64))[:-1]
        return np.asarray(np.asarray(values, np.float64)[np.searchsorted(steps, self.uniform(count), side="left")])


def draw(x: Floats, arm: npt.NDArray[np.int64], number: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Replication `number` (from 1): mu0, mu1 and the outcomes y0, y1, each [n]. x [n, 25] with continuous columns standardised."""
    generator = RGenerator(5 * number + (565 if number <= 500 else 7_565))
    intercept = generator.choice(INTERCEPTS)
    slopes = generator.sample(SLOPES, CHANCES, x.shape[1])
    mu0 = np.exp(intercept + (x + SHIFT) @ slopes)
    mu1 = intercept + x @ slopes
    mu1 -= (mu1 - mu0)[arm == 1].mean() - EFFECT_ON_TREATED
    return mu0, mu1, mu0 + generator.normal(len(x)), mu1 + generator.normal(len(x))
