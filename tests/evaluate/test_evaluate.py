"""The stage in a finished pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import user_error
from transformers import pipeline

from stages.common.audio import load_audio
from stages.common.paths import BASELINES, METRICS, REPORT
from stages.common.tables import read_json
from stages.evaluate import metrics
from stages.evaluate.__main__ import main
from stages.publish.__main__ import main as publish

TOLERANCE = 5e-4  # of probabilities; data/encoded is in float16

pytestmark = pytest.mark.slow


@pytest.fixture
def table(finished: Path) -> pd.DataFrame:
    """predictions.csv."""
    return pd.read_csv(finished / "metrics/predictions.csv")


@pytest.fixture
def measured(finished: Path) -> dict[str, Any]:
    """metrics.json."""
    return read_json(finished / METRICS)


def test_predictions_agree_with_pipeline(finished: Path, table: pd.DataFrame) -> None:
    labels = list(table.columns[3:])
    np.testing.assert_allclose(table[labels].sum(axis=1), 1.0, atol=1e-4)
    assert (table[labels].idxmax(axis=1) == table["prediction"]).all()
    assert table[labels].to_numpy().std() > 4 * TOLERANCE  # if all were equal, agreement would mean nothing
    classify = pipeline("audio-classification", model=str(finished / "models/published"), top_k=len(labels))
    for _, row in table.iterrows():
        samples = load_audio(finished / f"data/raw/audio/{row['label']}/{row['clip']}.wav", 16_000)
        expected = {item["label"]: item["score"] for item in classify(samples)}
        assert max(expected, key=expected.get) == row["prediction"]
        np.testing.assert_allclose([expected[label] for label in labels], row[labels].astype(float), atol=TOLERANCE)


def test_metrics_agree_with_predictions(finished: Path, table: pd.DataFrame, measured: dict[str, Any]) -> None:
    labels = list(table.columns[3:])
    splits = pd.read_csv(finished / "data/splits.csv")
    assert sorted(table["clip"]) == sorted(splits.loc[splits["split"] == "test", "clip"])
    assert measured["n_clips"] == len(table)
    assert measured["accuracy"] == pytest.approx((table["label"] == table["prediction"]).mean())
    of_label = [row[row["label"]] for _, row in table.iterrows()]
    assert measured["log_loss"] == pytest.approx(-np.log(of_label).mean(), abs=1e-3)
    actual = np.array([labels.index(label) for label in table["label"]])
    probabilities = table[labels].to_numpy()
    assert measured["calibration_error"] == pytest.approx(metrics.calibration_error(probabilities, actual), abs=1e-4)
    assert sum(row["n_clips"] for row in measured["reliability"]) == len(table)
    assert measured["top_2_accuracy"] >= measured["accuracy"]
    assert [row["label"] for row in measured["per_label"]] == sorted(set(table["label"]))


def test_metrics_describe_the_run(finished: Path, measured: dict[str, Any]) -> None:
    baselines = read_json(finished / BASELINES)
    assert set(baselines) == {"majority", "spectrum"}
    assert measured["baselines"] == metrics.round_floats(baselines)
    low = measured["accuracy_low"]
    assert measured["beats_baselines"] == metrics.compare_with_baselines(measured["accuracy"], low, baselines)
    assert measured["selected_on"] == "validation"
    assert measured["interval_of"] == "clips"
    assert "window_accuracy" not in measured


def test_groups_widen_interval(copied: Path, measured: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    splits = pd.read_csv("data/splits.csv")
    splits.assign(group=np.arange(len(splits)) // 20).to_csv("data/splits.csv", index=False)
    main()
    grouped = read_json(METRICS)
    assert grouped["interval_of"] == "groups"
    test_groups = splits.index[splits["split"] == "test"] // 20
    assert grouped["n_groups"] == len(set(test_groups))
    assert f"of {len(set(test_groups))} groups" in capsys.readouterr().out
    assert grouped["accuracy"] == measured["accuracy"]
    widths = [found["accuracy_high"] - found["accuracy_low"] for found in (measured, grouped)]
    assert widths[1] > widths[0]


def test_new_metric_is_listed_everywhere(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in METRIC_FUNCTIONS is enough for metrics.json, the report and the model card."""

    def error_rate(probabilities: np.ndarray, actual: np.ndarray) -> float:
        return 1 - metrics.accuracy(probabilities, actual)

    monkeypatch.setitem(metrics.METRIC_FUNCTIONS, "error_rate", error_rate)
    main()
    publish()
    measured = read_json(METRICS)
    assert measured["error_rate"] == pytest.approx(1 - measured["accuracy"])
    value = f"{measured['error_rate']:.3f}"
    assert f"error rate {value}" in " ".join(REPORT.read_text(encoding="utf-8").split())
    assert f"| error rate | {value} |" in Path("models/published/README.md").read_text(encoding="utf-8")


def test_missing_baselines_are_named(copied: Path) -> None:
    BASELINES.unlink()
    assert user_error(main).file == str(BASELINES)
