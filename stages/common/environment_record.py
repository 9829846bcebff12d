"""Record in metrics/environment.json with what each stage ran: versions, CPU, GPU, precision, threads and seconds.

The file is in git and no output of dvc.yaml, so other versions or another machine make no stage run again. An entry is
replaced only if the outputs of its stage changed. So the same result on another day leaves the file as it is. No output
depends on this module, so dvc.yaml does not list it.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.common.inputs import list_outputs
from stages.common.params import read_file
from stages.common.paths import ENVIRONMENT

# Modules whose version can change an output, with the name of their package if it is another one.
LIBRARIES = {
    name: name
    for name in (
        *("accelerate", "datasets", "evaluate", "huggingface_hub", "matplotlib", "numpy", "pandas"),
        *("pyarrow", "safetensors", "scipy", "soundfile", "soxr", "tokenizers", "torch", "transformers"),
    )
} | {"sklearn": "scikit-learn", "PIL": "pillow"}

# Of runs that were killed, and whose work this run goes on from.
earlier_seconds: list[float] = []


def record_environment(stage: str, seconds: float) -> None:
    """Replace the entry of a stage if its outputs changed. A failure is only a warning.

    Args:
        stage: name in dvc.yaml, e.g. `download@model`.
        seconds: that the stage took, without those in `earlier_seconds`.
    """
    if stage == "check":  # its output is constant
        return
    try:
        outputs = list_outputs(stage)
        if not outputs:
            return
        hashes = {output.as_posix(): hash_output(output) for output in sorted(outputs)}
        entries = read_entries(ENVIRONMENT)
        if entries.get(stage, {}).get("outputs") == hashes:
            return
        entry = describe_environment(stage) | {"outputs": hashes, "seconds": round(seconds + sum(earlier_seconds), 1)}
        text = json.dumps(entries | {stage: entry}, indent=2, sort_keys=True) + "\n"
        partial = ENVIRONMENT.with_name(f".{ENVIRONMENT.name}.{os.getpid()}.partial")
        try:
            partial.parent.mkdir(exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(ENVIRONMENT)
        finally:
            partial.unlink(missing_ok=True)
    except Exception as error:  # whatever it is, the outputs are complete
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        message = f"warning: {ENVIRONMENT}: the entry of {stage} was not written: {reason}"
        print(f"{message}; to make the file again, delete it", file=sys.stderr)


def read_entries(file: Path) -> dict[str, dict[str, Any]]:
    """Read the entries by the name of their stage. There are none if there is no file.

    Raises:
        ValueError: the file has another content.
    """
    if not file.exists():
        return {}
    entries = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError("not a mapping of stages")
    return entries


def hash_output(output: Path) -> str:
    """Return the hash of a file or folder that dvc.lock has: the MD5 of the file, or of the list of the files."""
    if output.is_file():
        return _md5(output)
    files = sorted((file for file in output.rglob("*") if file.is_file()), key=lambda file: file.as_posix())
    with ThreadPoolExecutor() as pool:
        sums = pool.map(_md5, files)
        listed = [{"md5": md5, "relpath": file.relative_to(output).as_posix()} for md5, file in zip(sums, files)]
    return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def describe_environment(stage: str) -> dict[str, Any]:
    """Return what the results of a stage depend on besides params, code and data.

    Of torch, only if the stage has imported it: GPU, CUDA, the instructions that it uses, precision and threads.
    """
    loaded = {package for name, package in LIBRARIES.items() if name in sys.modules}
    entry: dict[str, Any] = {
        "python": platform.python_version(),
        "libraries": {package: metadata.version(package) for package in sorted(loaded)},
        "platform": " ".join(filter(None, (platform.system(), platform.machine(), *platform.libc_ver()))),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if stage not in ("resample_encode", "train", "evaluate") or torch is None:
        return entry
    section = read_file().get(stage)
    params = section if isinstance(section, dict) else {}
    entry["instructions"] = torch.backends.cpu.get_cpu_capability()
    entry["threads"] = params.get("threads") or torch.get_num_threads()
    entry["precision"] = _find_precision(stage, params.get("precision", "fp32"))
    if torch.cuda.is_available():
        entry |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count(), "cuda": torch.version.cuda}
    elif torch.backends.mps.is_available():
        entry["gpu"] = "Apple MPS"
    return entry


def _find_precision(stage: str, precision: str) -> str:
    """Return the precision that `auto` stands for on this device."""
    device = sys.modules.get("stages.common.device")  # an import would make it a dependency of all stages
    if precision != "auto" or device is None:
        return precision
    if device.has_bf16():
        return "bf16"
    return "fp16" if stage == "train" and device.find_device() == "cuda" else "fp32"


def _cpu_model() -> str:
    """Return the name of the CPU, or its architecture where the system has no name."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
