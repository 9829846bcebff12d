"""Compare two predictions clip by clip: is B better than A, and by how much?

Each is a CSV file, a git revision or the name of a DVC experiment. The 95% interval decides: B is better or worse where
it leaves out zero. It is Tango's score interval (clips that share a group count as fewer), drawn out to zero where
McNemar's exact test, which needs no large numbers, does not tell the two apart.

Run     python -m tools.compare main my-experiment; without the second, the workspace's own
"""

import argparse

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from stages.common.intervals import difference_interval
from stages.common.stage import StageError, run
from tools.revisions import PREDICTIONS, groups_of, read_predictions

MOSTLY = 0.9  # share of either's clips below which the two are not of one split


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """McNemar's exact p-value: are the clips that one alone names rightly shared evenly? bool (clips,) each."""
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def shared(a: pd.DataFrame, b: pd.DataFrame) -> pd.Index:
    """The clips that both have.

    Raises:
        StageError: there are none, or one has another label in each.
    """
    clips = a.index.intersection(b.index, sort=False)
    if clips.empty:
        raise StageError("A and B share no clip; compare two runs on one data set and split")
    unlike = clips[a.loc[clips, "label"] != b.loc[clips, "label"]]
    if len(unlike):
        clip = unlike[0]
        raise StageError(
            f"clip {clip} is {a.loc[clip, 'label']} in A and {b.loc[clip, 'label']} in B "
            f"({len(unlike)} such clips); compare two runs on one data set"
        )
    return clips


def verdict(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> str:
    """One sentence: B's accuracy less A's on the same clips. bool (clips,) each, whether the clip was named rightly."""
    difference = second.mean() - first.mean()
    low, high = difference_interval(first, second, groups)
    p = mcnemar(first, second)
    if p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    tested = f"McNemar p = {p:.2g}; {len(first)} clips"
    if groups is not None and len(set(groups)) < len(groups):
        tested += f" in {len(set(groups))} groups, which McNemar's test does not know"
    if low <= 0 <= high:
        told = f"{100 * difference:+.1f} points (95% {100 * low:z.1f} to {100 * high:z.1f}; {tested})"
        return f"A and B are not to be told apart: B less A is {told}"
    word, near, far = ("better", low, high) if difference > 0 else ("worse", -high, -low)
    told = f"{100 * abs(difference):.1f} points (95% {100 * near:.1f} to {100 * far:.1f}; {tested})"
    return f"B is {word} than A by {told}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", help="a predictions.csv, a git revision or an experiment")
    parser.add_argument("b", nargs="?", default=PREDICTIONS, help="likewise; the workspace's file if left out")
    names = parser.parse_args()
    a, b = read_predictions(names.a), read_predictions(names.b)
    clips = shared(a, b)
    if len(clips) < max(len(a), len(b)):
        print(f"warning: {len(a) - len(clips)} clips only A has, {len(b) - len(clips)} only B; they are left out")
    if len(clips) < MOSTLY * max(len(a), len(b)):
        print("warning: A and B were tested on different splits; what follows holds for the clips of both alone")
    first, second = ((table["label"] == table["prediction"])[clips].to_numpy() for table in (a, b))
    print(f"A: {names.a}, accuracy {first.mean():.3f}\nB: {names.b}, accuracy {second.mean():.3f}")
    groups = groups_of(names.b, clips)
    if groups is None:
        print("warning: no data/splits.csv of B is at hand; clips of one group are taken for strangers")
    print(verdict(first, second, groups))


if __name__ == "__main__":
    run(main)
