"""Download the labelled clips (`dataset`) or the base model (`model`).

Reads   params.yaml: download.dataset, download.model
Writes  data/raw/     audio/<label>/<clip>.<ext>, clips.csv, repetitions.csv, rejected.csv, published.csv,
                      source.json; metadata.csv, so that datasets opens the folder as an audiofolder
        .dvc/tmp/checked/: results of the checks to go on from, if `dataset` is killed; removed at its end
        models/base/  a Transformers checkpoint with its preprocessor config, source.json
Run     python -m stages.download dataset
        python -m stages.download model
"""

from pathlib import Path
from typing import Any

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.outputs import atomic_outputs
from stages.common.params import load_params
from stages.common.paths import BASE, BASE_SOURCE, CLIPS, DATASET_SOURCE, PUBLISHED_SPLIT, RAW, REJECTED, REPETITIONS
from stages.common.stage import run_stage


def download_dataset() -> None:
    """Fetch the clips, decode each once, and list them."""
    import pandas as pd

    from stages.common.tables import Clip, write_json, write_table
    from stages.download.dataset import background
    from stages.download.dataset import clips as clip_files
    from stages.download.dataset.corrections import apply_corrections
    from stages.download.dataset.kept_results import open_results
    from stages.download.dataset.published import summarize_splits
    from stages.download.params import DatasetParams

    params: Any = load_params("download.dataset", DatasetParams)
    with open_results() as kept, atomic_outputs(RAW) as [folder]:
        fetched = params.fetch(folder / "audio")
        if params.originals:
            fetched.origin["originals"] = clip_files.count_originals(list(fetched.files), params.originals)
        if params.background and background.is_folder(params.background):
            fetched = background.add_folder(params.background, fetched, folder / "audio")
        clips, broken = clip_files.inspect_clips(fetched.files, kept)
        ignored, rejected = fetched.ignored, fetched.rejected + broken
        splits = {clip.clip: fetched.splits.get(folder / clip.path, "") for clip in clips}
        if params.corrections:
            spellings: Any = getattr(params, "label_spellings", "refuse")
            clips, dropped = apply_corrections(folder, clips, params.corrections, ignored + rejected, spellings)
            ignored = ignored + dropped
            fetched.origin["corrections"] = Path(params.corrections).name
        clip_files.report_rejected(ignored, rejected)
        clip_files.report_lost_labels(clips, ignored + rejected, fetched.lost)
        clip_files.check_usable(clips, rejected, params.max_rejected)
        if params.background:
            label = background.find_label(params.background, [clip.label for clip in clips])
            clip_files.require_two_labels(clips, label)
            fetched.origin["background"] = label
        write_table(folder / CLIPS.name, pd.DataFrame(clips, columns=Clip._fields))
        repeated = clip_files.find_repetitions(folder, clips, kept)
        write_table(folder / REPETITIONS.name, pd.DataFrame(repeated, columns=["clip", "recording"]))
        brought = [(clip.clip, splits[clip.clip]) for clip in clips if splits[clip.clip]]
        write_table(folder / PUBLISHED_SPLIT.name, pd.DataFrame(brought, columns=["clip", "split"]))
        write_table(folder / "metadata.csv", clip_files.make_metadata(clips, repeated))
        write_table(folder / REJECTED.name, pd.DataFrame(ignored + rejected, columns=["file", "reason"]))
        write_json(folder / DATASET_SOURCE.name, fetched.origin)
    if fetched.splits:
        print(f"{PUBLISHED_SPLIT}: {summarize_splits([splits[clip.clip] for clip in clips])}")
    print(f"{RAW}: {clip_files.summarize(clips, ignored, rejected)}")


def download_model() -> None:
    """Fetch the base model and check that it can be fine-tuned."""
    from stages.common.tables import write_json
    from stages.download.model.checkpoint_check import check_checkpoint
    from stages.download.model.config_changes import require_fit
    from stages.download.params import ModelParams

    params: Any = load_params("download.model", ModelParams)
    with atomic_outputs(BASE) as [folder]:
        folder.mkdir()
        origin = params.fetch(folder)
        summary = check_checkpoint(folder)
        if params.source != "random_weights" and params.config:
            require_fit(folder, params.config)
        write_json(folder / BASE_SOURCE.name, origin)
    print(f"{BASE}: {summary}")


def main(target: str) -> None:
    """Run one half of the stage."""
    {"dataset": download_dataset, "model": download_model}[target]()


if __name__ == "__main__":
    run_stage(main, targets=("dataset", "model"))
