"""Functions that the tests share: workspaces, DVC and git, clips, and errors."""

import atexit
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from fakes.fork_server import make_dvc, make_python
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from stages.common.errors import InvalidParamsError, UserError
from stages.common.stage import run_command

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PARTS = [
    "stages",
    "data/labels",
    "data/tables",
    "presets",
    "pretrained",
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
]
# Files whose fixtures take long to make -> the group whose tests one process of pytest-xdist runs. Its own marker for
# this, xdist_group, has no effect with pytest 9.2 (seen with pytest-xdist 3.8).
ALONE = {
    "tests/evaluate/test_report.py": "report",
    "tests/resample_encode/test_ray_shards.py": "ray",
    "tests/publish/test_space.py": "page",  # Gradio takes seconds to import
    "tests/test_other_tasks.py": "page",
    "tests/tools/test_export.py": "export",
    "tests/tools/test_page.py": "page",
    "tests/tools/test_sweep.py": "ray",
    "tests/train/test_ray_nodes.py": "ray",
}
TINY_CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8, 8],
    "conv_kernel": [400, 4],
    "conv_stride": [160, 4],
    "feat_extract_norm": "layer",
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}
# A model that is trained with all its parts, unlike that of the demo.
RANDOM_WEIGHTS: dict[str, Any] = {
    "download.model": {"source": "random_weights", "config": TINY_CONFIG},
    "resample_encode.cache": "input",
    "train.freeze": "none",
}
# The demo with fewer and shorter clips, and a smaller model with random weights: every stage runs in seconds.
TINY = RANDOM_WEIGHTS | {
    "download.dataset.clips_per_label": 4,
    "download.dataset.seconds": 1.0,
    "split.test_size": 0.25,
    "split.validation_size": 0.25,
    "train.threads": 1,  # two busy processes on two cores wait for each other's threads
    "evaluate.threads": 1,
    "evaluate.calibrate": False,  # these models are near chance, so a temperature would make all labels alike
    "train.epochs": 3,
    "train.batch_size": 2,
    "train.window_seconds": 0.5,
    "train.learning_rate": 0.003,  # as for all random weights
    "train.head_learning_rate": None,
}


ARCHITECTURES = ["wav2vec2", "hubert", "wavlm", "ast", "whisper"]
# For parametrize: the code of Wav2Vec2 and WavLM is that of HuBERT, but for details.
EACH_ARCHITECTURE = [
    pytest.param(name, marks=pytest.mark.rare) if name in {"wav2vec2", "wavlm"} else name for name in ARCHITECTURES
]
# The key `answer` of metrics.json.
ANSWER: dict[str, Any] = {
    "temperature": 1.25,
    "threshold": 0.45,
    "background": "x",
    "coverage": 0.5,
    "accuracy": 0.9,
    "log_loss_before": 0.6,
    "calibration_error_before": 0.2,
    "background_clips": 8,
    "let_through": 0.125,
    "let_through_as": [{"label": "y", "n_clips": 1}],
    "curve": [
        {"threshold": 0.45, "coverage": 0.5, "accuracy": 0.9, "let_through": 0.125},
        {"threshold": 0.0, "coverage": 1.0, "accuracy": 0.7, "let_through": 0.5},
    ],
    "validation_clips": 7,
    "validation_background_clips": 3,
}


# Names that some program takes for more than text: markup, formulas, numbers, nothing.
HARD_NAMES = [
    "$x_1$",
    "a$b",
    "_x",
    "\\frac",
    "<b>&\"'x",
    "a|b",
    "`a`",
    "``",
    "---",
    "# x",
    "[x](y)",
    "**x**",
    "&amp;",
    "- x",
]
HARD_NAMES += [
    "{{ x }}",
    "{% x",
    "=1+1",
    "+1",
    "-x",
    "@x",
    "'=x",
    "NA",
    "null",
    "true",
    "001",
    "1e5",
    "1. x",
    " x ",
    "a  b",
]
HARD_NAMES += [
    "a\nb",
    "a\r\nb",
    "\tx",
    "a\x01b",
    "\ufffe",
    "a,b",
    "items",
    "日本語",
    "🎸",
    "👩‍🎤",
    "हिन्दी",
    "عربي",
    "x" * 255,
    "é" * 127,
]


def names() -> st.SearchStrategy[str]:
    """Names of clips and labels: all that a file system holds, and often a hard one."""
    letters = st.characters(codec="utf-8", exclude_characters="/\0")
    text = st.text(letters, min_size=1, max_size=60).filter(lambda name: name not in {".", ".."})
    return st.sampled_from(HARD_NAMES) | text


def set_params(folder: Path, values: dict[str, Any]) -> None:
    """Change dotted keys of a workspace's params.yaml; None in place of a section's key sets null."""
    path = folder / "params.yaml"
    params = yaml.load(path.read_text(), yaml.CSafeLoader)
    for key, value in values.items():
        *sections, last = key.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[last] = copy.deepcopy(value)
    path.write_text(yaml.dump(params, Dumper=yaml.CSafeDumper, sort_keys=False))


