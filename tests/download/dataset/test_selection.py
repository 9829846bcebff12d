from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stages.download.dataset.selection import select_clips

FILES = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["1", "2", ".x", "a.1"]), st.sampled_from([".wav", ".mp3", ".txt"])
)


@given(st.lists(FILES))
def test_every_path_is_selected_or_rejected(files: list[tuple[str, str, str]]) -> None:
    paths = list(dict.fromkeys(f"{label}/{stem}{suffix}" for label, stem, suffix in files))
    selected, rejected = select_clips(paths, depth=2)
    assert sorted([candidate.path for candidate in selected] + [file for file, _ in rejected]) == sorted(paths)


@given(st.lists(FILES))
def test_names_are_unique(files: list[tuple[str, str, str]]) -> None:
    selected, _ = select_clips(f"{label}/{stem}{suffix}" for label, stem, suffix in files)
    stems = [Path(candidate.name).stem for candidate in selected]
    assert len(set(stems)) == len(stems)


def test_label_comes_before_shared_names() -> None:
    selected, _ = select_clips(["a/1.wav", "a/2.wav", "b/1.wav"])
    assert [candidate.name for candidate in selected] == ["a.1.wav", "a.2.wav", "b.1.wav"]
