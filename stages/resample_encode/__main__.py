"""Convert every clip to model input: mono, resampled, cut, and through the base model's feature extractor.

Reads   params.yaml: resample_encode; data/raw/ (clips.csv and the files it lists); models/base/
Writes  data/encoded/: a data set for `datasets.load_from_disk` with clip, label and, in float16, the model's input or
        the output of a part of the model; the feature extractor's config; encoding.json with these params
Run     python -m stages.resample_encode
"""

import os
from typing import TYPE_CHECKING

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import BASE, CLIPS, ENCODED, RAW
from stages.common.stage import run_stage
from stages.resample_encode.params import ResampleEncodeParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy import ndarray
    from transformers import PreTrainedConfig

MAX_LISTED = 10  # silent clips that are named


def count_workers(on_gpu: bool) -> int:
    """Return one thread for each core; on a GPU two, which keep it busy, because each needs memory for a clip there."""
    cores = os.cpu_count() or 1
    return min(2, cores) if on_gpu else cores


def load_part(config: "PreTrainedConfig", params: ResampleEncodeParams) -> "Callable[[ndarray], ndarray] | None":
    """Return the part of the model whose output is cached, as `model_part.load_part` does; None for the input."""
    if params.cache == "input":
        return None
    from stages.resample_encode import model_part

    return model_part.load_part(BASE, config, params.cache, params.precision)


def warn_of_silence(clips: list[str], max_seconds: float, sampling_rate: int) -> None:
    """Name the clips, if any, of which the model gets only silence: their sound comes later, or is too high."""
    if not clips:
        return
    names = ", ".join(sorted(clips)[:MAX_LISTED])
    where = f"in the first {max_seconds} s at {sampling_rate} Hz"
    print(f"warning: silent {where}: {len(clips)} clips ({names}); remove them, or raise resample_encode.max_seconds")


def main() -> None:
    """Encode all clips on threads, in the order of clips.csv."""
    from stages.common.device import find_device  # before anything else imports torch

    # isort: split
    import numpy as np
    from tqdm import tqdm

    from stages.common.architectures import receptive_field
    from stages.common.audio import is_silent
    from stages.common.classifier import load_config
    from stages.common.encoded_clips import CACHE_COLUMNS, SHARD, write_encoded_clips
    from stages.common.tables import read_table, require_intact
    from stages.common.threads import map_in_threads
    from stages.resample_encode import features

    params = load_params("resample_encode", ResampleEncodeParams)
    require_files(CLIPS, BASE / "config.json")
    extractor = features.load_feature_extractor(BASE, params.feature_extractor)
    config = load_config(BASE)
    clips, silent = read_table(CLIPS), []
    workers = params.workers or count_workers(on_gpu=find_device() != "cpu" and params.cache != "input")
    min_samples = features.find_min_samples(extractor, receptive_field(config))
    run_part = load_part(config, params)

    def encode(clip: tuple[str, str]) -> np.ndarray:
        file, sha256 = RAW / clip[0], clip[1]
        require_intact(file, sha256)
        samples = features.load_clip(file, extractor, params.max_seconds, min_samples)
        if is_silent(samples):
            silent.append(file.stem)
        return features.encode_samples(samples, file, extractor, run_part)

    encoded = map_in_threads(encode, zip(clips["path"], clips["sha256"]), workers)
    arrays = tqdm(encoded, "encode", len(clips), unit="clip")
    column = CACHE_COLUMNS.get(params.cache, extractor.model_input_names[0])
    labels = sorted(set(clips["label"]))
    settings = params.model_dump(exclude={"workers"})
    with atomic_outputs(ENCODED) as [folder]:
        write_encoded_clips(folder, column, labels, zip(clips["clip"], clips["label"], arrays), settings)
        extractor.save_pretrained(folder)
    warn_of_silence(silent, params.max_seconds, extractor.sampling_rate)
    megabytes = (ENCODED / SHARD).stat().st_size / 1e6
    print(f"{ENCODED}: {len(clips)} clips at {extractor.sampling_rate} Hz, {megabytes:.0f} MB")


if __name__ == "__main__":
    run_stage(main)
