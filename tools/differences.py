"""Find what differs between two runs of the pipeline: by dvc.lock which outputs, and by their files how much."""

import filecmp
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.paths import (
    BASE,
    BASELINES,
    ENCODED,
    ENVIRONMENT,
    EPOCHS,
    FIGURE,
    FINETUNED,
    METRICS,
    PREDICTIONS,
    RAW,
    REPORT,
    RUNS,
    SELECTION,
    SELECTION_CLIPS,
    SPLIT_COUNTS,
    SPLITS,
)
from stages.common.tables import read_table

# Of a probability. With other instructions of a CPU, those of an earlier demo differ by 2e-6, and by 2e-5 if evaluate
# runs the feature encoder too, which amplifies rounding. The convolutions of a GPU may round to TF32, which has three
# digits. What differs more is not from rounding in one evaluation. Rounding in training grows from step to step, so
# another type of CPU trains another model.
TOLERANCE = 1e-3
# In the order of the graph.
KINDS = {
    "data": (RAW, SPLITS, SPLIT_COUNTS),
    "base model": (BASE,),
    "encoding": (ENCODED,),
    "weights": (FINETUNED, EPOCHS, SELECTION, SELECTION_CLIPS, RUNS),
    "metrics": (BASELINES, METRICS, PREDICTIONS, FIGURE, REPORT),
    "other": (),
}

# Keys of metrics/environment.json that are no cause of a difference, and the libraries, which are compared one by one.
NO_CAUSE = ("libraries", "outputs", "seconds")


class Difference(NamedTuple):
    """An output that differs, and how: `3 of 50 files differ`."""

    path: Path
    how: str

    @property
    def place(self) -> int:
        """The position in the order of the graph."""
        paths = [path for paths in KINDS.values() for path in paths]
        return paths.index(self.path) if self.path in paths else len(paths)

    @property
    def kind(self) -> str:
        """The key of KINDS that has the path."""
        return next((kind for kind, paths in KINDS.items() if self.path in paths), "other")

    @property
    def before_encoding(self) -> bool:
        """Whether it is data or the base model, for which there is no tolerance."""
        return self.kind in ("data", "base model")

    def describe(self) -> str:
        """Return one line."""
        return f"{self.path}: {self.how}"


class Changes(NamedTuple):
    """How predictions differ: largest difference of a probability, number of clips with another label, of clips."""

    probability: float
    labels: int
    clips: int


def locked_outputs(stage: dict[str, Any]) -> dict[str, str]:
    """Return the hashes of a stage's outputs in dvc.lock, by path."""
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}


def find_other_inputs(lock: dict[str, Any]) -> list[Difference]:
    """Find outputs that dvc.lock has in two versions: as output of one stage, and as input of another."""
    made = {path: md5 for stage in lock.values() for path, md5 in locked_outputs(stage).items()}
    return [
        Difference(Path(dep["path"]), f"{name} ran with another version than the one in dvc.lock")
        for name, stage in lock.items()
        for dep in stage.get("deps", [])
        if name != "publish" and made.get(dep["path"], dep["md5"]) != dep["md5"]
    ]


def find_other_outputs(old: dict[str, Any], new: dict[str, Any], before: Path, after: Path) -> list[Difference]:
    """Find the outputs whose hash in two versions of dvc.lock differs.

    Args:
        before, after: folders with the outputs; what `before` lacks is not measured.
    """
    found = []
    for name, stage in new.items():
        hashes = locked_outputs(old.get(name, {}))
        for path, md5 in locked_outputs(stage).items():
            if hashes.get(path) != md5:
                found.append(Difference(Path(path), _measure(before / path, after / path)))
    paths = [path for paths in KINDS.values() for path in paths]
    return sorted(
        found, key=lambda difference: paths.index(difference.path) if difference.path in paths else len(paths)
    )


def _measure(before: Path, after: Path) -> str:
    """Return how two versions of an output differ."""
    if not before.exists() or not after.exists():
        return "differs; how much is not known, because DVC's cache does not have the old version"
    if not before.is_dir():
        return "differs"
    names = {file.relative_to(top) for top in (before, after) for file in top.rglob("*") if file.is_file()}
    differ = sorted(name for name in names if not _same(before / name, after / name))
    how = f"{len(differ)} of {len(names)} files differ" + (f", first {differ[0]}" if differ else "")
    if any(name.suffix == ".safetensors" for name in differ):
        how += f"; largest difference of a weight: {compare_weights(before, after)}"
    return how


def _same(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def compare_weights(before: Path, after: Path) -> str:
    """Return the largest absolute difference of the weights of two checkpoints, or what else is different."""
    from safetensors.torch import load_file

    first, second = (
        {name: tensor for file in sorted(top.glob("*.safetensors")) for name, tensor in load_file(file).items()}
        for top in (before, after)
    )
    if {name: tensor.shape for name, tensor in first.items()} != {
        name: tensor.shape for name, tensor in second.items()
    }:
        return "not comparable, because names or shapes differ"
    return f"{max(float((first[name].double() - second[name].double()).abs().max()) for name in first):.2g}"


def compare_predictions(before: Path, after: Path) -> Changes | None:
    """Compare two tables of predictions; None if one is missing or they have other clips or labels."""
    if not before.is_file() or not after.is_file():
        return None
    first, second = (read_table(file).set_index("clip") for file in (before, after))
    if not first.index.equals(second.index) or not first.columns.equals(second.columns):
        return None
    labels = int((first["prediction"] != second["prediction"]).sum())
    probabilities = [table.drop(columns=["label", "prediction"]).astype(float) for table in (first, second)]
    return Changes(float((probabilities[0] - probabilities[1]).abs().to_numpy().max()), labels, len(first))


def is_equal(differences: list[Difference], changes: Changes | None) -> bool:
    """Return whether a result is equal within the tolerance: same data, same labels, and close probabilities."""
    same_data = not any(difference.before_encoding for difference in differences)
    return same_data and changes is not None and not changes.labels and changes.probability <= TOLERANCE


def compare_environments(
    old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]], lock: dict[str, Any], stages: tuple[str, ...]
) -> list[str]:
    """Return a line for each stage whose environment differs: `train: cpu was A, here B`.

    Args:
        old, new: the entries of two versions of metrics/environment.json.
        lock: the stages of dvc.lock that belongs to `old`.
    """
    lines = []
    for stage in stages:
        first, second = old.get(stage, {}), new.get(stage, {})
        if not first or not second:
            lines += [f"{ENVIRONMENT}: it has no entry for {stage}"] if second else []
            continue
        if first.get("outputs") != locked_outputs(lock[stage]):
            lines.append(f"{ENVIRONMENT}: the entry of {stage} describes another run than that of dvc.lock")
        pairs = {name: (first.get(name), second.get(name)) for name in {**first, **second} if name not in NO_CAUSE}
        versions, here = first.get("libraries", {}), second.get("libraries", {})
        pairs |= {name: (versions[name], here[name]) for name in versions if name in here}
        if differ := [f"{name} was {was}, here {now}" for name, (was, now) in pairs.items() if was != now]:
            lines.append(f"{stage}: {'; '.join(differ)}")
    return lines
