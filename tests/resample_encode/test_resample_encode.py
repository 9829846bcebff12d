from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Dataset, load_from_disk
from helpers import count_blas_threads, digests, set_params, tone, user_error, write_clips
from threadpoolctl import threadpool_limits
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    HubertConfig,
    PreTrainedConfig,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from stages.common.audio import load_audio
from stages.common.paths import BASE, CLIPS, ENCODED, RAW
from stages.common.tables import read_json, read_table, write_table
from stages.download.__main__ import download_dataset
from stages.resample_encode.__main__ import main
from stages.resample_encode.encoder import Encoder

WAVEFORM = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=True)
BASES = {
    "waveform": (WAVEFORM, HubertConfig()),
    "whisper": (WhisperFeatureExtractor(feature_size=8, chunk_length=2), WhisperConfig()),
    "ast": (ASTFeatureExtractor(num_mel_bins=16, max_length=64), ASTConfig()),
}


def prepare(workspace: Path, extractor: Any = WAVEFORM, config: PreTrainedConfig | None = None, **params: Any) -> None:
    """Write clips of several lengths, and the configs of a base model, whose weights are not needed."""
    clips = write_clips(workspace / "clips", number=2, seconds=1.0)
    write_clips(clips, labels=("c",), number=2, seconds=2.5)
    set_params(workspace, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    set_params(workspace, {f"resample_encode.{key}": value for key, value in params.items()})
    download_dataset()
    extractor.save_pretrained(BASE)
    (config or HubertConfig()).save_pretrained(BASE)


def rewrite_clip(file: Path, samples: np.ndarray, subtype: str = "PCM_16") -> None:
    """Replace a clip of data/raw, and its checksum in clips.csv."""
    soundfile.write(file, samples, 22_050, subtype=subtype)
    clips = read_table(CLIPS)
    clips.loc[clips["path"] == str(file.relative_to(RAW)), "sha256"] = digests(file.parent)[file.name]
    write_table(CLIPS, clips)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BASES))
def test_rows_are_feature_extractor_output(workspace: Path, kind: str) -> None:
    extractor, config = BASES[kind]
    prepare(workspace, extractor, config, feature_extractor={}, max_seconds=2.0)
    main()
    rows = load_from_disk(ENCODED)
    column = extractor.model_input_names[0]
    assert rows.column_names == ["clip", "label", column]
    assert "float16" in str(rows.features[column])
    assert rows["clip"] == ["a.00000", "a.00001", "b.00000", "b.00001", "c.00000", "c.00001"]
    assert [rows.features["label"].int2str(label) for label in rows["label"]] == list("aabbcc")
    for row in rows.with_format("numpy"):
        label = rows.features["label"].int2str(int(row["label"]))
        samples = load_audio(RAW / f"audio/{label}/{row['clip']}.wav", 16_000)[:32_000]
        expected = extractor(samples, sampling_rate=16_000, return_tensors="np")[column][0]
        assert expected.shape == row[column].shape
        np.testing.assert_array_equal(expected.astype(np.float16), row[column].astype(np.float16))


