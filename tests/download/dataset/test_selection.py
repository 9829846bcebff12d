import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.extensions import EXTENSIONS, UNDECODABLE
from stages.download.dataset.selection import HIDDEN, MAX_NAME, NOT_AUDIO, save_clip, select_clips

PARTS = st.text(min_size=1, max_size=6).map(lambda text: text.replace("/", "-"))
SUFFIXES = st.sampled_from([".wav", ".MP3", ".opus", ".m4a", ".txt", ""])
PATHS = st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=3).map("/".join), SUFFIXES).map("".join), unique=True)


@pytest.mark.slow
@given(PATHS)
def test_every_path_is_selected_ignored_or_rejected(paths: list[str]) -> None:
    candidates, ignored, rejected = select_clips(paths, spellings="keep")
    assert len(candidates) + len(ignored) + len(rejected) == len(paths)
    names = [(Path(candidate.name).stem, Path(candidate.name).suffix) for candidate in candidates]
    assert len({stem for stem, _ in names}) == len(names)
    assert [paths[candidate.position] for candidate in candidates] == [candidate.path for candidate in candidates]


@pytest.mark.parametrize(
    "name",
    [
        "hip\u00a0hop",
        "\u3000x",
        "می\u200cخواهم",
        "👩\u200d🎤",
        "a\u2028b",
        "e\u0301",
        "=1+1",
        "...Baby One More Time",
        " x ",
    ],
)
def test_any_name_is_taken(name: str) -> None:
    (candidate,), ignored, rejected = select_clips([f"{name}/{name}.wav"])
    assert (candidate.label, candidate.name) == (name, f"{name}.wav")
    assert not ignored + rejected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/x\udce9.wav", "its name is not UTF-8"),
        ("a\nb/x.wav", "its name has a control character"),
        ("a/x.wav/y.wav", "not at <label>/<file>"),
        ("x.wav", "not at <label>/<file>"),
        *((f"a/x{suffix}", f"ffmpeg -i x{suffix} x.flac") for suffix in sorted(UNDECODABLE)),
        ("a/x.M4A", "soundfile cannot decode it, or not notice a cut; convert it, e.g. ffmpeg -i x.M4A x.flac"),
        (f"a/{'音' * 84}.wav", "name too long: 256 bytes with what tells it apart from others; shorten it to 255"),
    ],
)
def test_rejected_clip_has_its_reason(path: str, reason: str) -> None:
    candidates, ignored, ((name, found),) = select_clips([path], depth=2)
    assert not candidates + ignored
    assert reason in found
    assert name in (path, ascii(path))
    name.encode()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/x.txt", NOT_AUDIO),
        ("a/x", NOT_AUDIO),
        ("a/._x.wav", HIDDEN),
        (".x/y.wav", HIDDEN),
        ("a/\udce9.txt", NOT_AUDIO),
    ],
)
def test_other_files_are_ignored(path: str, reason: str) -> None:
    candidates, ignored, rejected = select_clips([path], depth=2)
    assert not candidates + rejected
    assert [found for _, found in ignored] == [reason]


def test_second_file_with_one_path_is_rejected() -> None:
    (candidate,), _, rejected = select_clips(["a/x.wav", "a/x.wav"])
    assert candidate.position == 0
    assert rejected == [("a/x.wav", "another file with this path comes first")]


@pytest.mark.parametrize(("characters", "fits"), [(70, True), (71, False)])
def test_name_may_have_255_bytes_with_its_label(characters: int, fits: bool) -> None:
    paths = [f"{label * 40}/{name}.wav" for label in "ab" for name in ("音" * characters, "y")]
    candidates, _, rejected = select_clips(paths, depth=2)
    assert [candidate.path for candidate in candidates] == (paths if fits else [paths[1], paths[3]])
    assert [path for path, _ in rejected] == ([] if fits else [paths[0], paths[2]])
    assert all(len(candidate.name.encode()) <= MAX_NAME for candidate in candidates)


def test_extensions_are_lower_case_and_apart() -> None:
    assert not EXTENSIONS & UNDECODABLE
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in EXTENSIONS | UNDECODABLE)


def test_file_is_not_overwritten(tmp_path: Path) -> None:
    """On a file system that ignores case, x and X are one file."""
    assert save_clip(io.BytesIO(b"1"), tmp_path / "a/x.wav") is None
    assert "same name" in str(save_clip(io.BytesIO(b"2"), tmp_path / "a/x.wav"))
    assert (tmp_path / "a/x.wav").read_bytes() == b"1"


def test_name_that_the_file_system_refuses(tmp_path: Path) -> None:
    assert "cannot hold its name" in str(save_clip(io.BytesIO(b""), tmp_path / ("x" * 300)))
