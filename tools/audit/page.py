"""Write the page on which a person listens to the suspects and decides: one HTML file that needs no server."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from tqdm import tqdm

from stages.common.audio import load_audio
from stages.common.clip_tables import match_names
from stages.common.params import read_file
from stages.common.paths import PARAMS, RAW
from stages.common.tables import require_intact
from stages.download.dataset.corrections import Correction, read_corrections
from stages.evaluate.report import SAMPLING_RATE, encode_mp3, show_text
from tools.audit.suspects import Suspect

CORRECTIONS = Path("data/labels/corrections.csv")
CLIP_SECONDS = 12.0  # of each clip, from its start
HERE = Path(__file__).parent


def read_dataset() -> dict[str, Any]:
    """Return the section download.dataset of params.yaml; empty if there is none."""
    section: Any = read_file() if PARAMS.is_file() else None
    for key in ("download", "dataset"):
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def read_decisions(clips: pd.DataFrame) -> list[Correction]:
    """Read the corrections that params.yaml names, else those of CORRECTIONS; none if there is no file.

    Args:
        clips: columns clip and label. The decisions get their names, except those that drop a clip: it may be gone, and
            another clip may have a similar name.
    """
    path = read_dataset().get("corrections")
    if path is None and not CORRECTIONS.is_file():
        return []
    decided = read_corrections(str(path or CORRECTIONS))
    names = match_names([one.clip for one in decided], dict(zip(clips["clip"], clips["label"])))
    return [one if one.action == "drop" else one._replace(clip=names.get(one.clip, one.clip)) for one in decided]


def write_page(file: Path, suspects: list[Suspect], clips: pd.DataFrame, decided: list[Correction]) -> None:
    """Write the page, with the recordings in it.

    Args:
        clips: the content of clips.csv. decided: earlier decisions, which the saved table has, too.
    """
    rows, dataset = clips.set_index("clip"), read_dataset()
    paths, sums = rows["path"].to_dict(), rows["sha256"].to_dict()
    listed = [one._asdict() | {"sha256": sums[one.clip]} for one in suspects]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,  # users choose the names of clips and labels
        finalize=show_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {
        "suspects": listed,
        "labels": sorted(set(clips["label"])),
        "keep": dataset.get("label_spellings") == "keep",  # spellings of a label are several labels
        "decided": [one._asdict() for one in decided],
        "key": hashlib.sha256(repr(listed).encode()).hexdigest(),  # of the choices that the browser keeps
    }
    sounds = [encode_clip(RAW / paths[one.clip], sums[one.clip]) for one in tqdm(suspects, "page", unit="clip")]
    page = environment.get_template("page.html").render(
        data=data,
        sounds=sounds,
        seconds=f"{CLIP_SECONDS:g}",
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        table=str(dataset.get("corrections") or CORRECTIONS.as_posix()),
    )
    file.write_text(page, encoding="utf-8")


def encode_clip(file: Path, sha256: str) -> str:
    """Return the start of a clip as MP3 in base64."""
    require_intact(file, sha256)
    samples = load_audio(file, SAMPLING_RATE, CLIP_SECONDS)
    return base64.b64encode(encode_mp3(samples)).decode()
