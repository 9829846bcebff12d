"""Find labels that are probably wrong: a ranked list, and a page to listen and to keep, change or drop each.

Each clip is judged by a model that was trained without it: a logistic regression on the spectrum, cross-validated here,
or the fine-tuned models of a cross-validation, by their predictions of the test clips. The folds of
the regression keep each group of data/splits.csv together. The page needs no server and has the recordings in it. It
saves the decisions as a table of corrections, for data/labels/, which download reads:

    download:
      dataset:
        corrections: data/labels/corrections.csv

Reads   params.yaml; data/raw/; data/splits.csv; with --base data/encoded/ and models/base/; with --crossval
        metrics/predictions.csv of the experiments; the table of corrections
Writes  audit/suspects.csv: clip, label, suggested, score, reason; audit/audit.html
Run     python -m tools.audit; python -m tools.audit --crossval; python -m tools.audit EXPERIMENT ...
"""

from argparse import Namespace
from pathlib import Path

from stages.common.errors import UserError
from stages.common.outputs import require_files
from stages.common.paths import CLIPS, REPETITIONS
from stages.common.stage import command_parser, run_command

SUSPECTS, PAGE = "suspects.csv", "audit.html"
FOLDS = 5


def read_options() -> Namespace:
    """Read the command line."""
    parser = command_parser("tools.audit", __doc__)
    add = parser.add_argument
    add("experiments", nargs="*", help="folds of a cross-validation: experiments or git revisions")
    add("--crossval", action="store_true", help="use all experiments of HEAD that have folds")
    add(
        "--base", action="store_true", help="also train the regression on the base model's output; for a pretrained one"
    )
    add("--folds", type=int, help=f"of the regression; default: {FOLDS}")
    add("--page-clips", type=int, default=100, metavar="N", help="clips on the page, the most suspicious; default: 100")
    add("--folder", type=Path, default=Path("audit"), help="where to write; default: %(default)s")
    options = parser.parse_args()
    if (options.crossval or options.experiments) and (options.base or options.folds is not None):
        parser.error("--base and --folds belong to the regression, which a cross-validation replaces")
    options.folds = FOLDS if options.folds is None else options.folds
    if options.folds < 2:
        parser.error("--folds must be at least 2")
    if options.page_clips < 1:
        parser.error("--page-clips must be at least 1")
    return options


def main() -> None:
    """Write the list and the page."""
    options = read_options()
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise UserError(
            "cleanlab is not installed; pip install --constraint constraints.txt --editable '.[audit]'"
        ) from None
    import numpy as np
    import pandas as pd

    from stages.common.tables import read_table, write_table
    from tools.audit import page, probabilities, suspects

    require_files(CLIPS, REPETITIONS)
    clips, repetitions = read_table(CLIPS), read_table(REPETITIONS)
    decided = page.read_decisions(clips)
    uses_experiments = options.crossval or options.experiments
    if uses_experiments:  # before the clips are decoded, which takes long
        folds = probabilities.read_experiments(options.experiments, clips)
    features = probabilities.summarize_clips(clips)
    if not uses_experiments:
        used = np.hstack([features, probabilities.embed_clips(clips)]) if options.base else features
        folds = probabilities.cross_validate(clips, used, probabilities.find_groups(clips, repetitions), options.folds)
    ranked = suspects.rank_suspects(folds, clips, repetitions, suspects.measure_distances(features))
    known = {one.clip for one in decided}
    ranked = [one for one in ranked if one.clip not in known]
    options.folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(ranked, columns=suspects.Suspect._fields)
    write_table(options.folder / SUSPECTS, table.assign(score=table["score"].round(4)))
    page.write_page(options.folder / PAGE, ranked[: options.page_clips], clips, decided)
    accuracy = (folds.probabilities.argmax(axis=1) == folds.given).mean()
    print(f"{len(folds.clips)} clips were judged, {accuracy:.1%} of them as labelled; decided before: {len(decided)}")
    for reason in (suspects.REPETITION, suspects.CONFIDENT, suspects.DIFFERENT, suspects.OUTLIER):
        print(f"{reason}: {sum(one.reason.startswith(reason) for one in ranked)} clips")
    print(f"{options.folder / SUSPECTS} lists them; open {options.folder / PAGE} in a browser to listen and decide")


if __name__ == "__main__":
    run_command(main)
