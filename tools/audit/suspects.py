"""Rank the clips whose labels are probably wrong."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from tools.audit.probabilities import OutOfFold

NEIGHBOURS = 10  # clips whose distance makes an outlier
FAR = 3.0  # interquartile ranges above the third quartile of these distances: Tukey's "far out"
REPETITION, CONFIDENT, DIFFERENT, OUTLIER = "repetition", "confident learning", "other prediction", "outlier"


class Suspect(NamedTuple):
    """A row of suspects.csv.

    label: the present one. suggested: another; "" if there is none. score: from 0 to 1, the worst. reason: one of the
    four above, and for a repetition the other clip.
    """

    clip: str
    label: str
    suggested: str
    score: float
    reason: str


def rank_suspects(
    folds: OutOfFold, clips: pd.DataFrame, repetitions: pd.DataFrame, distances: np.ndarray
) -> list[Suspect]:
    """Return one row for each suspicious clip, the most suspicious first.

    Recordings that have several labels come first, since one of the labels must be wrong. Then come labels that
    confident learning finds wrong, other wrong predictions, and outliers.

    Args:
        clips: columns clip and label. repetitions: columns clip and recording.
        distances: of each clip to its neighbours, as `measure_distances` returns them.
    """
    listed = find_repetitions(clips, repetitions) + find_wrong_labels(folds) + find_outliers(clips, distances)
    first: dict[str, Suspect] = {}
    for suspect in listed:
        first.setdefault(suspect.clip, suspect)
    return list(first.values())


def find_repetitions(clips: pd.DataFrame, repetitions: pd.DataFrame) -> list[Suspect]:
    """Return the clips whose recording occurs with another label, which is suggested if most of its clips have it."""
    table = repetitions.merge(clips[["clip", "label"]], on="clip")
    suspects = []
    for _, group in table.groupby("recording", sort=False):
        counts = group["label"].value_counts()
        if len(counts) < 2:
            continue
        for clip, label in zip(group["clip"], group["label"]):
            others = group[group["label"] != label]
            is_frequent = counts[label] > counts.drop(label).max()
            suggested = "" if is_frequent else others["label"].mode()[0]
            reason = f"{REPETITION} of {others['clip'].iloc[0]}, which is {others['label'].iloc[0]}"
            suspects.append(Suspect(clip, label, suggested, 1.0, reason))
    return suspects


def find_wrong_labels(folds: OutOfFold) -> list[Suspect]:
    """Return the clips with another prediction, those that confident learning finds first, by their label's quality.

    The score is (1 - p + q) / 2 for the probabilities p of the label and q of the best other label.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(folds.given, folds.probabilities, method="normalized_margin")
    found = find_label_issues(folds.given, folds.probabilities, filter_by="low_normalized_margin", n_jobs=1)
    predicted = folds.probabilities.argmax(axis=1)
    rows = np.flatnonzero(found | (predicted != folds.given))
    rows = rows[np.lexsort((quality[rows], ~found[rows]))]
    return [
        Suspect(
            folds.clips[row],
            folds.labels[folds.given[row]],
            folds.labels[predicted[row]] if predicted[row] != folds.given[row] else "",
            float(1 - quality[row]),
            CONFIDENT if found[row] else DIFFERENT,
        )
        for row in rows
    ]


def measure_distances(features: np.ndarray) -> np.ndarray:
    """Return the mean distance of each clip to its nearest neighbours, in float64. features: (clips, features)."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(features)
    search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(scaled) - 1)).fit(scaled)
    distances, _ = search.kneighbors()  # without the clip itself
    return distances.mean(axis=1).astype(float)


def find_outliers(clips: pd.DataFrame, distances: np.ndarray) -> list[Suspect]:
    """Return the clips that are far from all others, the farthest first. The score is the share of nearer clips."""
    low, high = np.quantile(distances, [0.25, 0.75])
    far = np.flatnonzero(distances > high + FAR * (high - low))
    far = far[np.argsort(-distances[far], kind="stable")]
    shares = [float((distances < distances[row]).mean()) for row in far]
    return [
        Suspect(clips["clip"].iloc[row], clips["label"].iloc[row], "", share, OUTLIER)
        for row, share in zip(far, shares)
    ]