@pytest.mark.slow
def test_rows_in_several_files(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    prepare(workspace, workers=1)
    main()
    expected = load_from_disk(ENCODED)[:]
    monkeypatch.setattr("stages.common.encoded_clips.SHARD_CLIPS", 4)
    main()
    assert sorted(file.name for file in ENCODED.glob("*.arrow")) == [
        "data-00000-of-00002.arrow",
        "data-00001-of-00002.arrow",
    ]
    assert load_from_disk(ENCODED)[:] == expected
    sizes = sum(file.stat().st_size for file in ENCODED.glob("*.arrow"))
    assert capsys.readouterr().out.endswith(f"6 clips at 16000 Hz, {sizes / 1e6:.0f} MB\n")


@pytest.mark.slow
def test_workers_change_no_bytes(workspace: Path) -> None:
    prepare(workspace, workers=1)
    main()
    expected = digests(ENCODED)
    set_params(workspace, {"resample_encode.workers": 3})
    main()
    assert digests(ENCODED) == expected


@pytest.mark.slow
def test_each_thread_multiplies_matrices_alone(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the feature extractor of Whisper does. One clip is encoded before the threads start."""
    prepare(workspace)
    encode, counts = Encoder.encode, []

    def count(self: Encoder, row: Any) -> Any:
        counts.append(count_blas_threads())
        return encode(self, row)

    monkeypatch.setattr(Encoder, "encode", count)
    with threadpool_limits(2, "blas"):
        main()
        assert count_blas_threads() == 2
    assert counts == [2, *[1] * 6]


@pytest.mark.slow
def test_feature_extractor_settings(workspace: Path) -> None:
    prepare(workspace, feature_extractor={"do_normalize": False})
    main()
    assert read_json(ENCODED / "preprocessor_config.json")["do_normalize"] is False
    row = load_from_disk(ENCODED).with_format("numpy")[0]["input_values"]
    assert np.abs(row).max() == pytest.approx(0.3, abs=0.01)


def test_unknown_feature_extractor_setting_refused(workspace: Path) -> None:
    prepare(workspace, feature_extractor={"do_normalise": True})
    assert user_error(main).key == "resample_encode.feature_extractor.do_normalise"


def test_encoding_json_has_the_params(workspace: Path) -> None:
    prepare(workspace, feature_extractor={"do_normalize": False}, max_seconds=2.0, workers=1)
    main()
    assert read_json(ENCODED / "encoding.json") == {
        "max_seconds": 2.0,
        "feature_extractor": {"do_normalize": False},
        "cache": "input",
        "precision": "fp32",
    }


def test_too_short_clip_refused(workspace: Path) -> None:
    prepare(workspace, config=HubertConfig(conv_dim=[8, 8], conv_kernel=[10, 3], conv_stride=[5, 2]))
    file = RAW / "audio/b/b.00001.wav"
    rewrite_clip(file, np.full(20, 0.1))
    error = user_error(main)
    assert error.file == str(file)
    assert "the model needs at least 20" in str(error)
    assert not ENCODED.exists()


@pytest.mark.slow
def test_clip_too_short_for_ast_is_named(workspace: Path) -> None:
    extractor, config = BASES["ast"]
    prepare(workspace, extractor, config, feature_extractor={})
    file = RAW / "audio/b/b.00001.wav"
    rewrite_clip(file, np.linspace(0, 0.1, 220))
    error = user_error(main)
    assert error.file == str(file)
    assert "160 samples at 16000 Hz, but the model needs at least 400" in str(error)


@pytest.mark.parametrize(
    "samples", [np.concatenate([np.zeros(22_050), tone()]), tone(2.0, hz=10_000)], ids=["late", "high"]
)
def test_clip_that_becomes_silence_is_reported(
    workspace: Path, samples: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(workspace, max_seconds=1.0)
    rewrite_clip(RAW / "audio/b/b.00001.wav", samples)
    main()
    assert "warning: silent in the first 1.0 s at 16000 Hz: 1 clips (b.00001)" in capsys.readouterr().out


@pytest.mark.slow
def test_clips_that_are_cut_are_counted(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(workspace, max_seconds=0.25)
    main()
    clips = len(load_from_disk(ENCODED))
    assert f"warning: {clips} clips are longer than 0.25 s" in capsys.readouterr().out


def test_too_loud_clip_refused(workspace: Path) -> None:
    prepare(workspace, feature_extractor={"do_normalize": False})
    file = RAW / "audio/b/b.00001.wav"
    rewrite_clip(file, np.full(20_000, 1e5), subtype="FLOAT")
    error = user_error(main)
    assert error.file == str(file)
    assert "samples too large for float16" in str(error)
    assert not ENCODED.exists()


def test_missing_clips_refused(workspace: Path) -> None:
    error = user_error(main)
    assert error.file == str(CLIPS)
    assert "run dvc repro" in str(error)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_clip_is_named(workspace: Path, damage: str) -> None:
    prepare(workspace)
    file = RAW / "audio/b/b.00001.wav"
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "flipped":
        content[-5] ^= 1
        file.write_bytes(content)
    assert user_error(main).file == str(file)
    assert not ENCODED.exists()


@pytest.mark.slow
def test_segments_of_long_clips(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Each is normalised alone; those of a clip are in one file. Shorter clips do not change."""
    monkeypatch.setattr("stages.common.encoded_clips.SHARD_CLIPS", 4)
    prepare(workspace, max_seconds=1.0, workers=2)
    rewrite_clip(RAW / "audio/c/c.00001.wav", tone(3.0))
    main()
    starts_only = load_from_disk(ENCODED)[:]
    set_params(workspace, {"resample_encode.segments": True})
    clips = read_table(CLIPS)
    clips.loc[clips["clip"] == "c.00001", "seconds"] = "3.0"
    write_table(CLIPS, clips)
    main()
    output = capsys.readouterr().out
    assert "segments of a label: 2 (a) to 6 (c)" in output
    assert read_json(ENCODED / "encoding.json")["segments"] is True
    rows = load_from_disk(ENCODED)
    assert rows.column_names == ["clip", "label", "start", "input_values"]
    assert rows["clip"] == ["a.00000", "a.00001", "b.00000", "b.00001", *["c.00000"] * 3, *["c.00001"] * 3]
    assert rows["start"] == [0, 0, 0, 0, 0, 1, 1.5, 0, 1, 2]
    assert [Dataset.from_file(str(file)).num_rows for file in sorted(ENCODED.glob("*.arrow"))] == [4, 6]
    assert rows["input_values"][:4] == starts_only["input_values"][:4]
    samples = load_audio(RAW / "audio/c/c.00000.wav", 16_000)
    for row in rows.with_format("numpy").select([4, 5, 6]):
        start = round(row["start"] * 16_000)
        expected = WAVEFORM(samples[start : start + 16_000], sampling_rate=16_000, return_tensors="np")["input_values"]
        np.testing.assert_array_equal(row["input_values"].astype(np.float16), expected[0].astype(np.float16))


@pytest.mark.slow
def test_silent_segment_is_reported(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(workspace, max_seconds=1.0, segments=True)
    rewrite_clip(RAW / "audio/c/c.00001.wav", np.concatenate([tone(), np.zeros(22_050), tone()]))
    main()
    assert "warning: 1 silent segments (c.00001 at 1 s); cut the silence out" in capsys.readouterr().out
