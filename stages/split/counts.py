"""Count the clips of each split, and the groups that appear in more than one."""

from typing import Any

import pandas as pd

from stages.common.errors import UserError
from stages.common.tables import SPLIT_NAMES
from stages.split.params import SplitParams

FEW_GROUPS = 10


def count_splits(splits: pd.DataFrame, groups: pd.DataFrame, left_out: int) -> dict[str, Any]:
    """Count clips per split and label, and the test clips that share a group with a train or validation clip.

    Args:
        splits: columns label and split. groups: as `read_groups` returns them, of the same clips.
        left_out: number of clips that are in no split.
    """
    clips = splits.groupby(["split", "label"]).size()
    test = splits["split"].to_numpy() == "test"
    leakage = {}
    for name in groups:
        ids = groups[name].to_numpy()
        known = pd.notna(ids)
        leakage[name] = {
            "test_clips": int(test.sum()),
            "known": int((test & known).sum()),
            # pandas hashes; NumPy compares all pairs of objects.
            "shared": int(pd.Series(ids[test & known]).isin(ids[~test & known]).sum()),
        }
    return {
        "total": {name: int((splits["split"] == name).sum()) for name in SPLIT_NAMES},
        "left_out": left_out,
        # A list, because DVC would show a column for each label of a mapping.
        "per_label": [
            {"label": label} | {name: int(clips.get((name, label), 0)) for name in SPLIT_NAMES}
            for label in sorted(splits["label"].unique())
        ],
        "leakage": leakage,
    }


def check_labels(labels: pd.Series, splits: pd.DataFrame, background: str | None = None) -> None:
    """Raise UserError if a label has no training clip, or test, or validation, has only clips of the background.

    Args:
        labels: of all clips. background: the label of clips that have none of the others; None: there is none.
    """
    missing = sorted(set(labels) - set(splits.loc[splits["split"] == "train", "label"]))
    if missing:
        raise UserError(f"label {missing[0]} has no clip in train; add clips, or change split.seed or split.method")
    measured = set(splits.loc[splits["label"] != background, "split"])
    if "test" not in measured:
        raise UserError("no clip is in test; increase split.test_size, or add test clips to the published list")
    if "validation" not in measured and (splits["split"] == "validation").any():
        raise UserError(f"all validation clips are of the background {background}; increase split.validation_size")


def report_background(splits: pd.DataFrame, background: str | None) -> None:
    """Print a warning if validation or test lacks clips of the background. splits: columns label and split."""
    lacking = {"validation", "test"} - set(splits.loc[splits["label"] == background, "split"])
    for name in sorted(lacking) if background else ():
        use = "sets no limit for them" if name == "validation" else "does not measure them"
        print(f"warning: no clip of the background {background} is in {name}, so evaluate {use}")


def report_few_groups(splits: pd.DataFrame) -> None:
    """Print a warning if the test clips form few groups. splits: columns split and group."""
    groups = splits.loc[splits["split"] == "test", "group"]
    if groups.nunique() < min(FEW_GROUPS, len(groups)):
        print(
            f"warning: number of groups, such as artists or speakers, in the {len(groups)} test clips: "
            f"{groups.nunique()}. With so few, the confidence interval of the accuracy is wide, at worst 0.00 to 1.00"
        )


def report_uneven(totals: dict[str, int], params: SplitParams) -> None:
    """Print a warning if keeping groups together makes a split much larger or smaller than requested."""
    clips = sum(totals.values())
    for name, share in (("test", params.test_share), ("validation", params.validation_share)):
        if share and not 0.5 < totals[name] / (share * clips) < 1.5:
            print(
                f"warning: {name} has {totals[name] / clips:.0%} of the clips, not {share:.0%}, to keep groups together"
            )
