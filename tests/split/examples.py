"""Clips and params that the tests of the split share."""

from pathlib import Path

import numpy as np
import pandas as pd
from helpers import ROOT

from stages.split.params import SplitParams

TABLES = ROOT / "data" / "tables"


def number_clips(numbers: dict[str, int]) -> pd.DataFrame:
    """Return so many clips of each label: columns clip and label."""
    rows = [(f"{label}.{n:05d}", label) for label, number in numbers.items() for n in range(number)]
    return pd.DataFrame(rows, columns=["clip", "label"])


def repeat_labels(numbers: dict[str, int]) -> np.ndarray:
    """Return the labels of `number_clips`, shape (clips,)."""
    return number_clips(numbers)["label"].to_numpy()


def read_gtzan() -> pd.DataFrame:
    """Return the 999 clips of GTZAN that can be decoded: columns clip, md5 and label."""
    clips = pd.read_csv(TABLES / "gtzan_md5.csv")
    clips["label"] = clips["clip"].str.split(".").str[0]
    return clips[clips["clip"] != "jazz.00054"].reset_index(drop=True)


def read_gtzan_repetitions() -> pd.DataFrame:
    """Return what `download` would find if it found all repetitions that listeners found."""
    return pd.read_csv(TABLES / "gtzan_repetitions.csv", dtype=str).rename(columns={"repetition": "recording"})


def write_raw(clips: pd.DataFrame, rejected: str = "", repetitions: pd.DataFrame | None = None) -> None:
    """Write data/raw in the current folder, without recordings. rejected: lines of rejected.csv."""
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    facts = {"path": "audio", "sha256": "0", "sampling_rate": 22_050, "channels": 1, "seconds": 30.0}
    clips.assign(**facts).to_csv(raw / "clips.csv", index=False)
    (raw / "rejected.csv").write_text(f"file,reason\n{rejected}")
    none = pd.DataFrame(columns=["clip", "recording"])
    (none if repetitions is None else repetitions).to_csv(raw / "repetitions.csv", index=False)
    (raw / "source.json").write_text('{"source": "folder", "id": "x", "licence": "unknown"}')


def write_artists(clips: pd.DataFrame, artists: list[str]) -> dict[str, str]:
    """Write artists.csv in the current folder, and return the value of split.groups that reads it."""
    clips.assign(artist=artists)[["clip", "artist"]].to_csv("artists.csv", index=False)
    return {"artist": "artists.csv"}


def split_params(**values: object) -> SplitParams:
    """Return a stratified split with the shares 0.2 and 0.1, or with other values."""
    return SplitParams.model_validate(
        {"method": "stratified", "seed": 42, "test_size": 0.2, "validation_size": 0.1} | values
    )
