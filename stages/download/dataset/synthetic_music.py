"""Compose short pieces of music in ten genres, from nothing but numpy and a seed.

The clips stand in for GTZAN when there is no network. A genre is a `Style`: ranges and choices of tempo, harmony and
rhythm. Each genre has a band, a `Sound`: instruments and their mix. Half of the clips are played by the band of any
genre, so that the mean spectrum alone says less about the genre than the rhythm does.
"""

import io
import math
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
    """What makes a genre. Patterns are a bar of sixteenths: digits are chord tones, x chords or hits, o soft hits."""

    bpm: tuple[float, float]
    swing: tuple[float, float]  # delay of off-beat eighths, in sixteenths
    scale: str
    progressions: tuple[str, ...]
    grooves: tuple[str, ...]
    bass: tuple[str, ...]
    comp: tuple[str, ...]
    lead: float  # chance of a new note at each eighth


class Sound(NamedTuple):
    """The band that plays a genre most often."""

    drums: tuple[str, str, str]  # low, middle, high
    bass: str
    comp: tuple[str, ...]
    lead: tuple[str, ...]
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
# What the low, the middle and the high drum play.
GROOVES = {
    "none": ("", "", ""),
    "shuffle": ("x.....x..x..", "...x.....x..", "x.xx.xx.xx.x"),
    "backbeat": ("x.......x.......", "....x.......x...", "x.o.x.o.x.o.x.o."),
    "rock": ("x.....x.x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "pop": ("x..x..x...x.....", "........x.......", "o...o...o...o..."),
    "disco": ("x...x...x...x...", "....x.......x...", "oox.oox.oox.oox."),
    "blast": ("xxxxxxxxxxxxxxxx", "..x...x...x...x.", "x...x...x...x..."),
    "thrash": ("x.xxx.xxx.xxx.xx", "....x.......x...", "x...x...x...x..."),
    "boombap": ("x..o...x..x.....", "....x.......x..o", "x.x.x.xxx.x.x.x."),
    "trap": ("x......x..x.....", "........x.......", "x.x.xxx.x.x.xoxo"),
    "swing": ("................", "....o.......o...", "x...x.o.x...x.o."),
    "train": ("x...x...x...x...", "o.xoo.xoo.xoo.xo", "................"),
    "onedrop": ("........x.......", "........x.......", "x.o.x.o.x.o.x.o."),
    "steppers": ("x...x...x...x...", "......x...x...x.", "x.x.x.x.x.x.x.x."),
}
MAJOR, MINOR, BLUES, PENTA = "024579b", "023578a", "03567a", "02479"
STYLES = {
    "blues": Style((58, 70), (0, 0), BLUES, ("I7 IV7 I7 I7 IV7 V7", "I7 IV7", "I7 V7 IV7 I7"), ("shuffle",),
                   ("0.01.12.21.1", "0..1..2..1.."), ("x.xx.xx.xx.x", "0.02.20.02.2"), 0.6),
    "classical": Style((92, 110), (0, 0), MAJOR, ("I IV V I", "I vi ii V", "i iv V i", "I V vi iii IV I"), ("none",),
                       ("0...........",), ("0.1.2.3.2.1.", "....x...x...", "x..........."), 0.6),
    "country": Style((112, 130), (0, 0.2), PENTA, ("I IV I V", "I I IV V", "I V IV I"), ("train",),
                     ("0.......2.......", "0...2...0...2..."), ("....x.......x...", "0.x.2.x.0.x.2.x."), 0.7),
    "disco": Style((114, 126), (0, 0.1), MINOR, ("i7 IV7", "i bVI bVII i", "ii7 V7 IM7 IM7", "i i bVII bVII"),
                   ("disco",), ("0.3.0.3.0.3.0.3.", "0.030.0.0.030.3."), ("xoxoxoxoxoxoxoxo", "..x...x...x...x."), 0.3),
    "hiphop": Style((82, 94), (0, 0.6), MINOR, ("i bVI", "i i iv i", "i7 iv7", "i7 bVIM7"), ("boombap", "trap"),
                    ("0......0..0.....", "0.............2."), ("x...............", "x......x........"), 0.2),
    "jazz": Style((150, 180), (0.8, 1.4), MAJOR, ("ii7 V7 IM7 vi7", "IM7 vi7 ii7 V7", "i7 iv7 ii7 V7"), ("swing",),
                  ("0...1...2...1...", "0...2...1...3..."), ("x.....x.........", "......x.......x."), 0.8),
    "metal": Style((150, 180), (0, 0), MINOR, ("i5 i5 bVI5 bVII5", "i5 bII5", "i5 bVII5 bVI5 V5"), ("blast", "thrash"),
                   ("0.000.000.000.00", "0000000000000000"), ("x.xxx.xxx.xxx.xx", "xxxxxxxxxxxxxxxx"), 0.3),
    "pop": Style((96, 110), (0, 0.1), PENTA, ("I V vi IV", "vi IV I V", "I vi IV V"), ("pop",),
                 ("0..0..0...0.....", "0..0..0.0..0..0."), ("x...............", "x..x..x.x..x..x."), 0.6),
    "reggae": Style((66, 78), (0, 0.5), PENTA, ("I IV", "i bVII", "I V IV IV", "i iv"), ("onedrop", "steppers"),
                    ("0.....0.2.1.0...", "..0.0...2.2.1..."), ("..x...x...x...x.", "..xx..xx..xx..xx"), 0.25),
    "rock": Style((122, 140), (0, 0.1), BLUES, ("I5 bVII5 IV5 I5", "I IV V IV", "vi5 IV5 I5 V5"), ("rock", "backbeat"),
                  ("0.0.0.0.0.0.0.0.",), ("x.x.x.x.x.x.x.x.", "x.....x.x......."), 0.4),
}  # fmt: skip
SOUNDS = {
    "blues": Sound(("kick", "snare", "hat"), "finger", ("guitar",), ("harmonica",), (-1, -1, 1), (1, 3), (0.7, 0.9)),
    "classical": Sound(("boom", "brush", "ride"), "strings", ("strings", "nylon"), ("strings", "flute"),
                       (-1, -3, 1), (0.2, 0.5), (0.7, 0.9)),
    "country": Sound(("kick", "brush", "shaker"), "finger", ("banjo",), ("fiddle", "banjo"),
                     (-1, -3, 1), (0.3, 0.8), (0.75, 0.92)),
    "disco": Sound(("kick", "snare", "open"), "finger", ("chop",), ("strings",), (1, 1, 0), (0.3, 1), (0.75, 0.92)),
    "hiphop": Sound(("boom", "snare", "hat"), "sub", ("rhodes",), ("square",), (1, 1, -1), (0.3, 1), (0.65, 0.85)),
    "jazz": Sound(("kick", "brush", "ride"), "upright", ("piano",), ("sax", "trumpet"),
                  (-1, 0, 2), (0.2, 0.6), (0.7, 0.9)),
    "metal": Sound(("kick", "snare", "ride"), "pick", ("crunch",), ("crunch",), (0, -1, -1), (5, 9), (0.75, 0.92)),
    "pop": Sound(("kick", "clap", "open"), "sub", ("saw",), ("singer",), (1, 0, 2), (0.3, 1.0), (0.7, 0.9)),
    "reggae": Sound(("kick", "rim", "hat"), "sub", ("organ",), ("organ", "flute"), (0, 1, -1), (0.3, 1), (0.65, 0.85)),
    "rock": Sound(("kick", "snare", "open"), "pick", ("guitar",), ("guitar",), (1, -1, -1), (2, 4), (0.75, 0.9)),
}  # fmt: skip
GENRES: tuple[str, ...] = tuple(STYLES)
BORROWING = 0.5  # share of clips that the band of any genre plays


def compose(genre: str, seconds: float, seed: Sequence[int] | int) -> np.ndarray:
    """A clip of `genre`: int16, shape (round(seconds * SAMPLING_RATE),), the same for the same arguments."""
    if genre not in STYLES:
        raise ValueError(f"unknown genre {genre!r}; known genres: {', '.join(GENRES)}")
    if round(seconds * SAMPLING_RATE) < 1:
        return np.zeros(0, np.int16)
    rng = np.random.default_rng(seed)
    style, sound = STYLES[genre], SOUNDS[genre]
    if rng.random() < BORROWING:
        sound = SOUNDS[rng.choice(GENRES)]
    piece = draw_piece(style, seconds, rng)
    comp, lead, bass, drums = (
        level(part) * 10 ** ((gain + rng.normal(0, 1.5)) / 20)
        for gain, part in (
            (0, play_part(piece, rng.choice(sound.comp), rng.choice(style.comp), 48, rng)),
            (sound.mix[2], play_lead(piece, style, rng.choice(sound.lead), rng)),
            (sound.mix[1], play_part(piece, sound.bass, rng.choice(style.bass), 31, rng)),
            (sound.mix[0] + 3, play_drums(piece, sound.drums, GROOVES[rng.choice(style.grooves)], rng)),
        )
    )
    band = level(np.tanh(rng.uniform(*sound.drive) * (comp + lead)))
    return master(band + bass + drums, rng.uniform(*sound.treble), rng)


def write_clip(file: Path, genre: str, seconds: float, seed: Sequence[int]) -> Path:
    """Compose a clip and write it as WAV, 16 bits."""
    wav = io.BytesIO()  # soundfile would wait after each file until it is on the disk, 15 ms
    soundfile.write(wav, compose(genre, seconds, seed), SAMPLING_RATE, format="WAV", subtype="PCM_16")
    file.write_bytes(wav.getbuffer())
    return file


def draw_piece(style: Style, seconds: float, rng: np.random.Generator) -> Piece:
    """A tempo, a key and a chord progression, entered at any beat."""
    bar = len(style.bass[0])  # 16 steps, or 12 in triple time
    step = 15 / rng.uniform(*style.bpm)
    steps = bar // 4 * rng.integers(16) + np.arange(int(seconds / step) + 1)
    times = (np.arange(len(steps)) + rng.uniform(*style.swing) * (steps % 4 == 2)) * step
    key = int(rng.integers(-3, 4))
    progression = [parse_chord(name) for name in rng.choice(style.progressions).split()]
    chords = [key + progression[s // bar % len(progression)] for s in steps]
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
    struck = [k for k, s in enumerate(piece.steps) if pattern[s % len(pattern)] != "."]
    for k, following in pairwise([*struck, len(piece.steps)]):
        symbol, chord = pattern[piece.steps[k] % len(pattern)], piece.chords[k]
        octave, degree = divmod(int(symbol), 3) if symbol.isdigit() else (0, slice(None))
        for tone in np.atleast_1d(chord[degree]):
            pitch = lowest + (tone - lowest) % 12 + 12 * octave
            note = play_note(instrument, int(pitch), (following - k) * piece.step)
            add(out, note * rng.uniform(0.7, 1.0), piece.times[k])
    return out


def play_lead(piece: Piece, style: Style, name: str, rng: np.random.Generator) -> np.ndarray:
    """A melody that wanders up and down the scale: float64 (size,)."""
    voice, out = retouch(VOICES[name], rng), np.zeros(piece.size)
    eighths = [k for k, s in enumerate(piece.steps) if s % 2 == 0 and rng.random() < style.lead]
    scale, place = [int(digit, 12) for digit in style.scale], rng.integers(4, 12)
    for k, following in pairwise([*eighths, len(piece.steps)]):
        place = np.clip(place + rng.integers(-2, 3), 0, 14)
        pitch = 60 + piece.key + scale[place % len(scale)] + 12 * (place // len(scale))
        note = play_note(voice, int(pitch), min(following - k, 6) * piece.step)
        add(out, note * rng.uniform(0.6, 1.0), piece.times[k])
    return out


def play_drums(piece: Piece, drums: Sequence[str], groove: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """One groove through the clip: float64 (size,)."""
    out = np.zeros(piece.size)
    for name, pattern in zip(drums, groove, strict=True):
        hit = strike(DRUMS[name], rng) * rng.uniform(0.6, 1.2)
        for step, time in zip(piece.steps, piece.times, strict=True) if pattern else ():
            symbol = pattern[step % len(pattern)]
            if symbol != ".":
                add(out, hit * rng.uniform(0.8, 1.0) * (0.4 if symbol == "o" else 1.0), time)
    return out


def strike(drum: Drum, rng: np.random.Generator) -> np.ndarray:
    """One hit, tuned a little differently in every clip: float64 (n,), at most half a second."""
    longest = SAMPLING_RATE // 2
    hz, ring, hiss = (drum.hz, drum.ring, drum.hiss) * rng.uniform(0.8, 1.25, 3)
    length = min(longest, int(6 * max(ring, hiss) * SAMPLING_RATE))  # -52 dB: the rest is not heard
    t = np.arange(length) / SAMPLING_RATE
    fall = (drum.drop - 1) * 0.03 * (1 - np.exp(-t / 0.03))  # the integral of the falling pitch
    tone = np.sin(2 * np.pi * hz * (t + fall)) * np.exp(-t / ring)
    noise = lfilter([1, -drum.edge], [1], rng.normal(0, 0.5, longest)[:length]) * np.exp(-t / hiss)
    return tone + drum.noise * noise


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
    hz, length = 440 * 2 ** ((pitch - 69) / 12), int(seconds * SAMPLING_RATE)
    t, phase, brilliance, loudness = (curve[:length] for curve in draw_curves(voice, math.ceil(seconds)))
    index = (TABLE * hz * phase).astype(np.int64) & (TABLE - 1)
    bright, dull = (wavetable(voice, hz, dullness).take(index) for dullness in (0.0, 1.0))
    sound = (dull + brilliance * (bright - dull)) * loudness
    # Short fades at both ends, so that there are no clicks.
    first, last = np.searchsorted(t, [voice.attack, seconds - 0.01], side="right")
    ends = np.ones(len(t))
    ends[:first] = t[:first] / voice.attack
    ends[last:] *= (seconds - t[last:]) / 0.01
    return sound * ends


@lru_cache(maxsize=8)  # the notes of a voice share them
def draw_curves(voice: Voice, seconds: int) -> tuple[np.ndarray, ...]:
    """Compute time, time with vibrato, brilliance and loudness, which no pitch changes: float64 (samples,) each."""
    t = np.arange(seconds * SAMPLING_RATE) / SAMPLING_RATE
    wobble = voice.vibrato / (2 * np.pi * 5.5) * np.sin(2 * np.pi * 5.5 * t) if voice.vibrato else 0.0
    return t, t + wobble, np.exp(-t / voice.shine), np.exp(-t / voice.decay)


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
