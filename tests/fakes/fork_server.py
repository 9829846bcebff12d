"""Run Python programs as forks of a process that has imported their libraries, which takes most of their time.

Each program is a separate process with its environment, folder and output. There are three servers. That of the Hub's
tests does not import huggingface_hub, which reads the environment when it is imported. That of the stages imports it,
and all libraries that train and evaluate use. That of DVC imports DVC with its client for S3. The processes of
pytest-xdist share them, and are themselves forks of that of the stages.
"""

import atexit
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread

from filelock import FileLock

TIMEOUT = 300  # seconds
LIGHT = (
    *("httpx2", "networkx", "pandas", "pyarrow.parquet", "pydantic", "scipy.ndimage", "soundfile", "soxr", "tqdm"),
    *("jinja2", "torch", "yaml"),
)
LIBRARIES = {
    "dvc": (
        *("dvc.cli.parser", "dvc.fs.data", "dvc.repo.experiments", "dvc.repo.reproduce", "dvc.repo.stage"),
        *("dvc.stage.loader", "dulwich.porcelain", "dvc_s3", "networkx", "pygit2", "s3fs"),
    ),
    "hub": (
        *LIGHT,
        # What huggingface_hub and Transformers import.
        *("PIL.Image", "anyio", "filelock", "fsspec", "multiprocess", "packaging.version", "pathspec", "regex"),
        *("ruamel.yaml", "safetensors", "scipy.stats", "sklearn.metrics", "tokenizers", "torch._dynamo"),
        *("torch.distributed.tensor", "trio", "truststore", "xxhash"),
    ),
    "stages": (
        *LIGHT,
        *("accelerate", "datasets", "dvclive", "evaluate", "matplotlib.pyplot", "scipy.signal", "scipy.stats"),
        *("sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection", "torch.utils.tensorboard"),
        *("transformers.trainer", "transformers.models.auto.modeling_auto"),
        "transformers.models.hubert.modeling_hubert",
        # Only the tests use it. It asks the garbage collection what refers to an object, so import it before gc.freeze.
        "hypothesis.strategies",
    ),
}
# Without the site module, it starts in hundredths of a second.
CLIENT = """#!{python} -ISs
import json, os, signal, socket, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the fork, and then this ends
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"."], [0, 1, 2])
job = {{"arguments": {first!r} + sys.argv[1:], "env": dict(os.environ), "folder": os.getcwd(), "worker": {worker}}}
server.sendall(json.dumps(job).encode() + b"\\n")
sys.exit(int(server.makefile().read() or 1))
"""


def run_python(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Run `python <arguments>` in the current folder, without huggingface_hub: `-m module ...` or `-c code ...`.

    Returns:
        Exit status and output, both streams.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output, socket.socket(socket.AF_UNIX) as server:
        server.connect(start_server("hub"))
        with Path(os.devnull).open() as nothing:
            socket.send_fds(server, [b"."], [nothing.fileno(), output.fileno(), output.fileno()])
        job = {"arguments": arguments, "env": env, "folder": str(Path.cwd()), "worker": False}
        server.sendall(json.dumps(job).encode() + b"\n")
        with server.makefile() as answer:
            status = int(answer.read() or 1)
        output.seek(0)
        return status, output.read()


@cache
def make_python(kind: str = "stages") -> Path:
    """Write a program `python`, which runs the stages as forks, and return its folder. kind: dvc for tools with DVC."""
    return _make_program("python", kind)


@cache
def make_dvc() -> Path:
    """Write a program `dvc`, which runs DVC as forks, and return its folder."""
    return _make_program("dvc", "dvc", "-m", "dvc")


def make_worker() -> Path:
    """Write a program `python` for the processes of pytest-xdist, which have no time limit, and return its path.

    The other servers start at the same time: each imports on one core.
    """
    _find_folder()  # before the threads, which would make several
    for kind in LIBRARIES:
        Thread(target=start_server, args=[kind], daemon=True).start()
    return _make_program("python", "stages", worker=True) / "python"


def _make_program(name: str, kind: str, *first: str, worker: bool = False) -> Path:
    address = start_server(kind)
    folder = Path(tempfile.mkdtemp(dir=Path(address).parent))
    program = CLIENT.format(python=sys.executable, address=address, first=list(first), worker=worker)
    (folder / name).write_text(program)
    (folder / name).chmod(0o755)
    return folder


@cache
def start_server(kind: str) -> str:
    """Start a server, if it does not run yet, and return its address."""
    owner, folder = _find_folder()
    address = Path(folder, kind)
    with FileLock(f"{address}.lock"):
        if not address.exists():
            command = [sys.executable, __file__, kind, str(address), owner]
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            server.stdout.close()
            server.returncode = 0  # it ends after this process, so nobody waits for it
    return str(address)


def _find_folder() -> tuple[str, str]:
    """Return the process after whose end the servers end, and their folder."""
    if "FORK_SERVERS" not in os.environ:  # this is the process of pytest, not one of pytest-xdist
        os.environ["FORK_SERVERS"] = f"{os.getpid()} {tempfile.mkdtemp(prefix='fork-servers-')}"
    owner, folder = os.environ["FORK_SERVERS"].split(" ", 1)
    return owner, folder


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _serve(kind: str, address: str, owner: str) -> None:
    """Fork for each connection, until the process `owner` ends."""
    os.environ["MPLBACKEND"] = "agg"  # as evaluate sets it; matplotlib reads it when it is imported
    for library in LIBRARIES[kind]:
        import_module(library)
    assert (kind == "stages") == ("huggingface_hub" in sys.modules)
    if not _is_running(int(owner)):
        return  # another server may have removed the folder
    gc.collect()
    gc.freeze()  # or the garbage collection of each fork copies all memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes the forks that ended
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends pytest, and then this ends
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while _is_running(int(owner)):
            if not select.select([listener], [], [], 1)[0]:
                continue
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, interrupt)
                listener.close()
                status = _run(connection)
                connection.sendall(str(status).encode())
                # Not sys.exit, which takes half a second to free all libraries.
                os._exit(0)
            connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def _end_with_client(connection: socket.socket) -> None:
    """End this process if the program that started it is killed: pytest-xdist does so after Ctrl-C, and then waits."""
    connection.recv(1)
    os._exit(1)


def _run(connection: socket.socket) -> int:
    """Run a program in this process, and return its exit status."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        job = json.loads(lines.readline())
    if job["worker"]:
        Thread(target=_end_with_client, args=[connection], daemon=True).start()
    else:
        signal.alarm(TIMEOUT)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["env"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # pytest-xdist gives Python the option -u first, which changes nothing here.
    kind, program, *sys.argv[1:] = job["arguments"][job["arguments"][0] == "-u" :]
    sys.path[:1] = [job["folder"], *filter(None, job["env"].get("PYTHONPATH", "").split(os.pathsep))]
    status = 0
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        status = 1
        traceback.print_exc()
    if job["worker"]:
        atexit._run_exitfuncs()  # they remove folders that several tests used
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve(*sys.argv[1:])
