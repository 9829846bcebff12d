"""Get out-of-fold probabilities: each clip's, by a model that was trained without it and without its group."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.paths import BASE, CLIPS, ENCODED, RAW, SPLITS
from stages.common.tables import read_table
from stages.evaluate.baselines import summarize_files
from stages.split.methods import cut_folds
from tools.crossval import find_folds, pool_predictions
from tools.revisions import groups_of, read_predictions, read_tracked

SECONDS = 30.0  # of each clip that the spectrum summarizes
# Inverse strength of the regularization. With 1, the regression fits some of the wrong labels.
C = 0.1


class OutOfFold(NamedTuple):
    """Out-of-fold probabilities.

    clips: names. labels: names, in the order of the columns. given: id of each clip's label, int64 (clips,).
    probabilities: float64 (clips, labels).
    """

    clips: list[str]
    labels: list[str]
    given: np.ndarray
    probabilities: np.ndarray


def read_experiments(named: list[str], clips: pd.DataFrame) -> OutOfFold:
    """Pool the test predictions of the folds of a cross-validation.

    Args:
        named: experiments; if there are none, all of HEAD's with folds.
        clips: columns clip, label and sha256, of data/raw.

    Raises:
        UserError: they are not the folds of one run, or are of other clips, or have no probabilities.
    """
    folds = {name: read_predictions(name, probabilities=True) for name in find_folds(named)}
    if without := [name for name, part in folds.items() if len(part.columns) == 2]:
        raise UserError(f"{without[0]}: its predictions have no probability for each label; run evaluate there again")
    pooled = pool_predictions(folds)
    warn_of_groups(folds)
    labels = [str(column) for column in pooled.columns[2:]]
    current = clips.set_index("clip")["label"]
    used = pooled[pooled.index.isin(current.index) & ~pooled.index.isin(find_changed(folds, clips))]
    used = used[current[used.index].isin(labels).to_numpy()]
    if used.empty:
        raise UserError("the predictions of the experiments are of other clips than data/raw; run the folds again")
    if len(used) < len(current):
        print(f"{len(current) - len(used)} of {len(current)} clips have no test prediction, and are not judged")
    changed = int((current[used.index] != used["label"]).sum())
    if changed:
        print(f"{changed} labels were changed since these experiments; run them again to judge the new labels")
    given = np.array([labels.index(label) for label in current[used.index]])
    return OutOfFold(list(used.index), labels, given, read_probabilities(used[labels]))


def find_changed(folds: dict[str, pd.DataFrame], clips: pd.DataFrame) -> set[str]:
    """Return the clips whose recordings are not those of the experiments: other clips can have the same names."""
    current, changed = clips.set_index("clip")["sha256"], set()
    for name, predictions in folds.items():
        table = read_tracked(name, CLIPS)
        if table is None:
            print(f"DVC's cache lacks the clips of {name}: whether they are those of data/raw was not checked")
            continue
        heard = table.set_index("clip")["sha256"].reindex(predictions.index)
        changed |= set(heard.index[heard != current.reindex(heard.index)])
    return changed


def warn_of_groups(folds: dict[str, pd.DataFrame]) -> None:
    """Print how many clips are in groups that are in several folds, so that the models were trained on the groups."""
    first, numbers = next(iter(folds)), np.repeat(np.arange(len(folds)), [len(part) for part in folds.values()])
    groups = groups_of(first, pd.concat(folds.values()).index)
    if groups is None:
        return
    shared = pd.Series(numbers).groupby(groups).transform("nunique") > 1
    if shared.any():
        print(f"the groups of {shared.sum()} clips are in several folds; split.method: grouped prevents this")


def read_probabilities(cells: pd.DataFrame) -> np.ndarray:
    """Return probabilities as float64. cells: strings, indexed by clip; nan if a fold does not know the label."""
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy()
    valid = np.isclose(np.where(cells.isna(), 0, numbers).sum(axis=1), 1, atol=0.01) & ~(numbers < 0).any(axis=1)
    if not valid.all():
        clip = cells.index[~valid][0]
        raise UserError(f"the probabilities of {clip} in the predictions of the experiments do not sum to 1")
    return normalize(np.where(cells.isna(), 0, numbers))


def normalize(probabilities: np.ndarray) -> np.ndarray:
    """Return rows that sum to one exactly: the tables have rounded values."""
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def cross_validate(clips: pd.DataFrame, features: np.ndarray, groups: np.ndarray, folds: int) -> OutOfFold:
    """Train a logistic regression on the other folds for each fold.

    Args:
        clips: columns clip and label. features: (clips, features). groups: of each clip; none is in two folds.

    Raises:
        UserError: there are fewer groups than folds, or a fold leaves clips of only one label.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels, given = np.unique(clips["label"].to_numpy(dtype=str), return_inverse=True)
    rows = np.arange(len(clips))
    probabilities = np.zeros((len(rows), len(labels)))
    try:
        parts = cut_folds(rows, folds, 0, clips["label"].to_numpy(), groups)
    except ValueError as error:
        raise UserError(f"{error}; set --folds lower, or add clips") from None
    for test in parts:
        train = np.setdiff1d(rows, test)
        lost = ", ".join(labels[np.setdiff1d(given, given[train])])
        if len(set(given[train])) < 2:
            raise UserError(f"all clips of {lost} are in one fold: each label needs clips of several groups")
        if lost:
            print(f"all clips of {lost} are in one fold, so its model does not know this label: all are suspects")
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
        model.fit(features[train], given[train])
        probabilities[np.ix_(test, model.classes_)] = model.predict_proba(features[test])
    return OutOfFold(list(clips["clip"]), list(map(str, labels)), given, probabilities)


