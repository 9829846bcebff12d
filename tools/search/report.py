"""Evaluate the winner of a search and the committed params on the test clips, and write the report."""

import json
from collections.abc import Iterator

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from stages.common.errors import UserError
from stages.common.paths import SELECTION_CLIPS
from tools import compare
from tools.revisions import groups_of, read_predictions
from tools.search.gain import MIN_CLIPS, corrected_gain
from tools.search.runs import EVALUATE, TRAIN, Runner, read_all_params
from tools.search.study import SETTINGS, find_winner, list_overrides, list_trials
from tools.search.trials import REASON, list_folds

STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}


def evaluate(runner: Runner, study: optuna.Study) -> str:
    """Run complete experiments of the winner and of the committed params, and return the report as Markdown.

    What was run before is not run again.

    Raises:
        UserError: no trial is finished, or an experiment failed.
    """
    winner = find_winner(study)
    if winner is None:
        raise UserError("no trial finished, so there is no winner")
    name, folds = study.study_name, study.user_attrs[SETTINGS]["folds"]
    complete = {}
    for role, overrides in (("committed", []), ("winner", list_overrides(winner.params))):
        print(f"{name}-{role}: started, complete, with the test clips", flush=True)
        complete[role] = _run(runner, f"{name}-{role}", overrides, EVALUATE)
    committed = [complete["committed"]]
    if folds:
        listed = list_folds(f"{name}-committed", folds)
        committed = [_run(runner, experiment, overrides, TRAIN) for experiment, overrides in listed]
    lines = [*_describe_winner(study, winner), *_describe_gain(runner, study, winner, committed)]
    return "\n".join([*lines, *_describe_test(**complete), *_list_trials(study), ""])


def _run(runner: Runner, name: str, overrides: list[str], target: str) -> str:
    try:
        return runner.run(name, overrides, target)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _describe_winner(study: optuna.Study, winner: FrozenTrial) -> Iterator[str]:
    name, trials = study.study_name, study.get_trials(deepcopy=False)
    counts = {word: sum(trial.state == state for trial in trials) for state, word in STATES.items()}
    listed = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    yield from (f"# Search {name}", "")
    yield f"The winner is {name}-{winner.number}, the best on the validation clips. Trials: {listed}."
    yield from ("", "| key | winner | committed |", "|---|---|---|")
    committed = read_all_params([])
    for override in list_overrides(winner.params):
        key, _, value = override.partition("=")
        before = committed.get(key)
        # As in params.yaml: null, true.
        yield f"| {key} | {value} | {before if isinstance(before, str) else json.dumps(before)} |"
    yield ""


def read_correct(revisions: list[str]) -> pd.Series:
    """Return whether each validation clip was classified correctly, indexed by clip. revisions: of all folds."""
    table = pd.concat([read_predictions(revision, path=SELECTION_CLIPS) for revision in revisions])
    return (table["label"] == table["prediction"]).sort_index()


def _describe_gain(runner: Runner, study: optuna.Study, winner: FrozenTrial, committed: list[str]) -> Iterator[str]:
    folds = study.user_attrs[SETTINGS]["folds"]
    base = read_correct(committed)
    found = {}
    for trial in list_trials(study, TrialState.COMPLETE):
        drawn = list_overrides(trial.params)
        parts = list_folds(f"{study.study_name}-{trial.number}", folds)
        # One that was removed runs again, from DVC's cache.
        found[trial.number] = read_correct([_run(runner, name, [*drawn, *fold], TRAIN) for name, fold in parts])
        if not found[trial.number].index.equals(base.index):
            raise UserError(f"{study.study_name}-{trial.number} has other validation clips than the committed params")
    yield from describe_gain(pd.DataFrame(found), winner.number, base, groups_of(committed[0], base.index), folds)


def describe_gain(
    trials: pd.DataFrame, winner: int, committed: pd.Series, groups: np.ndarray | None, folds: int | None
) -> Iterator[str]:
    """Yield lines about the validation accuracy.

    Args:
        trials: bool, whether each clip was classified correctly, a column for each trial. winner: its column.
        committed: the same for the committed params.
        groups: an id for each clip, or None.
    """
    column = int(np.flatnonzero(trials.columns == winner)[0])
    gain, low, high = corrected_gain(trials.to_numpy(), committed.to_numpy(), groups, column)
    number = len(trials) if groups is None else len(set(groups))
    where = f"{len(trials)} validation clips" + (f" of {number} groups" if number < len(trials) else "")
    where += f" in {folds} folds" if folds else ""
    best, base = trials[winner].mean(), committed.mean()
    yield f"- Validation accuracy, on {where}: winner {best:.3f}, committed {base:.3f}."
    interval = f"{100 * gain:+z.1f} points (95% {100 * low:+z.1f} to {100 * high:+z.1f})"
    yield (
        f"- Gain on the validation clips, corrected for the choice (finished trials: {trials.shape[1]}): {interval}; "
        f"not corrected {100 * (best - base):+z.1f}."
    )
    if groups is None:
        yield "- data/splits.csv is not available, so all clips were treated as independent."
    if number < MIN_CLIPS:
        few = f"{number} independent validation clips are too few to measure a gain: with fewer than {MIN_CLIPS}, "
        yield f"- {few}even a large one can be chance."


def _describe_test(committed: str, winner: str) -> Iterator[str]:
    a, b = read_predictions(committed), read_predictions(winner)
    clips = compare.shared(a, b)
    first, second = ((table["label"] == table["prediction"])[clips].to_numpy() for table in (a, b))
    yield (
        f"- Test accuracy, on {len(clips)} clips that the search did not use: winner {second.mean():.3f}, committed "
        f"{first.mean():.3f}."
    )
    sentence = compare.verdict(first, second, groups_of(winner, clips))
    yield f"- On the test clips, A is committed and B the winner: {sentence}."


def _list_trials(study: optuna.Study) -> Iterator[str]:
    trials = study.get_trials(deepcopy=False)
    keys = sorted({key for trial in trials for key in trial.params})
    yield from ("", "| trial | validation accuracy | " + " | ".join(keys) + " |", "|---" * (len(keys) + 2) + "|")
    for trial in sorted(trials, key=lambda one: (one.state != TrialState.COMPLETE, -(one.value or 0), one.number)):
        done = trial.state == TrialState.COMPLETE and trial.value is not None
        result = f"{trial.value:.3f}" if done else STATES.get(trial.state, "open")
        values = dict(override.split("=", 1) for override in list_overrides(trial.params))
        yield (
            f"| {study.study_name}-{trial.number} | {result} | "
            + " | ".join(values.get(key, "") for key in keys)
            + " |"
        )


def list_failures(study: optuna.Study) -> list[str]:
    """Return a line for each failed trial."""
    failed = list_trials(study, TrialState.FAIL)
    return [f"{study.study_name}-{trial.number}: {trial.user_attrs.get(REASON, 'failed')}" for trial in failed]
