"""Keep the trials of a search in Optuna's storage, so that an interrupted search goes on."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import optuna
import sqlalchemy.exc
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.trial import FrozenTrial, Trial, TrialState

from stages.common.errors import UserError
from tools.search.space import Space, to_override

SETTINGS, CLOSED = "settings", "closed"  # user attributes of the study


def describe_search(options: Any, space: Space, commit: str) -> dict[str, Any]:
    """Return what all trials of a search have in common: values by name."""
    ranges = {key: json.loads(distribution_to_json(distribution)) for key, distribution in sorted(space.items())}
    settings = {"commit": commit, "space": ranges, "sampler": options.sampler, "seed": options.seed}
    return settings | {"folds": options.folds, "prune": options.prune}


@contextmanager
def opened_study(folder: Path, name: str, settings: dict[str, Any]) -> Iterator[optuna.Study]:
    """Yield the study of a search, a new one or that of an earlier run. No other process uses it inside the block.

    Raises:
        UserError: the search runs already, the earlier one has other settings, or its storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            # A median of fewer finished trials would say little.
            pruner = (
                optuna.pruners.MedianPruner(n_startup_trials=4) if settings["prune"] else optuna.pruners.NopPruner()
            )
            storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
            try:
                study = optuna.create_study(
                    storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
                )
                _compare(study, folder, settings)
                yield study
            finally:
                storage.remove_session()
                storage.engine.dispose()
    except filelock.Timeout:
        raise UserError(f"the search {name} runs already; wait until it ends, or choose another --name") from None
    except (sqlalchemy.exc.DatabaseError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = str(cause).partition("\n")[0]
        fix = f"if it is damaged, remove {folder}, and the experiments {name}-* with dvc exp remove"
        raise UserError(f"cannot be used: {reason}; {fix}", file=folder / "study.db") from None


def _compare(study: optuna.Study, folder: Path, settings: dict[str, Any]) -> None:
    before = study.user_attrs.get(SETTINGS)
    if before is None:
        study.set_user_attr(SETTINGS, settings)
        return
    different = [name for name, value in settings.items() if before.get(name) != value]
    if different:
        fix = f"choose another --name, or remove {folder}"
        raise UserError(f"the search {study.study_name} was started with another {different[0]}; {fix}")


def draw(study: optuna.Study, space: Space, trial: FrozenTrial | None = None) -> Trial:
    """Start a trial, or an interrupted one again: it gets the values that it had.

    The draw depends on the seed, the number of the trial and, with tpe, the results so far, so that a search that goes
    on does not repeat what it has drawn.
    """
    settings = study.user_attrs[SETTINGS]
    number = len(study.get_trials(deepcopy=False)) if trial is None else trial.number
    seed = int(np.random.SeedSequence([settings["seed"], number]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler if settings["sampler"] == "tpe" else optuna.samplers.RandomSampler
    study.sampler = sampler(seed=seed)
    started = study.ask() if trial is None else Trial(study, trial._trial_id)
    for key, distribution in space.items():
        if isinstance(distribution, FloatDistribution):
            started.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
        elif isinstance(distribution, IntDistribution):
            started.suggest_int(key, distribution.low, distribution.high)
        elif isinstance(distribution, CategoricalDistribution):
            started.suggest_categorical(key, distribution.choices)
    return started


def list_overrides(params: dict[str, Any]) -> list[str]:
    """Return the overrides of a trial, for `dvc exp run -S`."""
    return [to_override(key, value) for key, value in params.items()]


def list_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trials in some states, in the order of their numbers."""
    return study.get_trials(deepcopy=False, states=states)


def find_winner(study: optuna.Study) -> FrozenTrial | None:
    """Return the trial with the highest accuracy; of several, the first. None if none is finished."""
    finished = list_trials(study, TrialState.COMPLETE)
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def require_open(study: optuna.Study, trials: int, experiments: dict[str, str]) -> None:
    """Check that a search can start or go on. trials: how many are wanted. experiments: those on the last commit.

    Raises:
        UserError: its winner was evaluated on the test clips, and more trials are wanted; or an earlier search of this
            name, which is no longer in the storage, has left experiments.
    """
    name, drawn = study.study_name, len(study.get_trials(deepcopy=False))
    if CLOSED in study.user_attrs and trials > drawn:
        raise UserError(
            f"the winner of {name} was evaluated on the test clips after {drawn} trials, so there are no more; start "
            "another search with --name"
        )
    left = sorted(
        other for other in experiments if re.fullmatch(rf"{re.escape(name)}-(\d+|winner|committed)(-fold\d+)?", other)
    )
    if not drawn and left:
        raise UserError(
            f"an earlier search {name} left experiments; choose another --name, or: dvc exp remove {' '.join(left)}"
        )


def close(study: optuna.Study) -> None:
    """Note that the winner is evaluated, so that no trial is added. Without a winner, do nothing."""
    if find_winner(study):
        study.set_user_attr(CLOSED, True)