def find_groups(clips: pd.DataFrame, repetitions: pd.DataFrame) -> np.ndarray:
    """Return the group of each clip: that of data/splits.csv, else its recording."""
    recordings = clips["clip"].map(repetitions.set_index("clip")["recording"])
    groups = ("recording " + recordings.astype(object)).fillna(clips["clip"])
    if SPLITS.exists():
        known = read_table(SPLITS).set_index("clip")["group"]
        groups = ("group " + clips["clip"].map(known).astype(object)).fillna(groups)
    return groups.to_numpy()


def summarize_clips(clips: pd.DataFrame) -> np.ndarray:
    """Return mean and standard deviation of each clip's log-mel spectrum: float32 (clips, 128)."""
    files = [(RAW / path, sha256) for path, sha256 in zip(clips["path"], clips["sha256"])]
    return summarize_files(files, SECONDS)


def embed_clips(clips: pd.DataFrame) -> np.ndarray:
    """Return the mean of the base model's frames for each clip: float32 (clips, hidden size).

    Raises:
        UserError: data/encoded has other clips or the output of the feature encoder, or the base has no single output.
    """
    from stages.common.configs import load_config
    from stages.common.encoded_clips import StoredFeatures, open_encoded_clips
    from stages.resample_encode.model_part import load_part

    encoded = open_encoded_clips(ENCODED)
    if encoded.cached_part == "feature_encoder":
        message = "it has the output of the feature encoder; set cache: input or base, or leave out --base"
        raise UserError(message, file=ENCODED)
    run = None if encoded.cached_part else load_part(BASE, load_config(BASE), "base", "fp32", workers=1)
    stored = StoredFeatures(encoded.rows, encoded.feature_column, range(len(encoded.rows)))
    frames: dict[str, list[np.ndarray]] = {}
    # If all layers are cached, the output of the base is the last row.
    for clip, features in zip(tqdm(encoded.rows.data.column("clip").to_pylist(), "base model", unit="clip"), stored):
        frames.setdefault(clip, []).append(run(features.astype(np.float32))[0] if run else features[-1])
    if missing := set(clips["clip"]) - set(frames):
        raise UserError(f"it lacks the clip {min(missing)}; run dvc repro", file=ENCODED)
    return np.stack([np.mean(frames[clip], axis=0) for clip in clips["clip"]])
