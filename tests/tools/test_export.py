"""Export models to ONNX, and classify with them, with and without torch."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import ROOT, TINY_CONFIG, digests, error_of, set_params, sha256_of, tone, user_error, write_tiny_model

from stages.common.tables import read_json, write_json
from tools import export
from tools.classify import __main__ as classify

pytestmark = pytest.mark.slow

# The others take up to ten seconds each, so their tests are rare.
ARCHITECTURES = ["ast"]
DEMO = "demo"  # the base model of the demo, whose filter bank amplifies rounding
WITHOUT_TORCH = """
import importlib.util, sys
from tools.classify.__main__ import main
for model in sys.argv[1:]:
    sys.argv = ["classify", "in", "--model", model, "--window", "0.7", "--top", "3", "--out", f"{model}.csv"]
    main()
assert importlib.util.find_spec("torch") is None
"""


def write_model(architecture: str, folder: Path) -> None:
    """Write a tiny classifier of three labels with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    if architecture == DEMO:
        base = ROOT / "pretrained/hubert-tiny-music"
        transformers.AutoModelForAudioClassification.from_pretrained(base, num_labels=3).save_pretrained(folder)
        shutil.copyfile(base / "preprocessor_config.json", folder / "preprocessor_config.json")
        return
    if architecture in {"ast", "whisper"}:
        write_tiny_model(architecture)
        base = Path("models/base")
        transformers.AutoModelForAudioClassification.from_pretrained(base, num_labels=3).save_pretrained(base)
        base.rename(folder)
        return
    sizes: dict[str, Any] = TINY_CONFIG | {"use_weighted_layer_sum": architecture == "wavlm"}
    config = transformers.AutoConfig.for_model(architecture, num_labels=3, **sizes)
    transformers.AutoModelForAudioClassification.from_config(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exported models, recordings (in/), and what the tool printed for the model of `finished`."""
    top = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.chdir(finished)
        patch.setattr("sys.argv", ["export", "--int8", "--threads", "1", "--out", str(top / "finished")])
        export.main()
        (top / "printed.txt").write_text(output.getvalue())
        patch.chdir(top)
        for architecture in ARCHITECTURES:
            write_model(architecture, Path(f"{architecture}-torch"))
            patch.setattr("sys.argv", ["export", "--model", f"{architecture}-torch", "--out", architecture])
            export.main()
    (top / "in").mkdir()
    for number, seconds in enumerate([0.5, 1.0, 2.6]):
        soundfile.write(top / f"in/{number}.wav", tone(seconds, hz=300 * (number + 1)), 22_050)
    return top


def classify_recordings(model: Path, out: Path) -> pd.DataFrame:
    """Classify in/ in windows, and return the rows in a fixed order."""
    options = ["in", "--window", "0.7", "--top", "3", "--batch-size", "3", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["classify", *options, "--model", str(model), "--out", str(out)])
        classify.main()
    return read_results(out)


def read_results(file: Path) -> pd.DataFrame:
    return pd.read_csv(file).sort_values(["file", "start"], ignore_index=True)


def check_same(torch_model: Path, onnx: Path, folder: Path) -> None:
    tables = [classify_recordings(model, folder / f"{number}.csv") for number, model in enumerate([torch_model, onnx])]
    assert len(tables[0]) == 1 + 2 + 4
    assert tables[0]["probability"].nunique() > 1
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-5)


def test_classify_as_pytorch(exported: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a folder, and with a file."""
    monkeypatch.chdir(exported)
    check_same(finished / "models/published", exported / "finished", tmp_path)
    for architecture in ARCHITECTURES:
        (tmp_path / architecture).mkdir()
        file = exported / architecture / "onnx/model.onnx"
        check_same(exported / f"{architecture}-torch", file, tmp_path / architecture)


@pytest.mark.rare
@pytest.mark.parametrize("architecture", ["wav2vec2", "wavlm", "whisper", DEMO])
def test_other_architectures(
    architecture: str, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(exported)
    write_model(architecture, tmp_path / "model")
    monkeypatch.setattr("sys.argv", ["export", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    export.main()
    if architecture != DEMO:  # the probabilities of which differ by more
        check_same(tmp_path / "model", tmp_path / "out", tmp_path)
    check_comparison(tmp_path / "model", tmp_path / "out/onnx/model.onnx", tmp_path)


def test_classify_without_torch(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a Python whose packages are all but torch."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(np.__file__).parents[1].iterdir():
        if not entry.name.startswith(("torch", "functorch", "nvidia", "triton", "accelerate", "__editable__")):
            (packages / entry.name).symlink_to(entry)
    models = ["finished", *ARCHITECTURES]
    env = os.environ | {"PYTHONPATH": f"{packages}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-S", "-c", WITHOUT_TORCH, *models]
    done = subprocess.run(command, cwd=exported, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "PyTorch" not in done.stderr
    monkeypatch.chdir(exported)
    for model in models:
        expected = classify_recordings(exported / model, tmp_path / f"{model}.csv")
        # The spectrograms of Whisper and AST differ in the last bits.
        pd.testing.assert_frame_equal(
            read_results(Path(f"{model}.csv")), expected, rtol=0, atol=1e-3, check_exact=False
        )


def test_int8_report(exported: Path, finished: Path) -> None:
    first, _, *rows, last = (exported / "printed.txt").read_text().splitlines()
    assert float(first.split("at most ")[1].split(" of")[0]) < 1e-5
    assert [row[:12].strip() for row in rows] == ["PyTorch", "ONNX", "ONNX, int8"]
    table = np.array([row[12:].replace("%", "").split() for row in rows], float)
    metrics = read_json(finished / "metrics/metrics.json")
    assert table[:2, 1].tolist() == [round(metrics["accuracy"], 3)] * 2
    assert table[:2, 2].tolist() == [100, 100]
    assert table[2, 2] >= 70
    assert (table[:, 3] > 0).all()
    assert last.startswith(f"{metrics['n_clips']} test clips")


def test_configs_of_an_earlier_model_are_removed(exported: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(exported / "finished", tmp_path / "out"))
    before = digests(out)
    export.copy_configs(out, tmp_path / "out/../out")
    assert digests(out) == before
    export.copy_configs(exported / "ast-torch", out)
    assert not (out / "training.json").exists()
    for name in ("config.json", "preprocessor_config.json"):
        assert sha256_of(out / name) == sha256_of(exported / "ast-torch" / name)


def test_background_is_no_test_clip(copied: Path) -> None:
    clips = export.list_test_clips()
    label = clips[0].label
    source = read_json(Path("data/raw/source.json"))
    write_json(Path("data/raw/source.json"), source | {"background": label})
    assert export.list_test_clips() == [clip for clip in clips if clip.label != label] != []


def test_files(exported: Path, finished: Path) -> None:
    """The folder can be a repository of the Hub. The model has no path of this machine."""
    configs = {"config.json", "preprocessor_config.json", "training.json"}
    assert set(digests(exported / "finished")) == {*configs, "onnx/model.onnx", "onnx/model_quantized.onnx"}
    for name in configs:
        assert sha256_of(exported / "finished" / name) == sha256_of(finished / "models/published" / name)
    content = (exported / "finished/onnx/model.onnx").read_bytes()
    for path in (ROOT, finished, Path(np.__file__).parents[1], Path.home()):
        assert str(path).encode() not in content
    assert b"stack_trace" not in content


@pytest.mark.rare
def test_publish_writes_the_same_bytes(exported: Path, copied: Path) -> None:
    from stages.publish.__main__ import main as publish

    set_params(copied, {"publish.onnx": True})
    publish()
    written = digests(copied / "models/published")
    assert written["onnx/model.onnx"] == sha256_of(exported / "finished/onnx/model.onnx")


def test_refused(exported: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(finished)

    def run(tool: ModuleType, *arguments: str | Path) -> str:
        monkeypatch.setattr("sys.argv", ["tool", *map(str, arguments)])
        return error_of(tool.main)

    onnx = exported / "finished"
    assert "set publish.onnx: true" in run(export, "--out", "models/published")
    assert "is an ONNX file already" in run(export, "--model", onnx, "--out", tmp_path)
    assert "leave out --precision" in run(classify, "data/raw", "--model", onnx, "--precision", "bf16")
    shutil.copyfile(onnx / "config.json", tmp_path / "config.json")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    assert "ONNX Runtime cannot open it" in run(classify, "data/raw", "--model", tmp_path / "x.onnx")


def transpose_weights(model: Any) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]:
            parameter.data = parameter.data.T.clone()


def skip_normalisation(model: Any) -> None:
    from torch.nn import LayerNorm

    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.forward = lambda hidden: hidden


def check_comparison(folder: Path, file: Path, tmp_path: Path) -> None:
    """Check that a file has ten times less than the allowed difference, and that wrong files are refused."""
    from stages.common.classifier import load_classifier
    from stages.common.configs import load_config, load_extractor
    from stages.publish.onnx_export import TOLERANCE, compare
    from stages.publish.onnx_session import open_session

    extractor, [samples, _] = load_extractor(folder), export.read_samples([], folder)
    name, rate = extractor.model_input_names[0], extractor.sampling_rate
    inputs = [extractor(clip, sampling_rate=rate, return_tensors="np")[name].astype(np.float32) for clip in samples]

    def run_comparison(change: Callable[[Any], None] | None, compared: Path = file) -> float:
        model = load_classifier(folder, load_config(folder), new_head=False).eval()
        if change:
            change(model)
        return compare(model, open_session(compared, 1), inputs, folder)

    assert run_comparison(None) < TOLERANCE / 10
    for change in (transpose_weights, skip_normalisation):
        assert "as ONNX, its logits differ" in str(user_error(partial(run_comparison, change)))
    export.quantise(file, tmp_path / "int8.onnx")
    assert "as ONNX, its logits differ" in str(user_error(partial(run_comparison, None, tmp_path / "int8.onnx")))


@pytest.mark.parametrize("name", ["finished", *ARCHITECTURES])
def test_comparison(name: str, exported: Path, finished: Path, tmp_path: Path) -> None:
    folder = finished / "models/published" if name == "finished" else exported / f"{name}-torch"
    check_comparison(folder, exported / name / "onnx/model.onnx", tmp_path)


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 1000.0])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_limit_of_the_difference(scale: float, offset: float) -> None:
    """It is proportional to the range of the logits; if they are all equal, it is not 0."""
    import torch

    from stages.publish.onnx_export import MIN_RANGE, TOLERANCE, compare

    logits = np.array([[0.0, 1.0], [0.25, 0.5]]) * scale + offset
    model: Any = lambda _: SimpleNamespace(logits=torch.from_numpy(logits))  # noqa: E731
    limit = TOLERANCE * max(scale, MIN_RANGE)

    def run_comparison(difference: float) -> float:
        return compare(
            model, lambda _: logits + np.array([[0, 0], [difference, 0]]), [np.zeros((1, 2), np.float32)], Path("model")
        )

    assert run_comparison(0.9 * limit) == pytest.approx(0.9 * TOLERANCE)
    for difference in (1.1 * limit, np.nan, np.inf):
        assert "as ONNX, its logits differ" in str(user_error(partial(run_comparison, difference)))
