import hashlib
import importlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import error_of, git, memory_for, set_params, write_clips
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from stages import download, evaluate, resample_encode, split
from stages.common import audio, batches, classifier, pictures, processor, repeatable
from stages.common.tables import read_table
from stages.train import choose_precision, main


@pytest.fixture
def ready(copied: Path) -> Path:
    """Everything up to train is done, with two clips to a batch, so that an epoch has several steps."""
    set_params(copied, {"train.batch_size": 2})
    return copied


def digest(folder: str) -> dict[str, str]:
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def weights() -> dict[str, torch.Tensor]:
    return AutoModelForAudioClassification.from_pretrained("models/finetuned").state_dict()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_model(ready: Path) -> None:
    set_params(ready, {"train.spec_augment": {"mask_time_prob": 0.1, "mask_time_length": 2}})
    set_params(ready, {"train.spec_augment.mask_feature_prob": 0.1, "train.spec_augment.mask_feature_length": 2})
    main()
    first = digest("models/finetuned") | digest("metrics/train")
    main()
    assert digest("models/finetuned") | digest("metrics/train") == first
    set_params(ready, {"train.seed": 7})
    main()
    assert digest("models/finetuned") != {name: value for name, value in first.items() if "models" in name}


def test_one_row_per_epoch_and_tensorboard_has_every_logged_step(ready: Path) -> None:
    set_params(ready, {"train.epochs": 3, "train.logging_steps": 2})
    main()
    for metric in ("train_loss", "eval_loss", "eval_accuracy"):
        table = pd.read_csv(f"metrics/train/plots/metrics/{metric}.tsv", sep="\t")
        assert table["step"].tolist() == [1, 2, 3]
        assert table[metric].notna().all()
    events = list(EventFileLoader("models/finetuned/runs/events.out.tfevents.0").Load())
    tags = [value.tag for event in events for value in event.summary.value]
    assert tags.count("eval/accuracy") == 3
    assert tags.count("train/loss") == 3 * 10 // 2


def test_an_epoch_of_fewer_steps_than_are_logged_has_a_loss(ready: Path) -> None:
    set_params(ready, {"train.epochs": 2, "train.batch_size": 20, "train.logging_steps": 50})
    main()
    table = pd.read_csv("metrics/train/plots/metrics/train_loss.tsv", sep="\t")
    assert table["train_loss"].between(1.0, 4.0).all()


