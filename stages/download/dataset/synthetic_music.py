"""Compose short pieces of music in ten genres, from nothing but numpy and a seed.

The clips stand in for GTZAN when there is no network. A genre is a `Style`: ranges and choices of tempo,
harmony, rhythm and instruments. Every clip draws from them, and some clips borrow a trait from a related
genre, so that the genres overlap as real ones do.
"""

import io
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.signal import lfilter

SAMPLING_RATE = 22_050  # Hz, as in GTZAN
TABLE = 1024  # samples in one cycle of a wavetable


class Voice(NamedTuple):
    """A pitched instrument: harmonic k has amplitude k ** -rolloff; high harmonics decay faster."""

    rolloff: float
    even: float = 1.0  # gain of the even harmonics; 0 sounds hollow, like a clarinet
    attack: float = 0.004  # seconds
    decay: float = 9.0  # seconds until 1/e; long for bowed, blown and organ notes
    shine: float = 9.0  # seconds until 1/e of the brilliance is left
    vibrato: float = 0.0  # depth, as a fraction of the pitch
    formant: float = 0.0  # Hz of a body resonance, 0 for none


class Drum(NamedTuple):
    """A drum: a falling tone under a burst of noise."""

    hz: float
    drop: float  # how many times higher the tone starts
    ring: float  # seconds until the tone is at 1/e
    noise: float  # gain of the noise
    hiss: float  # seconds until the noise is at 1/e
    edge: float  # 0 for white noise, towards 1 for the highest frequencies only


class Piece(NamedTuple):
    """The score the parts of a clip share, on a grid of sixteenths."""

    size: int  # samples
    step: float  # seconds of a sixteenth
    steps: np.ndarray  # int64 (n,), counted from the start of the progression
    times: np.ndarray  # float64 (n,), seconds into the clip
    key: int  # semitones above C
    chords: list[np.ndarray]  # n chords, semitones above C


class Style(NamedTuple):
    """What makes a genre. Patterns have 16 steps: digits are chord tones, x chords or hits, o soft hits."""

    bpm: tuple[float, float]
    swing: tuple[float, float]  # delay of off-beat eighths, in sixteenths
    scale: str
    progressions: tuple[str, ...]
    kits: tuple[str, ...]
    bass: tuple[str, ...]  # a voice, then patterns
    comp: tuple[tuple[str, ...], tuple[str, ...]]  # voices, patterns
    lead: tuple[tuple[str, ...], float]  # voices, chance of a new note at each eighth
    mix: tuple[float, float, float]  # dB of drums, bass, lead against the chords
    drive: tuple[float, float]  # overdrive of chords and lead
    treble: tuple[float, float]  # 0 for a flat equaliser, towards 1 the brighter


