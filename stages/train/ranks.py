"""Run a function in several processes that share each batch, one for each GPU, with torch's elastic launcher."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from accelerate.utils.memory import should_reduce_batch_size
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from stages.common import interrupts
from stages.common.device import count_gpus, describe_device
from stages.common.environment import use_all_gpus
from stages.common.errors import UserError

T = TypeVar("T")
OUT_OF_MEMORY = "out of memory"
STOP = "stop"  # file that asks the processes for a checkpoint
STEPS_TO_AGREE = 5
GO_ON = "run dvc repro to go on from the last checkpoint"


class Launcher(NamedTuple):
    """How to run a function in processes that share each batch.

    run: gets the function and its arguments, and returns what it returns in the first process.
    """

    run: Callable[[Callable[..., Any], tuple[Any, ...]], Any]
    processes: int
    device: str


def choose_launcher(wanted: int | Literal["auto"], threads: int | None) -> Launcher:
    """Choose a Ray cluster if RAY_ADDRESS is set, unless its processes are one or none, and else this machine.

    Raises:
        UserError: there are fewer GPUs or CPUs, or there is no such cluster.
    """
    if (address := os.environ.get("RAY_ADDRESS")) and wanted != 1:
        from stages.train import ray_nodes

        workers, device = ray_nodes.count_workers(address, wanted, threads)
        if workers > 1:
            return Launcher(partial(ray_nodes.run, workers=workers, address=address, threads=threads), workers, device)
    processes = count_processes(wanted)
    return Launcher(partial(run, processes=processes), processes, describe_device())


def count_processes(wanted: int | Literal["auto"]) -> int:
    """Return the number of processes for train.processes: auto is one for each visible GPU, and one without a GPU.

    Raises:
        UserError: there are fewer GPUs.
    """
    gpus = count_gpus()
    if wanted == "auto":
        return max(1, gpus)
    if 0 < gpus < wanted:
        raise UserError(f"{wanted}, but this machine has {gpus} visible GPUs; set auto", key="train.processes")
    return wanted


def run(function: Callable[..., T], arguments: tuple[Any, ...], processes: int) -> T:
    """Return what the function returns in the first process. With one process, this process calls it.

    Raises:
        UserError: a process raised it, or ended by itself.
        RuntimeError: a process ran out of memory.
    """
    if processes == 1:
        return function(*arguments)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # If a signal ends the stage, Python would warn of semaphores that the system then removes.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    with _folder_for_reports() as logs, use_all_gpus(), interrupts.defer_signals((logs / STOP).touch):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="train",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle="SIGQUIT",  # the others are handled here
            logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
        )
        try:
            return elastic_launch(config, _run_rank)(function, arguments, logs)[0]
        except ChildFailedError as error:
            raise_reported(logs)
            if number := interrupts.find_request():
                interrupts.end(number, GO_ON)
            raise _explain(error) from None


@contextmanager
def _folder_for_reports() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        interrupts.unfinished.append(Path(made))
        try:
            yield Path(made)
        finally:
            interrupts.unfinished.remove(Path(made))


def _run_rank(function: Callable[..., T], arguments: tuple[Any, ...], logs: Path) -> T:
    interrupts.prepare_rank(logs / STOP)
    return report_errors(function, arguments, logs)


def report_errors(function: Callable[..., T], arguments: tuple[Any, ...], folder: Path) -> T:
    """Call the function in one of the processes. Write its UserError or lack of memory for `raise_reported`."""
    report = folder / f"error-{os.environ['RANK']}.json"
    try:
        return function(*arguments)
    except UserError as error:
        report.write_text(json.dumps({"message": error.message, "key": error.key, "file": error.file}))
        raise
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error):
            report.write_text(json.dumps({"message": OUT_OF_MEMORY}))
        raise


def raise_reported(folder: Path) -> None:
    """Raise what a process reported in this folder, if any did.

    Raises:
        UserError: a process raised it.
        RuntimeError: a process ran out of memory.
    """
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob("error-*.json"))]
    if reports and reports[0]["message"] == OUT_OF_MEMORY:
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)
    if reports:
        raise UserError(**reports[0])


def agree_on_request(step: int, processes: int, device: torch.device) -> int:
    """Return the number of a signal that asked to end, the same in all processes; 0 to go on.

    They must end at the same step, so several processes ask each other, and only at every fifth step.
    """
    number = interrupts.find_request()
    if processes == 1:
        return number
    if step % STEPS_TO_AGREE:
        return 0
    numbers = torch.tensor(number, device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


def _explain(error: ChildFailedError) -> UserError:
    rank, failure = error.get_first_failure()
    end = failure.signal_name() if failure.exitcode < 0 else f"exit status {failure.exitcode}"
    reason = failure.message if isinstance(failure.message, str) else failure.message.get("message", "")
    detail = f": {' '.join(reason.split())[-300:]}" if failure.exitcode >= 0 else ""
    return UserError(f"process {rank} ended with {end}{detail}; {GO_ON}")
