"""Clips of the data set, with their labels, splits and predictions."""

import random
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import pandas as pd

from stages.common.errors import UserError
from stages.common.paths import CLIPS, PREDICTIONS, RAW, SPLITS
from stages.common.tables import read_table

CLIP_SECONDS = 30.0  # of a clip that is only played, from its start
MAX_EXAMPLES = 200


@dataclass
class DataSet:
    """Clips.

    Attributes:
        clips: a row for each, by name: label, path in data/raw, sha256, split ("" before the stage split ran).
        predictions: the content of predictions.csv, with its probabilities as float64; empty if there is none.
    """

    clips: pd.DataFrame
    predictions: pd.DataFrame

    @classmethod
    def read(cls) -> "DataSet":
        """Read the outputs of the stages, those that exist.

        Raises:
            UserError: a table is damaged.
        """
        clips = read_table(CLIPS) if CLIPS.exists() else pd.DataFrame(columns=["clip", "label", "path", "sha256"])
        splits = read_table(SPLITS).set_index("clip")["split"] if SPLITS.exists() else pd.Series(dtype=str)
        clips = clips.set_index("clip").assign(split=lambda table: splits.reindex(table.index).fillna(""))
        predictions = read_table(PREDICTIONS) if PREDICTIONS.exists() and len(clips) else pd.DataFrame()
        return cls(clips, predictions.astype(dict.fromkeys(predictions.columns[3:], float)))

    @property
    def labels(self) -> list[str]:
        """The names of the labels."""
        return sorted(self.clips["label"].unique())

    def list_examples(self) -> list[str]:
        """Return the names of test clips, at most MAX_EXAMPLES: one of each label, then a second of each, and so on."""
        test = self.clips[self.clips["split"] == "test"]
        by_label = [list(names) for names in test.groupby("label").groups.values()]
        return [name for name in chain(*zip_longest(*by_label)) if name is not None][:MAX_EXAMPLES]

    def choose(self, split: str | None, label: str | None, number: int) -> list[str]:
        """Return the names of random clips. split, label: None for all."""
        table = self.clips
        table = table if split is None else table[table["split"] == split]
        table = table if label is None else table[table["label"] == label]
        return random.sample(list(table.index), min(number, len(table)))

    def find(self, name: str) -> tuple[Path, pd.Series]:
        """Return the file of a clip, and its row.

        Raises:
            UserError: there is no such clip.
        """
        if name not in self.clips.index:
            raise UserError(f"no clip {name}")
        row = self.clips.loc[[name]].iloc[0]
        return RAW / str(row["path"]), row