VOICES = {
    "piano": Voice(1.5, decay=0.7, shine=0.25),
    "rhodes": Voice(2.2, decay=0.6, shine=0.1, formant=1500),
    "nylon": Voice(1.4, decay=0.4, shine=0.12),
    "banjo": Voice(0.6, decay=0.16, shine=0.1, formant=1800),
    "chop": Voice(0.8, decay=0.05, shine=0.05),
    "guitar": Voice(1.1, decay=1.0, shine=0.5),
    "crunch": Voice(1.0, decay=3.0),
    "organ": Voice(1.2, even=0.5, attack=0.01, vibrato=0.003),
    "strings": Voice(1.1, attack=0.09, vibrato=0.005),
    "fiddle": Voice(0.9, attack=0.04, vibrato=0.008, formant=2500),
    "flute": Voice(2.6, attack=0.05, vibrato=0.006),
    "sax": Voice(1.0, attack=0.03, vibrato=0.007, formant=900),
    "trumpet": Voice(0.7, attack=0.03, vibrato=0.004, formant=1400),
    "harmonica": Voice(0.6, even=0.5, attack=0.03, vibrato=0.01, formant=2000),
    "singer": Voice(1.0, attack=0.05, vibrato=0.009, formant=700),
    "saw": Voice(0.9, attack=0.006, decay=0.8),
    "square": Voice(1.0, even=0.0, decay=1.5),
    "sub": Voice(3.0, decay=0.5),
    "finger": Voice(1.5, decay=0.5, shine=0.2),
    "upright": Voice(2.0, decay=0.25, shine=0.08),
    "pick": Voice(1.0, decay=0.4, shine=0.3),
}
DRUMS = {
    "kick": Drum(50, 4.0, 0.10, 0.1, 0.01, 0.0),
    "boom": Drum(42, 3.0, 0.28, 0.1, 0.01, 0.0),
    "snare": Drum(185, 1.3, 0.07, 0.9, 0.09, 0.3),
    "clap": Drum(900, 1.0, 0.01, 1.0, 0.06, 0.6),
    "rim": Drum(1600, 1.0, 0.02, 0.3, 0.01, 0.8),
    "hat": Drum(6100, 1.0, 0.01, 0.5, 0.025, 0.95),
    "open": Drum(5800, 1.0, 0.03, 0.5, 0.14, 0.95),
    "ride": Drum(4300, 1.0, 0.25, 0.3, 0.20, 0.9),
    "brush": Drum(300, 1.0, 0.02, 0.4, 0.10, 0.6),
    "shaker": Drum(7000, 1.0, 0.01, 0.3, 0.05, 0.9),
}
KITS = {
    "none": {},
    "backbeat": {"kick": "x.......x.......", "snare": "....x.......x...", "hat": "x.o.x.o.x.o.x.o."},
    "rock": {"kick": "x.....x.x.x.....", "snare": "....x.......x...", "open": "x.x.x.x.x.x.x.x."},
    "four": {"kick": "x...x...x...x...", "clap": "....x.......x...", "open": "..x...x...x...x."},
    "disco": {
        "kick": "x...x...x...x...",
        "snare": "....x.......x...",
        "hat": "xoxoxoxoxoxoxoxo",
        "open": "..x...x...x...x.",
    },
    "blast": {"kick": "xxxxxxxxxxxxxxxx", "snare": "..x...x...x...x.", "ride": "x...x...x...x..."},
    "thrash": {"kick": "x.xxx.xxx.xxx.xx", "snare": "....x.......x...", "open": "x...x...x...x..."},
    "boombap": {"boom": "x..o...x..x.....", "snare": "....x.......x..o", "hat": "x.x.x.xxx.x.x.x."},
    "trap": {"boom": "x......x..x.....", "clap": "........x.......", "hat": "x.x.xxx.x.x.xoxo"},
    "swing": {"ride": "x...x.o.x...x.o.", "hat": "....x.......x...", "kick": "o.......o......."},
    "train": {"kick": "x...x...x...x...", "brush": "o.xoo.xoo.xoo.xo"},
    "onedrop": {"kick": "........x.......", "rim": "........x.......", "hat": "x.o.x.o.x.o.x.o."},
    "steppers": {"kick": "x...x...x...x...", "rim": "......x...x...x.", "shaker": "x.x.x.x.x.x.x.x."},
}
MAJOR, MINOR, BLUES, PENTA = "024579b", "023578a", "03567a", "02479"
STYLES = {
    "blues": Style((65, 125), (0.5, 1.4), BLUES, ("I7 IV7 I7 I7 IV7 V7", "I7 IV7", "I7 V7 IV7 I7"),
                   ("backbeat",), ("finger", "0.0.1.1.2.2.1.1.", "0...1...2...1..."),
                   (("guitar",), ("x.x.x.x.x.x.x.x.", "x.......x.x.....", "0.0.2.2.0.0.2.2.")),
                   (("harmonica",), 0.8), (-4, -1, 3), (1, 3), (0.7, 0.85)),
    "classical": Style((55, 135), (0, 0.2), MAJOR, ("I IV V I", "I vi ii V", "i iv V i", "I V vi iii IV I"),
                       ("none",), ("strings", "0...............", "0.......2......."),
                       (("strings", "nylon"), ("0.2.1.2.0.2.1.2.", "x...............", "x...x...x...x...")),
                       (("strings", "flute"), 0.6), (-9, -3, 2), (0.2, 0.5), (0.75, 0.9)),
    "country": Style((80, 140), (0, 0.7), PENTA, ("I IV I V", "I I IV V", "I V IV I"),
                     ("train", "backbeat"), ("finger", "0.......2.......", "0...2...0...2..."),
                     (("banjo",), ("....x.......x...", "..x...x...x...x.", "0.x.2.x.0.x.2.x.")),
                     (("fiddle", "banjo"), 0.7), (-4, -3, 3), (0.3, 0.8), (0.85, 0.95)),
    "disco": Style((105, 132), (0, 0.2), MINOR, ("i7 IV7", "i bVI bVII i", "ii7 V7 IM7 IM7", "i i bVII bVII"),
                   ("disco",), ("finger", "0.3.0.3.0.3.0.3.", "0.030.0.0.030.3."),
                   (("chop",), ("xoxoxoxoxoxoxoxo", "x.xx.xx.x.xx.xx.", "..x...x...x...x.")),
                   (("strings",), 0.5), (5, 1, 0), (0.3, 1), (0.88, 0.97)),
    "hiphop": Style((72, 112), (0, 0.6), MINOR, ("i bVI", "i i iv i", "i7 iv7", "i7 bVIM7"),
                    ("boombap", "trap"), ("sub", "0......0..0.....", "0.............2."),
                    (("rhodes",), ("x...............", "x......x........", "0.2.1.2.0.2.1.2.")),
                    (("square",), 0.4), (5, 5, -2), (0.3, 1), (0.5, 0.7)),
    "jazz": Style((85, 190), (0.6, 1.5), MAJOR, ("ii7 V7 IM7 vi7", "IM7 vi7 ii7 V7", "i7 iv7 ii7 V7"),
                  ("swing",), ("upright", "0...1...2...1...", "0...2...1...3..."),
                  (("piano",), ("x.....x.........", "......x.......x.", "..x.......x.....")),
                  (("sax", "trumpet"), 0.7), (-1, 0, 4), (0.2, 0.6), (0.8, 0.93)),
    "metal": Style((95, 185), (0, 0.2), MINOR, ("i5 i5 bVI5 bVII5", "i5 bII5", "i5 bVII5 bVI5 V5"),
                   ("blast", "thrash"), ("pick", "0.0.0.0.0.0.0.0.", "0.000.000.000.00"),
                   (("crunch",), ("x.xxx.xxx.xxx.xx", "xxxxxxxxxxxxxxxx", "x.......x.......")),
                   (("crunch",), 0.5), (0, -2, -2), (7, 14), (0.85, 0.95)),
    "pop": Style((88, 132), (0, 0.3), PENTA, ("I V vi IV", "vi IV I V", "I vi IV V"),
                 ("four",), ("sub", "0.0.0.0.0.0.0.0.", "0.....0.0......."),
                 (("saw",), ("x...............", "x..x..x.x..x..x.", "x...x...x...x...")),
                 (("singer",), 0.7), (1, 0, 4), (0.3, 1.0), (0.78, 0.9)),
    "reggae": Style((64, 100), (0, 0.8), PENTA, ("I IV", "i bVII", "I V IV IV", "i iv"),
                    ("onedrop", "steppers"), ("sub", "0.....0.2.1.0...", "..0.0...2.2.1..."),
                    (("organ",), ("....x.......x...", "..x...x...x...x.", "..xx..x...xx..x.")),
                    (("organ", "flute"), 0.35), (0, 4, -1), (0.3, 1.0), (0.6, 0.8)),
    "rock": Style((95, 160), (0, 0.3), BLUES, ("I5 bVII5 IV5 I5", "I IV V IV", "vi5 IV5 I5 V5"),
                  ("rock",), ("pick", "0.0.0.0.0.0.0.0.", "0...0.0.0...0.2."),
                  (("guitar",), ("x.x.x.x.x.x.x.x.", "x.....x.x.......", "x..x..x.x.......")),
                  (("guitar",), 0.45), (2, -1, -1), (2, 4), (0.75, 0.9)),
}  # fmt: skip
GENRES: tuple[str, ...] = tuple(STYLES)
COUSINS = {
    "blues": ("rock", "jazz"), "classical": ("jazz", "country"), "country": ("blues", "pop"),
    "disco": ("pop", "hiphop"), "hiphop": ("reggae", "disco"), "jazz": ("blues", "classical"),
    "metal": ("rock",), "pop": ("disco", "rock"), "reggae": ("hiphop", "pop"), "rock": ("metal", "country"),
}  # fmt: skip
BORROWING = 0.12  # share of clips with a trait of another genre


