"""Estimate how much better the winner of a search is than the committed params, corrected for having been picked.

Of many trials that are all equally good, the best one looks better than it is. The bootstrap of Tsamardinos,
Greasidou and Borboudakis (BBC-CV, Machine Learning 107, 2018) picks a winner on each resample of the clips, and
measures it on the clips that are not in the resample.
"""

import numpy as np

RESAMPLES = 4000
PERCENTILES = [2.5, 97.5]


def corrected_gain(
    trials: np.ndarray, committed: np.ndarray, groups: np.ndarray | None, seed: int = 0
) -> tuple[float, float, float]:
    """Estimate the gain in accuracy of the winner over the committed params, and its 95% interval.

    Each resample draws groups of clips with replacement, picks the trial that is best on them, and measures its gain on
    the groups that were not drawn. These are about a third of all, so their gains vary more than that of all clips
    would. The interval is narrowed for this, as for a jackknife that leaves out groups (Shao and Wu, 1989). In
    simulations (60 to 400 clips, 1 to 50 trials that are equally good), it contained zero in 91 to 99% of cases.

    Args:
        trials: bool (clips, trials), whether each clip was classified correctly; of several best, the first wins.
        committed: bool (clips,), the same for the committed params.
        groups: an id for each clip, shape (clips,); None for independent clips.

    Returns:
        Gain, low, high; the interval is -1 to 1 if there are fewer than two groups.
    """
    _, ids = np.unique(np.arange(len(trials)) if groups is None else groups, return_inverse=True)
    number = int(ids.max()) + 1
    if number < 2:
        return float((trials.mean(axis=0).max()) - committed.mean()), -1.0, 1.0
    hits, gains, sizes = np.zeros((number, trials.shape[1])), np.zeros((number, trials.shape[1])), np.bincount(ids)
    np.add.at(hits, ids, trials.astype(float))
    np.add.at(gains, ids, trials.astype(float) - committed[:, None])
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    left = (drawn == 0).astype(float)
    drawn, left = drawn[left.any(axis=1)], left[left.any(axis=1)]
    winners = (drawn @ hits).argmax(axis=1)  # the number of clips of a resample is the same for all trials
    measured = np.take_along_axis(left @ gains, winners[:, None], axis=1)[:, 0] / (left @ sizes)
    share = float((left @ sizes).mean() / sizes.sum())
    middle = float(measured.mean())
    low, high = middle + np.sqrt(share / (1 - share)) * (np.percentile(measured, PERCENTILES) - middle)
    return middle, float(low), float(high)
