"""Name the clips by their paths."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import PurePosixPath
from typing import NamedTuple


class Place(NamedTuple):
    """Where a clip is in a data set: its label, and its folders (without the label's) and file name."""

    label: str
    parts: tuple[str, ...]


def name_files(places: Sequence[Place]) -> list[str]:
    """Return a name for the file of each clip. Without their extensions, all names differ.

    A name is the shortest end of the path that tells all clips apart: 1.wav, rock.1.wav, or Actor_01.rock.1.wav.
    If a folder has the files x.wav and x.flac, their clips are x.wav and x.flac. Clips with one path get numbers.
    """
    stems = _find_stems(places)
    longest = max((len(place.parts) for place in places), default=0) + 1
    levels = ([_join(place, stem, level) for place, stem in zip(places, stems)] for level in range(1, longest + 1))
    best: list[str] = []
    for names in levels:
        best = names if len(set(names)) > len(set(best)) else best
        if len(set(best)) == len(places):
            break
    return [f"{name}{_suffix(place)}" for place, name in zip(places, _number(best))]


def _suffix(place: Place) -> str:
    return PurePosixPath(place.parts[-1]).suffix


def _find_stems(places: Sequence[Place]) -> list[str]:
    """Return the file names, with an extension only if they differ in nothing else."""
    names_of: dict[tuple[str, tuple[str, ...], str], set[str]] = {}
    keys = [(label, parts[:-1], PurePosixPath(parts[-1]).stem) for label, parts in places]
    for key, place in zip(keys, places):
        names_of.setdefault(key, set()).add(place.parts[-1])
    return [key[2] if len(names_of[key]) == 1 else place.parts[-1] for key, place in zip(keys, places)]


def _join(place: Place, stem: str, level: int) -> str:
    """Join the last parts of a path. level: number of parts."""
    folders = [*place.parts[:-1], place.label]
    return ".".join([*folders[max(0, len(folders) - level + 1) :], stem])


def _number(names: list[str]) -> list[str]:
    """Append a number to each name that another clip already has."""
    used, numbered = set(names), []
    counters: dict[str, Iterator[int]] = {}
    for name in names:
        new = name
        if name in counters:
            new = next(other for number in counters[name] if (other := f"{name}.{number}") not in used)
            used.add(new)
        counters.setdefault(name, count(2))
        numbered.append(new)
    return numbered