def compose(genre: str, seconds: float, seed: Sequence[int] | int) -> np.ndarray:
    """A clip of `genre`: int16, shape (round(seconds * SAMPLING_RATE),), the same for the same arguments."""
    if genre not in STYLES:
        raise ValueError(f"unknown genre {genre!r}; known genres: {', '.join(GENRES)}")
    if round(seconds * SAMPLING_RATE) < 1:
        return np.zeros(0, np.int16)
    rng = np.random.default_rng(seed)
    style = draw_style(genre, rng)
    piece = draw_piece(style, seconds, rng)
    comp, lead, bass, drums = (
        level(part) * 10 ** ((gain + rng.normal(0, 1.5)) / 20)
        for gain, part in (
            (0, play_part(piece, rng.choice(style.comp[0]), rng.choice(style.comp[1]), 48, rng)),
            (style.mix[2], play_lead(piece, style, rng)),
            (style.mix[1], play_part(piece, style.bass[0], rng.choice(style.bass[1:]), 31, rng)),
            (style.mix[0], play_drums(piece, KITS[rng.choice(style.kits)], rng)),
        )
    )
    band = level(np.tanh(rng.uniform(*style.drive) * (comp + lead)))
    return master(band + bass + drums, rng.uniform(*style.treble), rng)


def write_clip(file: Path, genre: str, seconds: float, seed: Sequence[int]) -> Path:
    """Compose a clip and write it as WAV, 16 bits."""
    wav = io.BytesIO()  # soundfile would wait after each file until it is on the disk, 15 ms
    soundfile.write(wav, compose(genre, seconds, seed), SAMPLING_RATE, format="WAV", subtype="PCM_16")
    file.write_bytes(wav.getbuffer())
    return file