def find_programs(path: str, fork: bool, server: str = "stages") -> str:
    """Return the value of PATH with this test's Python and DVC first. fork, server: as in `dvc`."""
    folders = [Path(sys.executable).parent]
    if fork:
        folders = [make_dvc(), make_python(server), *folders]
    return os.pathsep.join([*map(str, folders), path])


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    """Return a mark that skips tests if a package is missing. It does not import the package, which takes seconds."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"the extra {extra} is not installed")


def dvc(
    folder: Path,
    *arguments: str,
    check: bool = True,
    env: dict[str, str] | None = None,
    fork: bool | None = None,
    server: str = "stages",
) -> str:
    """Run real DVC in a workspace, with this test's Python first on the path; its output, both streams.

    Args:
        fork: run DVC and the stages as forks of processes that have imported their libraries. By default, if env is not
            given.
        server: the fork server of the stages. That of the Hub is needed if env changes what huggingface_hub reads.
    """
    fork = env is None if fork is None else fork
    env = dict(env or os.environ) | {"COLUMNS": "400"}
    env["PATH"] = find_programs(env["PATH"], fork, server)
    done = subprocess.run(["dvc", *arguments], cwd=folder, env=env, text=True, capture_output=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, text=True, capture_output=True).stdout


@cache
def _make_template() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            # Also what Python has compiled, or each process of a test compiles it; but not what it is writing.
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copyfile(source, target)
    set_params(folder, TINY)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    git(folder, "gc", "-q")  # hundreds of tests copy it, so it should have few files
    return folder


def make_workspace(folder: Path) -> Path:
    """Write the project with tiny params, under git."""
    return Path(shutil.copytree(_make_template(), folder, dirs_exist_ok=True))


def user_error(main: Callable[[], object]) -> UserError:
    """Return the UserError that a call raises."""
    with pytest.raises(UserError) as found:
        main()
    return found.value


def problems(main: Callable[[], object]) -> dict[str | None, str]:
    """Return the messages of InvalidParamsError by key."""
    error = user_error(main)
    assert isinstance(error, InvalidParamsError)
    return {problem.key: str(problem) for problem in error.problems}


def error_of(main: Callable[[], None]) -> str:
    """Return the one line with which a stage ends on invalid input."""
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    message = str(stop.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def count_blas_threads() -> int:
    """Return the largest number of threads with which NumPy or SciPy multiplies matrices, or skip the test."""
    counts = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    if not counts:
        pytest.skip("the BLAS of this machine, such as Apple's, does not tell its number of threads")
    return max(counts)


@contextmanager
def memory_for(clips: int) -> Iterator[None]:
    """Simulate out-of-memory errors above n clips."""
    import torch
    from transformers import HubertForSequenceClassification

    original = HubertForSequenceClassification.forward

    @wraps(original)  # the Trainer reads the signature
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args[0] if args else kwargs["input_values"]) > clips:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, *args, **kwargs)

    HubertForSequenceClassification.forward = forward
    try:
        yield
    finally:
        HubertForSequenceClassification.forward = original


def tone(seconds: float = 1.0, sampling_rate: int = 22_050, hz: float = 440.0) -> np.ndarray:
    """float32, shape (samples,)."""
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def write_clips(folder: Path, labels: tuple[str, ...] = ("a", "b"), number: int = 4, seconds: float = 1.0) -> Path:
    """A folder of <label>/<label>.<number>.wav, every clip another tone."""
    for i, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for n in range(number):
            samples = tone(seconds, hz=200 + 40 * n + 300 * i)
            soundfile.write(folder / label / f"{label}.{n:05d}.wav", samples, 22_050)
    return folder


def sha256_of(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path in the folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def change_config(**values: object) -> None:
    """Change keys of the base model's config.json."""
    from stages.common.tables import read_json, write_json

    path = Path("models/base/config.json")
    write_json(path, read_json(path) | values)


def write_tiny_model(architecture: str, folder: Path = Path("models/base"), layers: int = 1) -> None:
    """Write a tiny model with random weights: of ARCHITECTURES, by default as base model."""
    import transformers

    model: Any
    extractor: Any
    if architecture == "whisper":
        sizes = {"encoder_layers": layers, "encoder_attention_heads": 2, "encoder_ffn_dim": 8}
        sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8}
        ids = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        config = transformers.WhisperConfig(d_model=8, num_mel_bins=8, max_source_positions=100, **sizes, **ids)
        model = transformers.WhisperModel(config)
        extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    elif architecture == "ast":
        sizes = {"hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 8}
        model = transformers.ASTModel(transformers.ASTConfig(num_mel_bins=16, max_length=64, **sizes))
        extractor = transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=64)
    else:
        name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[architecture]
        config = getattr(transformers, f"{name}Config")(**TINY_CONFIG | {"num_hidden_layers": layers})
        model = getattr(transformers, f"{name}Model")(config)
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=architecture != "wav2vec2")
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)


def finetuned_weights() -> dict[str, Any]:
    """Return the tensors of the fine-tuned model, by name."""
    from transformers import AutoModelForAudioClassification

    return AutoModelForAudioClassification.from_pretrained("models/finetuned").state_dict()


def epoch_losses() -> np.ndarray:
    """Return the losses of training and of evaluation: float64, shape (epochs, 2)."""
    from stages.common.tables import read_epochs

    return read_epochs(Path("metrics/train"))[["train_loss", "eval_loss"]].to_numpy()


def simulate_t4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a GPU of compute capability 7.5, which only emulates bf16: the instructions came with 8.0."""
    from types import SimpleNamespace

    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7, minor=5))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
