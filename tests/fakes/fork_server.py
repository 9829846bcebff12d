"""Run Python programs as forks of a process that has imported their libraries, which takes most of their time.

Each program is a separate process with its environment, folder and output. huggingface_hub is not among the libraries:
it reads the environment when it is imported.
"""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path

TIMEOUT = 300  # seconds
LIBRARIES = (
    *("httpx2", "networkx", "pandas", "pyarrow.parquet", "pydantic", "scipy.ndimage", "soundfile", "soxr", "tqdm"),
    *("jinja2", "torch", "yaml"),
)


def run_python(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Run `python <arguments>` in the current folder: `-m module ...` or `-c code ...`.

    Returns:
        Exit status and output, both streams.
    """
    server = _start_server()
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        job = {"arguments": arguments, "env": env, "folder": str(Path.cwd()), "output": output.name}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        status = server.stdout.readline()
        return int(status), output.read()


@cache
def _start_server() -> subprocess.Popen[str]:
    """Start the server. It ends with this process, which closes its standard input."""
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> None:
    """Fork for each line of standard input, and print the exit status."""
    for library in LIBRARIES:
        import_module(library)
    assert "huggingface_hub" not in sys.modules
    gc.freeze()  # or the garbage collection of each fork copies all memory
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            signal.alarm(TIMEOUT)
            # Not sys.exit, which takes half a second to free all libraries.
            os._exit(_run(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _run(arguments: list[str], env: dict[str, str], folder: str, output: str) -> int:
    """Run a program in this process, and return its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), stream)
    kind, program, *sys.argv[1:] = arguments
    sys.path[:1] = [folder, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
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
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve()
