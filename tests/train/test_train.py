from pathlib import Path

import numpy as np
import pytest
from helpers import digests, epoch_losses, memory_for, set_params, user_error

from stages.common.params import load_params
from stages.common.paths import ENCODED, EPOCHS, FINETUNED, SPLITS, TRAINING
from stages.common.tables import read_epochs, read_json, read_table, write_table
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.__main__ import main
from stages.train.params import WITHOUT_EFFECT, TrainParams

pytestmark = pytest.mark.slow


def test_same_seed_gives_same_bytes(copied: Path) -> None:
    masks = {"mask_time_prob": 0.1, "mask_time_length": 2, "mask_feature_prob": 0.1, "mask_feature_length": 2}
    set_params(copied, {"train.spec_augment": masks})
    main()
    model, epochs = digests(FINETUNED), digests(EPOCHS)
    main()
    assert digests(FINETUNED) == model
    assert digests(EPOCHS) == epochs
    set_params(copied, {"train.seed": 7})
    main()
    # training.json has the seed, so it differs in any case.
    assert digests(FINETUNED)["model.safetensors"] != model["model.safetensors"]


def test_training_json_has_the_params(copied: Path) -> None:
    set_params(copied, {"train.epochs": 2, "train.learning_rate": 0.002})
    # The clips were encoded before this change, so it has no effect on this model.
    set_params(copied, {"resample_encode.max_seconds": 20})
    main()
    content = read_json(TRAINING)
    assert set(content) == {"selected_on", "best_epoch", "train", "resample_encode"}
    assert content["train"] == load_params("train", TrainParams).model_dump(exclude=WITHOUT_EFFECT)
    assert content["train"]["epochs"] == 2
    assert content["train"]["learning_rate"] == 0.002
    assert content["resample_encode"] == read_json(ENCODED / "encoding.json")
    assert content["resample_encode"]["max_seconds"] == 30
    assert "workers" not in content["resample_encode"]


def test_training_json_has_best_epoch(copied: Path) -> None:
    set_params(copied, {"train.epochs": 4, "train.learning_rate": 0.01})
    main()
    assert read_json(TRAINING)["selected_on"] == "validation"
    epochs = read_epochs(EPOCHS).sort_values(["eval_accuracy", "eval_loss"], ascending=[False, True])
    assert read_json(TRAINING)["best_epoch"] == epochs.index[0]


def test_without_validation_test_selects(copied: Path) -> None:
    set_params(copied, {"train.epochs": 1})
    splits = read_table(SPLITS)
    write_table(SPLITS, splits.assign(split=splits["split"].replace("validation", "train")))
    main()
    assert read_json(TRAINING)["selected_on"] == "test"


@pytest.mark.parametrize(
    ("cache", "params", "key"),
    [
        ("feature_encoder", {"freeze": "none"}, "train.freeze"),
        ("base", {"freeze": "feature_encoder", "window_seconds": None}, "train.freeze"),
        ("base", {"freeze": "base"}, "train.window_seconds"),
        ("layers", {"freeze": "base"}, "train.window_seconds"),
        ("base", {"freeze": "base", "window_seconds": None, "dropout": 0.5}, "train.dropout"),
    ],
)
def test_conflict_with_cache_refused(copied: Path, cache: str, params: dict[str, object], key: str) -> None:
    set_params(copied, {"resample_encode.cache": cache})
    resample_encode()
    set_params(copied, {f"train.{name}": value for name, value in params.items()})
    assert user_error(main).key == key


def test_more_frozen_than_cached(copied: Path) -> None:
    set_params(copied, {"resample_encode.cache": "feature_encoder", "train.freeze": "base"})
    set_params(copied, {"train.window_seconds": None})
    resample_encode()
    main()
    content = read_json(TRAINING)
    assert content["train"]["freeze"] == "base"
    assert content["resample_encode"]["cache"] == "feature_encoder"


def test_out_of_memory_halves_batch(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(copied, {"train.window_seconds": None, "train.batch_size": 8, "train.epochs": 2, "train.dropout": 0.0})
    set_params(copied, {"train.eval_batch_size": 8})
    main()
    expected = epoch_losses()
    capsys.readouterr()
    with memory_for(clips=3):
        main()
    assert "starting again with batches of 2\n" in capsys.readouterr().out
    np.testing.assert_allclose(epoch_losses(), expected, atol=1e-3)


def test_too_little_memory_for_clip(copied: Path) -> None:
    with memory_for(clips=0):
        error = user_error(main)
    assert error.key == "train.batch_size"
    assert "a single clip does not fit into memory" in str(error)
