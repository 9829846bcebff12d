"""Run a function in several processes on the machines of a Ray cluster, with Ray Train. They share each batch.

All machines must see the folder of the project at the same path. The code of the stages travels through Ray.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal, TypeVar

# Neither torch nor `ranks`: in a worker, `mark_rank` comes before them.
from stages.common import interrupts
from stages.common.environment import mark_rank
from stages.common.errors import MAX_REASON, UserError, printable
from stages.common.ray_cluster import connected  # before ray

# isort: split
import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")
TEMPORARY = Path(".dvc/tmp")  # DVC's folder for such files; git ignores it
STREAMS = ("stdout", "stderr")
STOP = "stop"  # file that asks the workers to save a checkpoint and end
POLL_SECONDS = 0.5
# Variables RAY_TRAIN_*, unless the user set them.
SETTINGS = {
    "ENABLE_PRINT_PATCH": "0",  # it would write to Ray's log only
    "ENABLE_PREEMPTION_WATCHER": "0",  # a process that is of use only if Ray starts workers again
    "WORKER_GROUP_START_TIMEOUT_S": "600",  # waits for free CPUs or GPUs
}
GO_ON = "run dvc repro to go on from the last checkpoint"


def count_workers(address: str, wanted: int | Literal["auto"], threads: int | None) -> tuple[int, str]:
    """Return the number of workers for train.processes, and the name of their device.

    With auto, it is the number of the cluster's GPUs, which is 0 if it has none.

    Raises:
        UserError: the cluster has fewer GPUs or, if it has none, fewer CPUs; or there is no cluster.
    """
    with connected(address):
        nodes = [node["Resources"] for node in _list_nodes()]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    names = {name.partition(":")[2] for node in nodes for name in node if name.startswith("accelerator_type:")}
    device = ", ".join(sorted(names)) if gpus else "cpu"
    if wanted == "auto":
        return gpus, device
    each = threads or 1
    most = gpus or sum(int(node.get("CPU", 0) / each) for node in nodes)
    if most < wanted:
        enough = f"{gpus} GPUs" if gpus else f"CPUs for {most} processes of {each} threads"
        raise UserError(f"{wanted}, but the Ray cluster has {enough}; lower it", key="train.processes")
    return wanted, device


def run(function: Callable[..., T], arguments: tuple[Any, ...], workers: int, address: str, threads: int | None) -> T:
    """Return what the function returns in the first worker. What this worker prints is shown.

    Each worker works in the folder of the project, with a GPU if the cluster has any, and with CPUs.

    Raises:
        UserError: a worker raised it, or ended by itself; or a machine does not see the folder.
        RuntimeError: a worker ran out of memory.
    """
    from stages.train.ranks import raise_reported

    for name, value in SETTINGS.items():
        os.environ.setdefault(f"RAY_TRAIN_{name}", value)
    with connected(address), _shared_folder() as folder, interrupts.defer_signals((folder / STOP).touch):
        trainer = TorchTrainer(
            _run_worker,
            train_loop_config={
                "project": str(Path.cwd()),
                "folder": str(folder),
                "call": ray.cloudpickle.dumps((function, arguments)),
            },
            scaling_config=_choose_resources(workers, threads),
            run_config=RunConfig(
                name="train",
                storage_path=str(folder),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            ),
        )
        try:
            with _output_shown(folder), ThreadPoolExecutor(1) as pool:
                # In the main thread, Ray would replace the handler of Ctrl-C.
                result: T = pool.submit(trainer.fit).result().return_value
                return result
        except (TrainingFailedError, RayError) as error:
            raise_reported(folder)
            if number := interrupts.find_request():
                interrupts.end(number, GO_ON)
            raise UserError(f"a process on the Ray cluster ended: {_shorten(error)}; {GO_ON}") from None


def _choose_resources(workers: int, threads: int | None) -> ScalingConfig:
    gpu = "GPU" in ray.cluster_resources()
    resources = {"CPU": threads or 1} | ({"GPU": 1} if gpu else {})
    return ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=resources)


def _shorten(error: BaseException) -> str:
    """Return the part of Ray's message that says most: the first sentence of the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1].partition(". ")[0], MAX_REASON) if lines else type(error).__name__


def _list_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """Make a temporary folder in the project that all machines see, and remove it at the end.

    Raises:
        UserError: a machine does not see it.
    """
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TEMPORARY.absolute(), prefix="ray-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        for name in STREAMS:
            (folder / name).touch()
        interrupts.unfinished.append(folder)
        try:
            see = ray.remote(num_cpus=0)(os.path.exists)
            nodes = {node["NodeManagerHostname"]: node["NodeID"] for node in _list_nodes()}
            at = {name: NodeAffinitySchedulingStrategy(node, soft=False) for name, node in nodes.items()}
            seen = {name: see.options(scheduling_strategy=node).remote(made) for name, node in at.items()}
            if blind := [name for name, found in seen.items() if not ray.get(found)]:
                fix = "share the folder of the project at this path, or set train.processes: 1"
                raise UserError(f"not seen by {', '.join(sorted(blind))} of the Ray cluster; {fix}", file=Path.cwd())
            yield folder
        finally:
            interrupts.unfinished.remove(folder)


@contextmanager
def _output_shown(folder: Path) -> Iterator[None]:
    """Show what the first worker writes to its streams."""
    done = threading.Event()
    thread = threading.Thread(target=_show_output, args=[folder, done])
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show_output(folder: Path, done: threading.Event) -> None:
    shown = dict.fromkeys(STREAMS, 0)
    while True:
        last = done.wait(POLL_SECONDS)
        for name in STREAMS:
            with (folder / name).open("rb") as file:  # opened again, because it may be on another machine
                file.seek(shown[name])
                new = file.read()
            shown[name] += len(new)
            stream = getattr(sys, name)
            stream.write(new.decode(errors="replace"))
            stream.flush()
        if last:
            return


def _run_worker(config: dict[str, Any]) -> Any:
    """Call the function in a worker."""
    mark_rank()
    folder = Path(config["folder"])
    with chdir(config["project"]), ExitStack() as stack:
        if os.environ["RANK"] == "0":
            threading.Thread(target=interrupts.await_stop, args=[folder / STOP], daemon=True).start()
            for name, redirect in zip(STREAMS, (redirect_stdout, redirect_stderr)):
                file = stack.enter_context((folder / name).open("a", buffering=1, encoding="utf-8"))
                stack.enter_context(redirect(file))
        from stages.train.ranks import report_errors

        function, arguments = ray.cloudpickle.loads(config["call"])
        return report_errors(function, arguments, folder)