def test_clips_of_mixed_lengths_are_evaluated_the_same_in_any_batch(ready: Path) -> None:
    clips = write_clips(ready / "clips", number=6, seconds=0.5)
    write_clips(clips, labels=("c",), number=6, seconds=0.9)
    for n, file in enumerate(sorted(clips.rglob("*.wav"))):
        samples, rate = soundfile.read(file)
        soundfile.write(file, samples[: len(samples) - 700 * n], rate)
    set_params(ready, {"download.dataset": {"source": "folder", "path": "clips", "max_rejected": 0}})
    set_params(ready, {"download.model.config.feat_extract_norm": "group", "train.window_seconds": None})
    set_params(ready, {"train.epochs": 1})
    download.download_dataset()
    download.download_model()
    split.main()
    resample_encode.main()
    losses = []
    for size in (1, 4):
        set_params(ready, {"train.eval_batch_size": size})
        main()
        losses.append(pd.read_csv("metrics/train/plots/metrics/eval_loss.tsv", sep="\t")["eval_loss"][0])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_base_model_with_a_head_for_other_labels_gets_a_new_one(ready: Path) -> None:
    main()
    shutil.rmtree("models/base")
    Path("models/finetuned").rename("models/base")
    change_config(id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1})
    weights = load_file("models/base/model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][:2].clone()
    save_file(weights, "models/base/model.safetensors", {"format": "pt"})
    main()
    assert AutoModelForAudioClassification.from_pretrained("models/finetuned").config.num_labels == 10


def test_a_base_model_that_is_not_whole_is_refused(ready: Path) -> None:
    path = Path("models/base/model.safetensors")
    weights = load_file(path)
    for broken in (
        {name: tensor for name, tensor in weights.items() if "layers.0" not in name},
        {f"module.{name}": tensor for name, tensor in weights.items()},
        {name: tensor[:1] if "layers.0" in name else tensor for name, tensor in weights.items()},
    ):
        save_file({name: tensor.clone() for name, tensor in broken.items()}, path, {"format": "pt"})
        assert "are missing or do not fit config.json" in error_of(main)
    path.rename("models/base/model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + ('layers' in name)}-of-00002.safetensors" for name in weights}
    index = {"metadata": {}, "weight_map": weight_map}
    Path("models/base/model.safetensors.index.json").write_text(json.dumps(index))
    assert "get the checkpoint again" in error_of(main)
    set_params(ready, {"resample_encode.representation": "feature_encoder"})
    assert "get the checkpoint again" in error_of(resample_encode.main)


def test_weights_of_another_whisper_are_refused(ready: Path) -> None:
    """Its classifier names the encoder otherwise than its base model's prefix."""
    model, extractor = tiny_whisper()
    model.save_pretrained("models/base")
    extractor.save_pretrained("models/base")
    set_params(ready, {"resample_encode.feature_extractor": {}, "train.window_seconds": None})
    resample_encode.main()
    change_config(encoder_ffn_dim=12)
    assert "fc1" in error_of(main)


def test_a_git_repo_without_a_commit_is_told_of(ready: Path) -> None:
    shutil.rmtree(".git")
    git(ready, "init", "-q")
    assert "git commit" in error_of(main)


def test_masks_longer_than_a_window_are_refused(ready: Path) -> None:
    masks = {"mask_time_prob": 0.5, "mask_time_length": 500, "mask_feature_prob": 0.0, "mask_feature_length": 2}
    set_params(ready, {"train.spec_augment": masks})
    assert "train.spec_augment" in error_of(main)
    assert not Path("models/finetuned.partial").exists()


def test_the_best_epoch_is_kept_not_the_last(ready: Path) -> None:
    set_params(ready, {"train.epochs": 6, "train.learning_rate": 0.01})
    set_params(ready, {"train.eval_batch_size": 10, "train.batch_size": 8})  # the last of 20 clips are 4
    main()
    table = pd.read_csv("metrics/train/plots/metrics/eval_accuracy.tsv", sep="\t")
    model = AutoModelForAudioClassification.from_pretrained("models/finetuned").eval()
    encoded = batches.open_encoded(Path("data/encoded"))
    rows = batches.take(encoded, pd.read_csv("data/splits.csv"), "validation")
    clips = batches.Clips(rows, encoded.key)
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor(array)[None]).logits for array, _ in clips])
    labels = torch.tensor([label for _, label in clips])
    best = table["eval_accuracy"].idxmax()
    assert (logits.argmax(dim=1) == labels).float().mean() == pytest.approx(table["eval_accuracy"][best], abs=1e-6)
    losses = pd.read_csv("metrics/train/plots/metrics/eval_loss.tsv", sep="\t")["eval_loss"]
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(losses[best], abs=1e-4)


def test_early_stopping_ends_before_the_last_epoch(ready: Path) -> None:
    set_params(ready, {"train.epochs": 30, "train.early_stopping": 1, "train.learning_rate": 1e-9})
    main()
    assert len(pd.read_csv("metrics/train/plots/metrics/eval_accuracy.tsv", sep="\t")) == 2


def test_a_frozen_feature_encoder_stays_and_the_rest_learns(ready: Path) -> None:
    set_params(ready, {"train.frozen": "feature_encoder"})
    main()
    before = AutoModelForAudioClassification.from_pretrained("models/base").state_dict()
    same = {name: torch.equal(before[name], tensor) for name, tensor in weights().items() if "hubert" in name}
    assert all(kept for name, kept in same.items() if "feature_extractor" in name)
    assert not all(same.values())


