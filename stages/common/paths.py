"""Paths of the pipeline's files, relative to the project's top folder. dvc.yaml has the same paths."""

from pathlib import Path

PARAMS = Path("params.yaml")
CHECKED = Path("data/checked.txt")

RAW = Path("data/raw")
CLIPS = RAW / "clips.csv"
REJECTED = RAW / "rejected.csv"
REPETITIONS = RAW / "repetitions.csv"
PUBLISHED_SPLIT = RAW / "published.csv"
DATASET_SOURCE = RAW / "source.json"
BASE = Path("models/base")
BASE_SOURCE = BASE / "source.json"

SPLITS = Path("data/splits.csv")
SPLIT_COUNTS = Path("metrics/split.json")
ENCODED = Path("data/encoded")

FINETUNED = Path("models/finetuned")
TRAINING = FINETUNED / "training.json"
EPOCHS = Path("metrics/train")
RUNS = Path("metrics/runs")
SELECTION = Path("metrics/selection.json")
SELECTION_CLIPS = Path("metrics/selection.csv")

BASELINES = Path("metrics/baselines.json")
METRICS = Path("metrics/metrics.json")
PREDICTIONS = Path("metrics/predictions.csv")
FIGURE = Path("metrics/result.png")
REPORT = Path("metrics/report.html")
ENVIRONMENT = Path("metrics/environment.json")

PUBLISHED = Path("models/published")
SPACE = Path("models/space")

IN_GIT = (SPLIT_COUNTS, EPOCHS, SELECTION, SELECTION_CLIPS, METRICS, PREDICTIONS, FIGURE)

UNRECORDED = Path("unrecorded")
