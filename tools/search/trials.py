"""Run the trials of a search."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from stages.common.errors import UserError
from tools.search.runs import TRAIN, FailedRunError, Runner, StoppedError, read_epochs_so_far, read_selection
from tools.search.space import Space
from tools.search.study import SETTINGS, draw, list_overrides, list_trials

REASON = "reason"  # user attribute of a failed trial


def list_folds(name: str, folds: int | None) -> list[tuple[str, list[str]]]:
    """Return the experiments of a trial: name, and the overrides that choose its validation clips."""
    if folds is None:
        return [(name, [])]
    number = f"split.validation_folds={folds}"
    return [(f"{name}-fold{fold}", [number, f"split.validation_fold={fold}"]) for fold in range(folds)]


def read_validation_accuracy(revision: str) -> float:
    """Return the validation accuracy of an experiment.

    Raises:
        UserError: the test clips selected its best epoch.
    """
    selection = read_selection(revision)
    if selection["selected_on"] != "validation":
        raise UserError("there are no validation clips, so a search would choose on the test clips; see split")
    return float(selection["best_epoch_accuracy"])


class Trials:
    """The trials of a study, which run in threads.

    Args:
        space: what to draw. total: number of trials, with those of earlier runs.
    """

    def __init__(self, study: optuna.Study, space: Space, runner: Runner, total: int) -> None:
        self.study, self.space, self.runner, self.total = study, space, runner, total
        settings = study.user_attrs[SETTINGS]
        self.folds, self.prune = settings["folds"], settings["prune"]
        self._interrupted = list_trials(study, TrialState.RUNNING)
        self._lock = threading.Lock()

    def run(self, jobs: int) -> None:
        """Run all trials that are not finished. jobs: number at the same time.

        When it is interrupted, the trainings end first; the next search goes on with them.
        """
        with ThreadPoolExecutor(jobs) as pool:
            workers = [pool.submit(self._work) for _ in range(jobs)]
            try:
                for worker in as_completed(workers):
                    worker.result()
            except BaseException as error:
                self.runner.interrupted.set()
                if isinstance(error, KeyboardInterrupt):
                    print("ending the trainings; the same command goes on with them", flush=True)
                raise

    def _work(self) -> None:
        while not self.runner.interrupted.is_set():
            with self._lock:
                if self._interrupted:
                    trial = draw(self.study, self.space, self._interrupted.pop(0))
                elif len(self.study.get_trials(deepcopy=False)) < self.total:
                    trial = draw(self.study, self.space)
                else:
                    return
            self._run_trial(trial)

    def _run_trial(self, trial: Trial) -> None:
        name, started = f"{self.study.study_name}-{trial.number}", time.monotonic()
        print(f"{name}: started, {', '.join(list_overrides(trial.params))}", flush=True)
        try:
            accuracy = self._measure(trial, name)
        except FailedRunError as error:
            trial.set_user_attr(REASON, str(error))
            self._finish(trial, None, TrialState.FAIL)
            print(f"{name}: {error}", flush=True)
        except optuna.TrialPruned:
            self._finish(trial, None, TrialState.PRUNED)
            print(f"{name}: stopped early after {time.monotonic() - started:.0f} s", flush=True)
        except StoppedError:
            pass  # it stays open, and runs again with the same values
        else:
            self._finish(trial, accuracy, TrialState.COMPLETE)
            seconds = time.monotonic() - started
            print(f"{name}: finished in {seconds:.0f} s, validation accuracy {accuracy:.3f}", flush=True)

    def _finish(self, trial: Trial, accuracy: float | None, state: TrialState) -> None:
        with self._lock:
            self.study.tell(trial, accuracy, state)

    def _measure(self, trial: Trial, name: str) -> float:
        """Return the mean validation accuracy over the folds.

        Raises:
            optuna.TrialPruned: the pruner stopped the trial.
        """
        report, found = self._make_report(trial), list[float]()
        for experiment, overrides in list_folds(name, self.folds):

            def watch(project: Path) -> bool:
                return report(read_epochs_so_far(project))

            by_epoch = self.prune and self.folds is None
            try:
                overrides = list_overrides(trial.params) + overrides
                revision = self.runner.run(experiment, overrides, TRAIN, watch if by_epoch else None)
            except StoppedError:
                if self.runner.interrupted.is_set():
                    raise
                raise optuna.TrialPruned from None
            found.append(read_validation_accuracy(revision))
            means = [float(np.mean(found[: number + 1])) for number in range(len(found))]
            if self.prune and self.folds and len(found) < self.folds and report(means):
                raise optuna.TrialPruned
        return float(np.mean(found))

    def _make_report(self, trial: Trial) -> Callable[[list[float]], bool]:
        """Return a function that reports the values so far, and returns whether the pruner stops the trial."""
        [frozen] = [one for one in self.study.get_trials(deepcopy=False) if one.number == trial.number]
        known = set(frozen.intermediate_values)  # of an interrupted run

        def report(values: list[float]) -> bool:
            new = [step for step in range(len(values)) if step not in known]
            with self._lock:
                for step in new:
                    known.add(step)
                    trial.report(values[step], step)
                return bool(new) and trial.should_prune()

        return report