def draw_style(genre: str, rng: np.random.Generator) -> Style:
    """The genre's style, now and then with one trait of a cousin."""
    style, cousin = STYLES[genre], STYLES[rng.choice(COUSINS[genre])]
    trait = rng.choice(["bpm", "progressions", "kits", "bass", "comp", "lead"])
    return style._replace(**{trait: getattr(cousin, trait)}) if rng.random() < BORROWING else style


def draw_piece(style: Style, seconds: float, rng: np.random.Generator) -> Piece:
    """A tempo, a key and a chord progression, entered at any beat."""
    step = 15 / rng.uniform(*style.bpm)
    steps = 4 * rng.integers(16) + np.arange(int(seconds / step) + 1)
    times = (np.arange(len(steps)) + rng.uniform(*style.swing) * (steps % 4 == 2)) * step
    key = int(rng.integers(-3, 4))
    progression = [parse_chord(name) for name in rng.choice(style.progressions).split()]
    chords = [key + progression[s // 16 % len(progression)] for s in steps]
    return Piece(round(seconds * SAMPLING_RATE), step, steps, times, key, chords)


def parse_chord(name: str) -> np.ndarray:
    """Semitones of a Roman numeral above the key, int64 (3 or 4,): "I" is major, "i" minor, "I5" hollow."""
    found = re.fullmatch(r"(b?)([IViv]+)(M?\d?)", name)
    if found is None:
        raise ValueError(f"{name!r} is not a chord")
    flat, numeral, suffix = found.groups()
    root = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9}.get(numeral.lower(), 11) - len(flat)
    third = 4 if numeral.isupper() else 3
    shapes = {"": (0, third, 7), "7": (0, third, 7, 10), "M7": (0, third, 7, 11), "5": (0, 7, 12)}
    return root + np.array(shapes[suffix])


def play_part(piece: Piece, voice: str, pattern: str, lowest: int, rng: np.random.Generator) -> np.ndarray:
    """Chords, arpeggios or a bass line from MIDI note `lowest` up: float64 (size,)."""
    instrument, out = retouch(VOICES[voice], rng), np.zeros(piece.size)
    struck = [k for k, s in enumerate(piece.steps) if pattern[s % 16] != "."]
    for k, following in pairwise([*struck, len(piece.steps)]):
        symbol, chord = pattern[piece.steps[k] % 16], piece.chords[k]
        octave, degree = divmod(int(symbol), 3) if symbol.isdigit() else (0, slice(None))
        for tone in np.atleast_1d(chord[degree]):
            pitch = lowest + (tone - lowest) % 12 + 12 * octave
            note = play_note(instrument, int(pitch), (following - k) * piece.step)
            add(out, note * rng.uniform(0.7, 1.0), piece.times[k])
    return out


def play_lead(piece: Piece, style: Style, rng: np.random.Generator) -> np.ndarray:
    """A melody that wanders up and down the scale: float64 (size,)."""
    voice, out = retouch(VOICES[rng.choice(style.lead[0])], rng), np.zeros(piece.size)
    eighths = [k for k, s in enumerate(piece.steps) if s % 2 == 0 and rng.random() < style.lead[1]]
    scale, place = [int(digit, 12) for digit in style.scale], rng.integers(4, 12)
    for k, following in pairwise([*eighths, len(piece.steps)]):
        place = np.clip(place + rng.integers(-2, 3), 0, 14)
        pitch = 60 + piece.key + scale[place % len(scale)] + 12 * (place // len(scale))
        note = play_note(voice, int(pitch), min(following - k, 6) * piece.step)
        add(out, note * rng.uniform(0.6, 1.0), piece.times[k])
    return out


def play_drums(piece: Piece, kit: dict[str, str], rng: np.random.Generator) -> np.ndarray:
    """One kit through the clip: float64 (size,)."""
    out = np.zeros(piece.size)
    for name, pattern in kit.items():
        hit = strike(DRUMS[name], rng) * rng.uniform(0.6, 1.2)
        for step, time in zip(piece.steps, piece.times, strict=True):
            if pattern[step % 16] != ".":
                add(out, hit * rng.uniform(0.8, 1.0) * (0.4 if pattern[step % 16] == "o" else 1.0), time)
    return out


def strike(drum: Drum, rng: np.random.Generator) -> np.ndarray:
    """One hit, tuned a little differently in every clip: float64 (n,), at most half a second."""
    t = np.arange(SAMPLING_RATE // 2) / SAMPLING_RATE
    hz, ring, hiss = (drum.hz, drum.ring, drum.hiss) * rng.uniform(0.8, 1.25, 3)
    fall = (drum.drop - 1) * 0.03 * (1 - np.exp(-t / 0.03))  # the integral of the falling pitch
    tone = np.sin(2 * np.pi * hz * (t + fall)) * np.exp(-t / ring)
    noise = lfilter([1, -drum.edge], [1], rng.normal(0, 0.5, len(t))) * np.exp(-t / hiss)
    length = int(6 * max(ring, hiss) * SAMPLING_RATE)  # -52 dB: the rest is not heard
    return (tone + drum.noise * noise)[:length]


def retouch(voice: Voice, rng: np.random.Generator) -> Voice:
    """Vary the voice a little."""
    rolloff, decay, shine, formant = rng.uniform(0.9, 1.12, 4)
    return voice._replace(
        rolloff=voice.rolloff * rolloff,
        decay=voice.decay * decay,
        shine=voice.shine * shine,
        formant=voice.formant * formant,
    )


@lru_cache(maxsize=128)  # most notes of a clip come back
def play_note(voice: Voice, pitch: int, seconds: float) -> np.ndarray:
    """One note at MIDI `pitch`: float64 (seconds * SAMPLING_RATE,)."""
    hz = 440 * 2 ** ((pitch - 69) / 12)
    t = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    wobble = voice.vibrato / (2 * np.pi * 5.5) * np.sin(2 * np.pi * 5.5 * t) if voice.vibrato else 0.0
    index = (TABLE * hz * (t + wobble)).astype(np.int64) & (TABLE - 1)
    bright, dull = (wavetable(voice, hz, dullness).take(index) for dullness in (0.0, 1.0))
    sound = (dull + np.exp(-t / voice.shine) * (bright - dull)) * np.exp(-t / voice.decay)
    # Short fades at both ends, so that there are no clicks.
    first, last = np.searchsorted(t, [voice.attack, seconds - 0.01], side="right")
    ends = np.ones(len(t))
    ends[:first] = t[:first] / voice.attack
    ends[last:] *= (seconds - t[last:]) / 0.01
    return sound * ends


def wavetable(voice: Voice, hz: float, dullness: float) -> np.ndarray:
    """One cycle of the voice at `hz`, without harmonics that would alias: float64 (TABLE,)."""
    k = np.arange(1, 1 + min(TABLE // 2, int(0.45 * SAMPLING_RATE / hz)))
    gains = k ** -(voice.rolloff + dullness) * np.where(k % 2, 1.0, voice.even)
    if voice.formant:
        gains *= 0.15 + np.exp(-((np.log2(k * hz / voice.formant) / 0.7) ** 2))
    cycle = np.fft.irfft(np.concatenate([[0], -1j * gains]), TABLE)
    return cycle / np.sqrt(np.mean(cycle**2))


def add(out: np.ndarray, sound: np.ndarray, time: float) -> None:
    """Mix `sound` into `out` from `time` seconds on; the rest is cut off."""
    start = int(time * SAMPLING_RATE)
    length = max(0, min(len(sound), len(out) - start))
    out[start : start + length] += sound[:length]


def level(part: np.ndarray) -> np.ndarray:
    """Scale to a root mean square of 1; silence stays silent."""
    return part / (np.sqrt(np.mean(part**2)) + 1e-9)


def master(mix: np.ndarray, treble: float, rng: np.random.Generator) -> np.ndarray:
    """Equalise, add hiss, and set the loudness: float64 (size,) to int16 (size,)."""
    noise = lfilter([1], [1, -rng.uniform(0, 0.95)], rng.normal(size=len(mix)))
    mix = level(mix) + level(noise) * 10 ** (rng.uniform(-60, -35) / 20)
    mix = lfilter([1, -treble], [1], mix)
    loudness = 10 ** (rng.uniform(-26, -14) / 20)
    return np.round(32_000 * np.tanh(loudness * level(mix))).astype(np.int16)  # tanh rounds off the peaks
