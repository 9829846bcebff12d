"""Compare two predictions clip by clip: is B better than A, and by how much?

Each is a CSV file, a git revision, the name of a DVC experiment, or `workspace`. B is better or worse if the 95%
interval of the difference excludes zero. It is Tango's score interval, which does not count clips of a group as
independent, widened to include zero if McNemar's exact test, which needs no large numbers, is not significant.

Run     python -m tools.compare main my-experiment; without the second, the workspace
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from stages.common.errors import UserError
from stages.common.paths import PREDICTIONS
from stages.common.stage import command_parser, run_command
from stages.evaluate.intervals import difference_interval
from tools.revisions import groups_of, read_predictions

MIN_SHARED = 0.9  # warn if fewer than this share of the clips is in both


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Compute McNemar's exact p-value. first, second: bool (clips,), whether each clip was classified correctly."""
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def shared(a: pd.DataFrame, b: pd.DataFrame) -> pd.Index:
    """Return the clips that both have.

    Raises:
        UserError: there are none, or a clip has different labels.
    """
    clips = a.index.intersection(b.index, sort=False)
    if clips.empty:
        raise UserError("A and B share no clip; compare two runs on one data set and split")
    different = clips[a["label"][clips] != b["label"][clips]]
    if len(different):
        clip = different[0]
        raise UserError(
            f"clip {clip} is {a.loc[clip, 'label']} in A and {b.loc[clip, 'label']} in B "
            f"({len(different)} such clips); compare two runs on one data set"
        )
    return clips


def verdict(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> str:
    """Return one sentence about the difference in accuracy, B - A, on the same clips.

    Args:
        first, second: bool (clips,), whether each clip was classified correctly, of A and B.
        groups: an id for each clip, or None.
    """
    difference = second.mean() - first.mean()
    low, high = difference_interval(first, second, groups)
    p = mcnemar(first, second)
    if p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    tested = f"McNemar p = {p:.2g}; {len(first)} clips"
    if groups is not None and len(set(groups)) < len(groups):
        tested += f" in {len(set(groups))} groups (McNemar's test ignores groups)"
    if low <= 0 <= high:
        interval = f"{100 * difference:+.1f} points (95% {100 * low:z.1f} to {100 * high:z.1f}; {tested})"
        return f"no significant difference: B - A = {interval}"
    word, near, far = ("better", low, high) if difference > 0 else ("worse", -high, -low)
    interval = f"{100 * abs(difference):.1f} points (95% {100 * near:.1f} to {100 * far:.1f}; {tested})"
    return f"B is {word} than A by {interval}"


def main() -> None:
    """Print the result."""
    parser = command_parser("tools.compare", __doc__)
    parser.add_argument("a", help="a predictions.csv, a git revision, an experiment or workspace")
    parser.add_argument("b", nargs="?", default=str(PREDICTIONS), help="same for B; default: the workspace")
    names = parser.parse_args()
    a, b = read_predictions(names.a), read_predictions(names.b)
    clips = shared(a, b)
    if len(clips) < max(len(a), len(b)):
        print(
            f"warning: ignoring {len(a) - len(clips)} clips that only A has and {len(b) - len(clips)} that only B has"
        )
    if len(clips) < MIN_SHARED * max(len(a), len(b)):
        print("warning: A and B were tested on different splits; the result is of their common clips only")
    first, second = ((table["label"] == table["prediction"])[clips].to_numpy() for table in (a, b))
    print(f"A: {names.a}, accuracy {first.mean():.3f}\nB: {names.b}, accuracy {second.mean():.3f}")
    groups = groups_of(names.b, clips)
    if groups is None:
        print("warning: no data/splits.csv of B is available; treating all clips as independent")
    print(verdict(first, second, groups))


if __name__ == "__main__":
    run_command(main)
