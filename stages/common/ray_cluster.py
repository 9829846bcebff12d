"""Connect to a Ray cluster. Only modules that are imported if RAY_ADDRESS is set import this one."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import stages
from stages.common.errors import UserError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray would print a paragraph for each lost worker; the stage says it in one line.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^A worker died or was killed")

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    install = "pip install --constraint constraints.txt --editable '.[ray]'"
    raise UserError(f"RAY_ADDRESS is set, but Ray is not installed; {install}, or unset it") from None

CONNECT_SECONDS = 10


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster, and raise what a task raised as it was.

    Args:
        address: as `ray.init` takes it.

    Raises:
        UserError: there is no such cluster.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _require_server(address)
        # py_modules: the workers run this version of the stages.
        modules = {"py_modules": [stages.__path__[0]]}
        ray.init(address, runtime_env=modules, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS is {address}: {error}; start a Ray cluster there, or unset it") from None
    for number, handler in handlers.items():  # Ray replaces that of SIGTERM
        signal.signal(number, handler)
    try:
        yield
    except RayTaskError as error:
        raise error.cause from None
    finally:
        ray.shutdown()


def _require_server(address: str) -> None:
    """Raise OSError if nothing listens at <host>:<port>. Ray would try for ten minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
