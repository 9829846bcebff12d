"""Confidence intervals of an accuracy, and of the difference of two, measured on n clips."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

TWO_SIDED_95 = 0.975
MIN_EFFECTIVE_GROUPS = 2  # with fewer, the variance cannot be estimated


def effective_sample_size(values: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """Estimate the number of independent clips that carry as much information as these, and the quantile for 95%.

    Clips of one group (an artist, a recording) tend to be correct or wrong together, so they carry less information
    than independent clips. In simulations (accuracy 0.6 to 0.95, 100 to 300 clips in groups of 1 to 10), a score
    interval over the effective number of clips covered the true accuracy in 89 to 98% of cases, a percentile bootstrap
    of the groups in 65 to 95%, because few groups contain errors; a bootstrap of t was far wider.

    Args:
        values: a number for each clip whose mean is wanted, e.g. 1 for correct and 0 for wrong; shape (clips,).
        groups: an id for each clip, shape (clips,); None for independent clips.
    """
    n = len(values)
    if groups is None or len(set(groups)) == n:
        return n, norm.ppf(TWO_SIDED_95)
    _, ids = np.unique(groups, return_inverse=True)
    sizes = np.bincount(ids)
    # The number of groups of equal size that would have the same variance.
    n_groups = n**2 / (sizes**2).sum()
    if n_groups < MIN_EFFECTIVE_GROUPS:
        return 1.0, np.inf
    # The jackknife over groups estimates the variance; if groups are unequal, it errs on the safe side.
    without = (values.sum() - np.bincount(ids, values)) / (n - sizes)
    variance = (1 - 1 / len(sizes)) * ((without - values.mean()) ** 2).sum()
    # If all clips are correct, or all wrong, assume that the clips of a group depend on each other.
    number = n_groups if values.std() == 0 else values.var() / max(variance, values.var() / n)
    return number, t.ppf(TWO_SIDED_95, n_groups - 1)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Compute Wilson's score interval of a share measured on n clips (JASA 1927)."""
    if np.isinf(z):
        return 0.0, 1.0
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def accuracy_interval(correct: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """Compute the 95% interval of an accuracy. correct: bool (clips,); groups: as for `effective_sample_size`."""
    number, z = effective_sample_size(correct.astype(float), groups)
    return wilson(float(correct.mean()), number, z)


def difference_interval(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """Compute the 95% interval of the difference of two accuracies on the same clips: Tango's score interval (1998).

    Args:
        first, second: bool (clips,), whether each clip was classified correctly; the difference is second - first.
        groups: as for `effective_sample_size`.
    """
    number, z = effective_sample_size(second.astype(float) - first, groups)
    if np.isinf(z):
        return -1.0, 1.0
    gained, lost = (second & ~first).mean(), (first & ~second).mean()

    def score(difference: float) -> float:
        # The maximum likelihood estimate of the share of lost clips, given this difference.
        linear = difference * (2 - gained + lost) - gained - lost
        likeliest = (np.sqrt(linear**2 + 8 * lost * difference * (1 - difference)) - linear) / 4
        variance = (2 * likeliest + difference * (1 - difference)) / number
        return (gained - lost - difference) / np.sqrt(max(variance, 1e-300))

    middle = gained - lost
    low = brentq(lambda d: score(d) - z, -1, middle) if middle > -1 else -1.0
    high = brentq(lambda d: score(d) + z, middle, 1) if middle < 1 else 1.0
    return float(low), float(high)