def test_accumulation_is_the_same_as_a_batch_of_that_size(ready: Path) -> None:
    exact = {"train.window_seconds": None, "train.dropout": 0.0, "train.epochs": 2, "train.learning_rate": 1e-3}
    config = {"attention_dropout": 0.0, "activation_dropout": 0.0}
    set_params(ready, exact)
    change_config(**config)
    results = []
    for size, accumulation in ((4, 1), (2, 2)):
        set_params(ready, {"train.batch_size": size, "train.accumulation": accumulation})
        main()
        results.append(weights())
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, atol=2e-5, rtol=1e-3, msg=name)


def change_config(**values: object) -> None:
    path = Path("models/base/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def build(masks: dict[str, Any] | None = None, **rates: float | None) -> torch.nn.Module:
    return classifier.build(Path("models/base"), ["x", "y"], rates, masks, "none")


def test_dropout_reaches_the_model_and_label_names_are_inside(ready: Path) -> None:
    model = build(dropout=0.35, attention_dropout=None)
    assert model.config.hidden_dropout == model.config.feat_proj_dropout == 0.35
    assert model.config.attention_dropout == 0.1
    model = build(attention_dropout=0.25)
    assert model.config.attention_dropout == 0.25
    assert model.config.id2label == {0: "x", 1: "y"}
    assert model.config.label2id == {"x": 0, "y": 1}


def tiny_whisper() -> tuple[WhisperModel, WhisperFeatureExtractor]:
    small = {"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8, "num_mel_bins": 8}
    small |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "max_source_positions": 100}
    ids = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return WhisperModel(WhisperConfig(**small, **ids)), WhisperFeatureExtractor(feature_size=8, chunk_length=2)


def test_whisper_and_ast_train_too_and_refuse_what_they_lack(ready: Path) -> None:
    tiny = ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_mel_bins=16)
    tiny.max_length = 64
    ast = ASTModel(tiny), ASTFeatureExtractor(num_mel_bins=16, max_length=64)
    set_params(ready, {"resample_encode.feature_extractor": {}})
    for model, extractor in (tiny_whisper(), ast):
        set_params(ready, {"train.window_seconds": 0.5})
        model.save_pretrained("models/base")
        extractor.save_pretrained("models/base")
        resample_encode.main()
        assert "train.window_seconds" in error_of(main)
        set_params(ready, {"train.window_seconds": None, "train.frozen": "feature_encoder"})
        assert "train.frozen" in error_of(main)
        set_params(ready, {"train.frozen": "none"})
        main()
        assert AutoModelForAudioClassification.from_pretrained("models/finetuned").config.num_labels == 10
        with pytest.raises(Exception, match=r"train\.spec_augment"):
            masks = {"mask_time_prob": 0.1, "mask_time_length": 2, "mask_feature_prob": 0.0, "mask_feature_length": 2}
            build(masks)
    set_params(ready, {"resample_encode.representation": "base"})
    assert "resample_encode.representation: audio-spectrogram-transformer has no base" in error_of(resample_encode.main)


def test_a_window_longer_than_every_clip_or_too_short_for_the_model_is_refused(ready: Path) -> None:
    set_params(ready, {"train.window_seconds": 0.03})  # the model hears 25 ms four times, 10 ms apart
    assert "train.window_seconds: 0.03 s is shorter than one frame" in error_of(main)
    set_params(ready, {"train.window_seconds": 1.5})
    message = error_of(main)
    assert "train.window_seconds: 1.5 s is longer than every clip (at most 1 s)" in message
    assert not Path("models/finetuned.partial").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_without_a_gpu_is_refused_and_auto_is_not() -> None:
    assert "train.precision: fp16 needs a GPU" in error_of(lambda: choose_precision("fp16"))
    assert not choose_precision("auto")["fp16"]


def test_auto_is_fp16_on_a_gpu_that_only_emulates_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a T4 does, which is compute capability 7.5; bf16 came with 8.0."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7, minor=5))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert choose_precision("auto") == {"bf16": False, "fp16": True}
    assert not processor.has_bf16()


