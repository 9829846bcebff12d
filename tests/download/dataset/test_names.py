from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download.dataset.names import Place, name_files

PARTS = st.sampled_from(["a", "b", "a.b", "1", "x"])
PLACES = st.lists(
    st.builds(
        lambda label, folders, stem, suffix: Place(label, (*folders, stem + suffix)),
        PARTS,
        st.lists(PARTS, max_size=2),
        PARTS,
        st.sampled_from([".wav", ".flac"]),
    )
)


def place(path: str) -> Place:
    *folders, label, name = path.split("/")
    return Place(label, (*folders, name))


@pytest.mark.slow
@given(PLACES)
def test_names_differ(places: list[Place]) -> None:
    stems = [PurePosixPath(name).stem for name in name_files(places)]
    assert len(set(stems)) == len(places)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["g/a/1.wav", "g/b/2.wav"], ["1.wav", "2.wav"]),
        (["a/1.wav", "a/2.wav", "b/1.wav"], ["a.1.wav", "a.2.wav", "b.1.wav"]),
        (["x/a/1.wav", "y/a/1.wav", "y/b/2.wav"], ["x.a.1.wav", "y.a.1.wav", "y.b.2.wav"]),
        (["t/x/a/1.wav", "u/x/a/1.wav"], ["t.x.a.1.wav", "u.x.a.1.wav"]),
        (["a/1.wav", "a/1.flac", "a/2.wav"], ["1.wav.wav", "1.flac.flac", "2.wav"]),
        (["a/1.wav", "a/1.WAV"], ["1.wav.wav", "1.WAV.WAV"]),
        (["a/1.wav", "a/1.wav", "b/2.wav"], ["1.wav", "1.2.wav", "2.wav"]),
        (["x/1.wav", "y/1.wav", "x/1.wav"], ["x.1.wav", "y.1.wav", "x.1.2.wav"]),
        (["a.b/c.wav", "a/b.c.wav", "a/c.wav"], ["c.wav", "b.c.wav", "c.2.wav"]),
    ],
    ids=[
        "file",
        "label",
        "parent",
        "grandparent",
        "extension",
        "case-of-extension",
        "same-path",
        "same-path-and-label",
        "dots",
    ],
)
def test_shortest_end_of_the_path(paths: list[str], names: list[str]) -> None:
    assert name_files([place(path) for path in paths]) == names


@pytest.mark.slow
def test_thousands_of_clips_with_one_path() -> None:
    names = name_files([Place("a", ("audio.wav",))] * 20_000)
    assert names[:3] == ["audio.wav", "audio.2.wav", "audio.3.wav"]
    assert len(set(names)) == 20_000


@pytest.mark.slow
@given(PLACES)
def test_label_comes_first_if_that_is_enough(places: list[Place]) -> None:
    """Longer names are only for clips that their label and file name do not tell apart."""
    files = [(place.label, place.parts[-1], PurePosixPath(place.parts[-1]).stem) for place in places]
    plain, with_label = {stem for _, _, stem in files}, {f"{label}.{stem}" for label, _, stem in files}
    if len(plain) == len(files):
        assert name_files(places) == [name for _, name, _ in files]
    elif len(with_label) == len(files):
        assert name_files(places) == [f"{label}.{name}" for label, name, _ in files]
