import json
from pathlib import Path

import pytest

from stages.common.paths import SELECTION, SELECTION_CLIPS, SPLITS
from stages.common.tables import read_table


def test_predictions_have_the_accuracy_of_the_best_epoch(finished: Path) -> None:
    selection = json.loads((finished / SELECTION).read_text())
    clips, splits = read_table(finished / SELECTION_CLIPS), read_table(finished / SPLITS)
    chosen = splits[splits["split"] == selection["selected_on"]]
    assert set(zip(clips["clip"], clips["label"])) == set(zip(chosen["clip"], chosen["label"]))
    assert (clips["label"] == clips["prediction"]).mean() == pytest.approx(selection["best_epoch_accuracy"], abs=1e-6)