def test_of_several_gpus_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more, the Trainer multiplies the batch."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    importlib.reload(repeatable)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_bf16_trains_on_a_cpu_too(ready: Path) -> None:
    main()
    exact = losses()
    set_params(ready, {"train.precision": "bf16"})
    main()
    np.testing.assert_allclose(losses(), exact, atol=0.05)
    assert weights()["classifier.weight"].dtype == torch.float32


def test_without_validation_the_best_epoch_is_chosen_on_test() -> None:
    assert batches.selection_split(pd.DataFrame({"split": ["train", "test"]})) == "test"
    assert batches.selection_split(pd.DataFrame({"split": ["train", "validation", "test"]})) == "validation"


@given(st.integers(1, 300), st.one_of(st.none(), st.integers(1, 100)))
def test_windows_cover_a_clip_and_have_one_length(samples: int, window: int | None) -> None:
    clip = np.arange(samples)
    pieces = batches.cut(clip, window)
    assert set(np.concatenate(pieces)) == set(clip)
    assert {len(piece) for piece in pieces} == {min(samples, window or samples)}
    assert len(pieces) == -(-samples // min(samples, window or samples))


def test_a_random_window_is_a_piece_of_its_clip(ready: Path) -> None:
    encoded = batches.open_encoded(Path("data/encoded"))
    torch.manual_seed(0)
    whole = batches.Clips(encoded.rows, encoded.key)[3][0]
    starts = set()
    for _ in range(8):
        piece, _ = batches.Clips(encoded.rows, encoded.key, window=1000)[3]
        found = [i for i in np.flatnonzero(whole == piece[0]) if np.array_equal(whole[i : i + 1000], piece)]
        assert found
        starts.add(int(found[0]))
    assert len(starts) > 1


def test_only_padded_batches_have_a_mask(ready: Path) -> None:
    encoded = batches.open_encoded(Path("data/encoded"))
    long, short = np.ones(1600, np.float32), np.ones(800, np.float32)
    assert set(batches.collate(encoded, [(long, 0), (long, 1)])) == {"input_values", "labels"}
    padded = batches.collate(encoded, [(long, 0), (short, 1)])
    assert padded["attention_mask"].sum(dim=1).tolist() == [1600, 800]
    assert padded["input_values"][1, 800:].abs().sum() == 0


def predictions_agree_with_the_saved_model(tolerance: float) -> None:
    """metrics/predictions.csv, made from what was cached, against the checkpoint on the clips themselves."""
    table = read_table(Path("metrics/predictions.csv")).set_index("clip")
    model = AutoModelForAudioClassification.from_pretrained("models/finetuned").eval()
    extractor = AutoFeatureExtractor.from_pretrained("models/finetuned")
    for clip, row in table.iterrows():
        samples = audio.load(Path(f"data/raw/audio/{row['label']}/{clip}.wav"), 16_000)
        inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            answer = model(inputs[extractor.model_input_names[0]]).logits[0].softmax(-1)
        np.testing.assert_allclose(answer, row[list(model.config.label2id)].astype(float), atol=tolerance)


def test_behind_a_cached_feature_encoder_the_saved_model_is_whole(ready: Path) -> None:
    set_params(ready, {"resample_encode.representation": "feature_encoder", "train.frozen": "feature_encoder"})
    resample_encode.main()
    rows = load_from_disk("data/encoded").with_format("numpy")
    base = AutoModel.from_pretrained("models/base").eval()
    extractor = AutoFeatureExtractor.from_pretrained("data/encoded")
    file = Path(f"data/raw/audio/{rows.features['label'].int2str(int(rows[5]['label']))}/{rows[5]['clip']}.wav")
    inputs = extractor(audio.load(file, 16_000), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        own = base.feature_extractor(inputs["input_values"])[0].T.numpy()
    np.testing.assert_allclose(rows[5]["extract_features"], own, rtol=1e-3, atol=1e-5)
    main()
    evaluate.main()
    model = AutoModelForAudioClassification.from_pretrained("models/finetuned").eval()
    for name, tensor in base.feature_extractor.state_dict().items():
        assert torch.equal(model.hubert.feature_extractor.state_dict()[name], tensor)
    predictions_agree_with_the_saved_model(1e-3)


@pytest.mark.parametrize("architecture", ["hubert", "whisper"])
def test_behind_a_cached_base_only_the_head_is_trained_and_the_saved_model_is_whole(
    ready: Path, architecture: str
) -> None:
    if architecture == "whisper":
        model, extractor = tiny_whisper()
        model.save_pretrained("models/base")
        extractor.save_pretrained("models/base")
        set_params(ready, {"resample_encode.feature_extractor": {}})
    set_params(ready, {"resample_encode.representation": "base", "train.frozen": "base"})
    set_params(ready, {"train.window_seconds": None, "train.dropout": None, "train.attention_dropout": 0.0})
    resample_encode.main()
    main()
    evaluate.main()
    predictions_agree_with_the_saved_model(2e-3)
    before, after = AutoModel.from_pretrained("models/base").state_dict(), weights()
    kept = {name.removeprefix("hubert."): tensor for name, tensor in after.items()}
    own = [name for name in kept if name in before]
    assert len(own) > 10
    assert all(torch.equal(kept[name], before[name]) for name in own)
    assert losses()[-1, 0] < losses()[0, 0]


def test_bf16_in_the_cached_part_is_close_to_fp32(ready: Path) -> None:
    set_params(ready, {"resample_encode.representation": "feature_encoder"})
    found = []
    for precision in ("fp32", "bf16"):
        set_params(ready, {"resample_encode.precision": precision})
        resample_encode.main()
        rows = load_from_disk("data/encoded").with_format("numpy")
        found.append(np.stack([row["extract_features"] for row in rows]).astype(np.float32))
    error = np.abs(found[1] - found[0]).mean() / np.abs(found[0]).mean()
    assert 0 < error < 0.03


def test_what_is_cached_must_be_frozen(ready: Path) -> None:
    set_params(ready, {"resample_encode.representation": "feature_encoder"})
    resample_encode.main()
    assert "train.frozen: none cannot train the feature_encoder" in error_of(main)
    set_params(ready, {"train.frozen": "feature_encoder", "train.window_seconds": 1.5})
    assert "1.5 s is longer than every clip" in error_of(main)
    set_params(ready, {"train.window_seconds": 0.01})
    assert "shorter than one frame" in error_of(main)
    set_params(ready, {"train.window_seconds": None, "train.frozen": "base"})
    main()
    set_params(ready, {"resample_encode.representation": "base", "train.frozen": "feature_encoder"})
    resample_encode.main()
    assert "train.frozen: feature_encoder cannot train the base" in error_of(main)
    set_params(ready, {"train.frozen": "base", "train.window_seconds": 0.5})
    assert "train.window_seconds: the base model's output is of whole clips" in error_of(main)
    set_params(ready, {"train.window_seconds": None, "train.dropout": 0.5})
    assert "train.dropout: the base model's cached output knows none" in error_of(main)


def losses() -> np.ndarray:
    """Of training and evaluation, an epoch a row: float64 (epochs, 2)."""
    return pictures.read_epochs(Path("metrics/train"))[["train_loss", "eval_loss"]].to_numpy()


def test_out_of_memory_halves_the_batch_and_comes_to_the_same(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(ready, {"train.window_seconds": None, "train.batch_size": 8, "train.epochs": 2, "train.dropout": 0.0})
    set_params(ready, {"train.eval_batch_size": 8})
    main()
    first = losses()
    capsys.readouterr()
    with memory_for(clips=3):
        main()
    assert "starting again with batches of 2, 4 to a step" in capsys.readouterr().out
    np.testing.assert_allclose(losses(), first, atol=1e-3)
    with memory_for(clips=0):
        assert "a single clip does not fit into memory" in error_of(main)
