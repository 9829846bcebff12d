"""Export models to ONNX, and classify with them, with and without torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ROOT, TINY, error_of, set_params, sha256_of, tone, write_tiny_model

from stages.common.tables import read_json
from tools import export
from tools.classify import __main__ as classify

pytestmark = pytest.mark.slow

ARCHITECTURES = ["hubert", "wav2vec2", "wavlm", "ast", "whisper"]
WITHOUT_TORCH = """
import importlib.util, sys
from tools.classify.__main__ import main
for model in sys.argv[1:]:
    sys.argv = ["classify", "in", "--model", model, "--window", "0.7", "--out", model + ".csv", "--top", "3"]
    main()
assert importlib.util.find_spec("torch") is None
"""


def write_model(architecture: str, folder: Path) -> None:
    """Write a tiny classifier of three labels with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    if architecture in ("ast", "whisper"):
        write_tiny_model(architecture)
        base = Path("models/base")
        transformers.AutoModelForAudioClassification.from_pretrained(base, num_labels=3).save_pretrained(base)
        base.rename(folder)
        return
    sizes: dict[str, Any] = TINY["download.model.config"] | {"use_weighted_layer_sum": architecture == "wavlm"}
    config = transformers.AutoConfig.for_model(architecture, num_labels=3, **sizes)
    transformers.AutoModelForAudioClassification.from_config(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, by architecture, their exports in onnx/, and recordings in in/."""
    top = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        for architecture in ARCHITECTURES:
            write_model(architecture, top / architecture)
            patch.setattr("sys.argv", ["export", "--model", f"./{architecture}", "--out", f"onnx/{architecture}"])
            export.main()
    (top / "in").mkdir()
    for number, seconds in enumerate([0.5, 1.0, 2.6]):
        soundfile.write(top / f"in/{number}.wav", tone(seconds, hz=300 * (number + 1)), 22_050)
    return top


def read_results(file: str) -> pd.DataFrame:
    return pd.read_csv(file).sort_values(["file", "start"], ignore_index=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_classify_as_pytorch(
    architecture: str, exported: Path, run_tool: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(exported)
    options = ("in", "--window", "0.7", "--top", "3", "--batch-size", "3", "--threads", "1", "--out")
    tables = []
    for name, model in [("torch", f"./{architecture}"), ("onnx", f"onnx/{architecture}/onnx/model.onnx")]:
        run_tool(classify, *options, f"{tmp_path}/{name}.csv", "--model", model)
        tables.append(read_results(f"{tmp_path}/{name}.csv"))
    assert len(tables[0]) == 1 + 2 + 4
    assert tables[0]["probability"].nunique() > 1
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-5)


def test_without_torch(exported: Path, tmp_path: Path, run_tool: Callable[..., str], monkeypatch: Any) -> None:
    """All models, in a Python that has no torch."""
    packages = Path(np.__file__).parents[1]
    for entry in packages.iterdir():
        if not entry.name.startswith(("torch", "functorch", "nvidia", "triton", "accelerate", "__editable__")):
            (tmp_path / entry.name).symlink_to(entry)
    models = [f"onnx/{architecture}" for architecture in ARCHITECTURES]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-S", "-c", WITHOUT_TORCH, *models]
    done = subprocess.run(command, cwd=exported, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(exported)
    for model in models:
        out = f"{tmp_path}/{Path(model).name}.csv"
        run_tool(classify, "in", "--window", "0.7", "--top", "3", "--threads", "1", "--out", out, "--model", model)
        # Whisper's spectrogram differs in the last bits.
        pd.testing.assert_frame_equal(read_results(f"{model}.csv"), read_results(out), rtol=0, atol=1e-3)


def test_int8_report(finished: Path, run_tool: Callable[..., str], monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(finished)
    output = run_tool(export, "--int8", "--threads", "1", "--out", str(tmp_path / "out"))
    first, _, *rows, last = output.splitlines()
    assert float(first.split("at most ")[1].split(",")[0]) < 1e-5
    assert [row[:12].strip() for row in rows] == ["PyTorch", "ONNX", "ONNX, int8"]
    table = np.array([row[12:].replace("%", "").split() for row in rows], float)
    metrics = read_json(finished / "metrics/metrics.json")
    assert table[:2, 1].tolist() == [round(metrics["accuracy"], 3)] * 2
    assert table[:2, 2].tolist() == [100, 100]
    assert table[2, 2] >= 70
    assert (table[:, 3] > 0).all()
    assert last.startswith(f"{metrics['n']} test clips")
    files = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    configs = {"config.json", "preprocessor_config.json", "training.json"}
    assert files == {*configs, "onnx/model.onnx", "onnx/model_quantized.onnx"}
    published = finished / "models/published"
    assert all(sha256_of(tmp_path / "out" / name) == sha256_of(published / name) for name in configs)


def test_publish_writes_the_same_file(
    copied: Path, run_tool: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has no path of this machine."""
    from stages.publish.__main__ import main as publish

    set_params(copied, {"publish.onnx": True})
    publish()
    run_tool(export, "--out", str(tmp_path / "out"))
    content = Path("models/published/onnx/model.onnx").read_bytes()
    assert content == (tmp_path / "out/onnx/model.onnx").read_bytes()
    for path in (ROOT, copied, Path(np.__file__).parents[1], Path.home()):
        assert str(path).encode() not in content
    assert b"stack_trace" not in content


def test_refused(finished: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(finished)

    def run(tool: ModuleType, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["tool", *arguments])
        return error_of(tool.main)

    assert "set publish.onnx: true" in run(export, "--out", "models/published")
    model = str(exported / "onnx/hubert")
    assert "is an ONNX file already" in run(export, "--model", model, "--out", str(tmp_path))
    assert "leave out --precision" in run(classify, "data/raw", "--model", model, "--precision", "bf16")
    (tmp_path / "config.json").write_bytes((exported / "hubert/config.json").read_bytes())
    (tmp_path / "x.onnx").write_bytes(b"no model")
    assert "ONNX Runtime cannot open it" in run(classify, "data/raw", "--model", str(tmp_path / "x.onnx"))
    monkeypatch.setattr("stages.publish.onnx_export.TOLERANCE", 0.0)
    assert "more than 0" in run(export, "--out", str(tmp_path / "out"))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
