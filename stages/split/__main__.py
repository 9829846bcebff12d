"""Assign every clip to train, validation or test, and count the groups that appear in more than one split.

Reads   params.yaml: split; data/raw/clips.csv, rejected.csv, repetitions.csv, published.csv, source.json;
        data/tables/
Writes  data/splits.csv: clip, label, split, group
        metrics/split.json: clips per split and label, leakage
Run     python -m stages.split
"""

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import CLIPS, DATASET_SOURCE, PUBLISHED_SPLIT, REJECTED, REPETITIONS, SPLIT_COUNTS, SPLITS
from stages.common.stage import run_stage
from stages.split.params import SplitParams


def main() -> None:
    """Write the splits and their counts."""
    from stages.common.tables import read_json, read_table, write_json, write_table
    from stages.split import counts, groups, methods, published

    params = load_params("split", SplitParams)
    require_files(CLIPS, REJECTED, REPETITIONS, DATASET_SOURCE)
    # Sorted, so that a split does not depend on the source of the clips. The course has the same order.
    clips = read_table(CLIPS).sort_values(["label", "clip"], ignore_index=True)
    table = groups.read_groups(params.groups, clips, read_table(REPETITIONS))
    background = read_json(DATASET_SOURCE).get("background")
    named = clips.loc[clips["label"] != background, "clip"]  # those of the background have other names
    table = table.join(groups.find_name_groups(params.name_groups, named))
    clips["group"] = groups.connect(table)
    if params.method == "published":
        rejected = read_table(REJECTED)["file"].to_list()
        names = published.read_published_split(clips, rejected, params.published or str(PUBLISHED_SPLIT))
        clips["split"] = methods.add_validation(names, clips["label"].to_numpy(), clips["group"].to_numpy(), params)
        from_train = {"validation_from_train": True} if "validation" in set(clips["split"]) - set(names) else {}
    else:
        if params.published:
            print(f"warning: split.published is not used, because split.method is {params.method}")
        from_train = {}
        clips["split"] = methods.assign_splits(clips["label"].to_numpy(), clips["group"].to_numpy(), params)
    listed = clips["split"].notna().to_numpy()
    splits = clips.loc[listed, ["clip", "label", "split", "group"]]
    counts.check_labels(clips["label"], splits, background)
    described = params.model_dump(include={"method", "seed", *params.list_fold_keys()}) | from_train
    described |= counts.count_splits(splits, table[listed], left_out=int((~listed).sum()))
    with atomic_outputs(SPLITS, SPLIT_COUNTS) as [table_file, counts_file]:
        write_table(table_file, splits)
        write_json(counts_file, described)
    print(f"{SPLITS}: " + ", ".join(f"{total} {name}" for name, total in described["total"].items()))
    counts.report_few_groups(splits)
    counts.report_background(splits, background)
    if params.method == "grouped":
        counts.report_uneven(described["total"], params)
    for name, leak in described["leakage"].items():
        print(f"{leak['shared']} of {leak['known']} test clips share their {name} with a train or validation clip")


if __name__ == "__main__":
    run_stage(main)
