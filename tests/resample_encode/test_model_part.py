from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from helpers import change_config, set_params, user_error, write_tiny_model
from transformers import AutoFeatureExtractor, AutoModel

from stages.common.audio import load_audio
from stages.common.paths import BASE, ENCODED, RAW
from stages.resample_encode.__main__ import main


@pytest.mark.slow
def test_cached_feature_encoder_output(copied: Path) -> None:
    set_params(copied, {"resample_encode.cache": "feature_encoder"})
    main()
    rows = load_from_disk(ENCODED).with_format("numpy")
    base = AutoModel.from_pretrained(BASE).eval()
    extractor = AutoFeatureExtractor.from_pretrained(ENCODED)
    label = rows.features["label"].int2str(int(rows[5]["label"]))
    samples = load_audio(RAW / f"audio/{label}/{rows[5]['clip']}.wav", 16_000)
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = base.feature_extractor(inputs["input_values"])[0].T.numpy()
    np.testing.assert_allclose(rows[5]["extract_features"], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_bf16_is_close_to_fp32(copied: Path) -> None:
    set_params(copied, {"resample_encode.cache": "feature_encoder"})
    found = []
    for precision in ("fp32", "bf16"):
        set_params(copied, {"resample_encode.precision": precision})
        main()
        rows = load_from_disk(ENCODED).with_format("numpy")
        found.append(np.stack([row["extract_features"] for row in rows]).astype(np.float32))
    error = np.abs(found[1] - found[0]).mean() / np.abs(found[0]).mean()
    assert 0 < error < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("part", "column"), [("base", "last_hidden_state"), ("layers", "hidden_states")])
def test_base_that_returns_tuples(copied: Path, part: str, column: str) -> None:
    """Old configs have return_dict: false."""
    found = []
    for change in ({}, {"return_dict": False}):
        change_config(**change)
        set_params(copied, {"resample_encode.cache": part})
        main()
        found.append(load_from_disk(ENCODED).with_format("numpy")[0][column])
    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.slow
def test_devices_share_the_clips(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices, here twice the CPU, encode the same as one."""
    set_params(copied, {"resample_encode.cache": "base"})
    found = []
    for devices in (["cpu"], ["cpu", "cpu"]):
        monkeypatch.setattr("stages.resample_encode.model_part.find_devices", lambda devices=devices: devices)
        main()
        found.append(np.stack([row["last_hidden_state"] for row in load_from_disk(ENCODED).with_format("numpy")]))
    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.slow
def test_part_the_model_lacks(copied: Path) -> None:
    write_tiny_model("ast")
    set_params(copied, {"resample_encode.feature_extractor": {}, "resample_encode.cache": "base"})
    error = user_error(main)
    assert error.key == "resample_encode.cache"
    assert "audio-spectrogram-transformer" in str(error)
