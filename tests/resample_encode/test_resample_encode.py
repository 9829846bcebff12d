import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import error_of, set_params, write_clips
from datasets import load_from_disk
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from stages.common import audio
from stages.download import download_dataset
from stages.resample_encode import main, ordered

EXTRACTORS = {
    "waveform": Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=True),
    "whisper": WhisperFeatureExtractor(feature_size=8, chunk_length=2),
    "ast": ASTFeatureExtractor(num_mel_bins=16, max_length=64),
}


def put(workspace: Path, extractor: Any, **params: Any) -> None:
    """Clips of mixed lengths, and a base model of which this stage needs the preprocessor config alone."""
    clips = write_clips(workspace / "clips", number=2, seconds=1.0)
    write_clips(clips, labels=("c",), number=2, seconds=2.5)
    set_params(workspace, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    set_params(workspace, {f"resample_encode.{key}": value for key, value in params.items()})
    download_dataset()
    extractor.save_pretrained("models/base")
    Path("models/base/config.json").write_text("{}")


def digests() -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path("data/encoded").iterdir()}


@pytest.mark.parametrize("kind", list(EXTRACTORS))
def test_rows_are_the_feature_extractor_s_own_output_in_float16(workspace: Path, kind: str) -> None:
    extractor = EXTRACTORS[kind]
    put(workspace, extractor, feature_extractor={}, max_seconds=2.0)
    main()
    rows = load_from_disk("data/encoded")
    key = extractor.model_input_names[0]
    assert rows.column_names == ["clip", "label", key]
    assert "float16" in str(rows.features[key])
    assert rows["clip"] == ["a.00000", "a.00001", "b.00000", "b.00001", "c.00000", "c.00001"]
    assert [rows.features["label"].int2str(label) for label in rows["label"]] == list("aabbcc")
    for row in rows.with_format("numpy"):
        label = rows.features["label"].int2str(int(row["label"]))
        samples = audio.load(Path(f"data/raw/audio/{label}/{row['clip']}.wav"), 16_000)[:32_000]
        own = extractor(samples, sampling_rate=16_000, return_tensors="np")[key][0]
        assert own.shape == row[key].shape
        np.testing.assert_array_equal(own.astype(np.float16), row[key].astype(np.float16))


def test_a_second_run_writes_the_same_bytes_whatever_the_workers(workspace: Path) -> None:
    put(workspace, EXTRACTORS["waveform"], workers=1)
    main()
    first = digests()
    set_params(workspace, {"resample_encode.workers": 3})
    main()
    assert digests() == first


def test_settings_of_the_feature_extractor_go_along(workspace: Path) -> None:
    put(workspace, EXTRACTORS["waveform"], feature_extractor={"do_normalize": False})
    main()
    assert json.loads(Path("data/encoded/preprocessor_config.json").read_text())["do_normalize"] is False
    row = load_from_disk("data/encoded").with_format("numpy")[0]["input_values"]
    assert np.abs(row).max() == pytest.approx(0.3, abs=0.01)


def test_a_setting_that_the_feature_extractor_lacks_is_refused(workspace: Path) -> None:
    put(workspace, EXTRACTORS["waveform"], feature_extractor={"do_normalise": True})
    assert "resample_encode.feature_extractor.do_normalise: Wav2Vec2FeatureExtractor has no" in error_of(main)


def test_a_clip_too_short_for_the_model_or_too_loud_for_float16_is_named(workspace: Path) -> None:
    put(workspace, EXTRACTORS["waveform"], feature_extractor={"do_normalize": False})
    Path("models/base/config.json").write_text('{"conv_kernel": [10, 3], "conv_stride": [5, 2]}')
    file = Path("data/raw/audio/b/b.00001.wav")
    soundfile.write(file, np.full(20, 0.1), 22_050)
    message = error_of(main)
    assert "b.00001.wav" in message
    assert "the model needs 20 at least" in message
    soundfile.write(file, np.full(20_000, 1e5), 22_050, subtype="FLOAT")
    assert "b.00001.wav: samples too large for float16" in error_of(main)
    assert not Path("data/encoded").exists()


def test_before_download_it_says_what_to_run(workspace: Path) -> None:
    assert "data/raw/clips.csv is missing; run dvc repro" in error_of(main)


def test_no_more_than_two_results_a_worker_wait() -> None:
    started, done = 0, 0

    def work(item: int) -> int:
        nonlocal started
        started += 1
        assert started - done <= 2 * 3 + 1
        return item

    for done, item in enumerate(ordered(work, range(50), workers=3), start=1):
        assert item == done - 1
