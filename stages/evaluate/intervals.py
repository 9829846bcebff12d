"""How far to believe an accuracy, or the difference of two, that was measured on so many clips."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

TWO_SIDED_95 = 0.975
LEAST_ALIKE = 2  # groups of one size that unequal ones must be worth; from fewer no variance can be told


def effective(values: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """How many independent clips the clips of these groups are worth, and the quantile for a 95% interval.

    Clips of one group (an artist, a recording) are right or wrong together, so they tell less than as many strangers.
    A score interval over the effective number of clips holds the true accuracy better than bootstraps of the groups: in
    89 to 98% of simulated draws (accuracy 0.6 to 0.95, 100 to 300 clips in groups of 1 to 10), against 65 to 95% by
    percentiles, since there are few groups to draw and still fewer err; and bootstraps by t were far wider there.

    Args:
        values: one number per clip whose mean is wanted, e.g. 1 for right and 0 for wrong; shape (clips,).
        groups: a name per clip, shape (clips,); None for independent clips.
    """
    n = len(values)
    if groups is None or len(set(groups)) == n:
        return n, norm.ppf(TWO_SIDED_95)
    _, ids = np.unique(groups, return_inverse=True)
    sizes = np.bincount(ids)
    # Large groups weigh more: so many of one size would vary as much.
    alike = n**2 / (sizes**2).sum()
    if alike < LEAST_ALIKE:
        return 1.0, np.inf
    # The variance by the jackknife that leaves one group out: it leans to the safe side where groups are unequal.
    without = (values.sum() - np.bincount(ids, values)) / (n - sizes)
    variance = (1 - 1 / len(sizes)) * ((without - values.mean()) ** 2).sum()
    # All right or all wrong: nothing shows whether groups err together, so assume that they do.
    number = alike if values.std() == 0 else values.var() / max(variance, values.var() / n)
    return number, t.ppf(TWO_SIDED_95, alike - 1)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share measured on n clips (JASA 1927)."""
    if np.isinf(z):
        return 0.0, 1.0
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def accuracy_interval(right: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """The 95% interval of an accuracy. right: bool (clips,); groups as `effective` takes them."""
    number, z = effective(right.astype(float), groups)
    return wilson(right.mean(), number, z)


def difference_interval(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """The 95% interval of second's accuracy less first's, on the same clips: Tango's score interval (1998).

    Args:
        first, second: bool (clips,), whether each clip was named rightly.
        groups: as `effective` takes them.
    """
    number, z = effective(second.astype(float) - first, groups)
    if np.isinf(z):
        return -1.0, 1.0
    gained, lost = (second & ~first).mean(), (first & ~second).mean()

    def score(difference: float) -> float:
        # The likeliest share of lost clips, were this the difference.
        linear = difference * (2 - gained + lost) - gained - lost
        likeliest = (np.sqrt(linear**2 + 8 * lost * difference * (1 - difference)) - linear) / 4
        variance = (2 * likeliest + difference * (1 - difference)) / number
        return (gained - lost - difference) / np.sqrt(max(variance, 1e-300))

    middle = gained - lost
    low = brentq(lambda d: score(d) - z, -1, middle) if middle > -1 else -1.0
    high = brentq(lambda d: score(d) + z, middle, 1) if middle < 1 else 1.0
    return float(low), float(high)
