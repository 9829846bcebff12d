"""The script runs, and the committed weights are complete."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from transformers import AutoFeatureExtractor, HubertForSequenceClassification, HubertModel

from stages.download.dataset.synthetic_music import GENRES
from tools.pretrain import __main__ as tool
from tools.pretrain.__main__ import compose_clip, draw_masks, pretrain, train
from tools.pretrain.filter_bank import BANDS, LIMIT, SAMPLING_RATE, make_config, write_filter_bank

CHECKPOINT = ROOT / "pretrained/hubert-tiny-music"


def filter_bank() -> HubertModel:
    model = HubertModel(make_config())
    write_filter_bank(model)
    return model.eval()


@pytest.mark.slow
def test_two_steps(tmp_path: Path) -> None:
    pretrain(tmp_path, clips=2, steps=2, seed=0)
    model = HubertModel.from_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).sampling_rate == SAMPLING_RATE
    for name, weight in filter_bank().feature_extractor.named_parameters():
        assert torch.equal(model.get_parameter(f"feature_extractor.{name}").half(), weight.half())


@pytest.mark.parametrize("option", ["--clips=0", "--steps=0", "--seed=-1", f"--seed={2**32}"])
def test_invalid_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setattr("sys.argv", ["tool", str(tmp_path), option])
    with pytest.raises(SystemExit):
        tool.main()
    assert not list(tmp_path.iterdir())


def test_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["tool", str(tmp_path / "file"), "--clips=1", "--steps=1"])
    with pytest.raises(FileExistsError):  # one line in run_command
        tool.main()


def test_share_of_masked_frames() -> None:
    """As the card of the checkpoint states it."""
    share = draw_masks(np.random.default_rng(0), 1000, 124).mean()
    assert f"about {100 * share:.0f}%" in (CHECKPOINT / "README.md").read_text()


def test_masks_are_used() -> None:
    model = filter_bank()
    features = np.zeros((2, 24, model.config.conv_dim[-1]), np.float16)
    assert list(train(model, features, 2 * [np.arange(48).reshape(2, 24)], steps=1, seed=0)) == [1]
    assert model.masked_spec_embed.grad.abs().sum() > 0


def test_committed_checkpoint() -> None:
    model, loaded = HubertForSequenceClassification.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert {name.partition(".")[0] for name in loaded["missing_keys"]} <= {"projector", "classifier"}
    assert not loaded["unexpected_keys"]
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 1_300_000


@torch.no_grad()
def test_filter_bank_is_logarithmic() -> None:
    noise = torch.randn(1, SAMPLING_RATE, generator=torch.Generator().manual_seed(0))
    levels = [filter_bank().feature_extractor(noise * 10 ** (dB / 20))[0, :BANDS].mean() for dB in (-24, -12, 0)]
    assert 0 < levels[0] < levels[1] < levels[2] < LIMIT
    assert abs((levels[2] - levels[1]) / (levels[1] - levels[0]) - 1) < 0.6


def test_clips_are_normalised_and_differ() -> None:
    clips = [compose_clip(GENRES[0], (0, number)) for number in range(2)]
    assert np.allclose([clip.std() for clip in clips], 1, atol=1e-3)
    assert not np.array_equal(*clips)
