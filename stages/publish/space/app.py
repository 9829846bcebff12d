"""Show what an audio classifier hears: upload or record a sound, see its labels, and when they occur.

This file needs only the packages of requirements.txt. The model is the folder `model` beside it, or from the Hub.
"""

import base64
import io
import os
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import numpy as np
import soundfile
import soxr
from PIL import Image

MODEL = "your-name/my-audio-classifier"
CLIP_SECONDS = 30.0  # the model learnt from clips of at most this length; a longer recording is cut into such clips
SLACK = 0.05  # a recording up to this share longer than a clip is cut there, as in the evaluation
WINDOW_SECONDS = 3.0  # of the timeline
MAX_SECONDS, MAX_BYTES = 900, 200 * 2**20  # of a recording; of its file
SOUND_RATE = 22_050  # Hz, of the player and the spectrogram
BLOCK = 1 << 18  # samples that are read at a time
FRAME, WIDTH, HEIGHT = 2048, 900, 160  # of the spectrogram: samples, pixels, pixels
MIN_HZ, DECIBELS = 50, 80  # the bottom of the spectrogram; its range
TICKS_HZ = (100, 200, 500, 1000, 2000, 5000, 10_000)
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)  # seconds between ticks
MAX_LABELS = 12  # that are shown
CSS, SCRIPT = (Path(__file__).with_name(name).read_text() for name in ("page.css", "page.js"))
# Of the spectrogram, from silent to loud.
COLOURS = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))


class Window(NamedTuple):
    """A section of a recording: start and end in seconds, and the probabilities of the labels, float, (labels,)."""

    start: float
    end: float
    probabilities: np.ndarray


def encode_file(content: bytes, kind: str) -> str:
    """Return a file as an address that contains it, so that the server keeps nothing."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def encode_sound(samples: np.ndarray) -> str:
    """Encode as MP3, in an address. samples: float32, shape (samples,), mono at SOUND_RATE."""
    file = io.BytesIO()
    soundfile.write(file, samples, SOUND_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return encode_file(file.getvalue(), "audio/mpeg")


def draw_spectrogram(samples: np.ndarray) -> str:
    """Draw as PNG, in an address, with log frequency from MIN_HZ up. samples: as for `encode_sound`."""
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    starts = np.linspace(0, len(samples) - FRAME, WIDTH).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[starts] * np.hanning(FRAME)
    decibels = 20 * np.log10(np.abs(np.fft.rfft(frames)) + 1e-5)
    rows, bins = np.geomspace(SOUND_RATE / 2, MIN_HZ, HEIGHT), np.fft.rfftfreq(FRAME, 1 / SOUND_RATE)
    image = np.stack([np.interp(rows, bins, frame) for frame in decibels], axis=1)
    levels = np.clip((image - image.max()) / DECIBELS + 1, 0, 1) * 255
    picture = Image.fromarray(levels.astype(np.uint8)).convert("P")
    scale = np.linspace(0, 255, len(COLOURS))
    palette = np.stack([np.interp(np.arange(256), scale, colour) for colour in zip(*COLOURS)], axis=1)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "png")
    return encode_file(file.getvalue(), "image/png")


def show_bars(labels: list[str], probabilities: np.ndarray, actual: str | None) -> str:
    """Return a bar for each label, the most probable first: at most MAX_LABELS, and that of the actual label."""
    rows = []
    for rank, row in enumerate(np.argsort(-probabilities, kind="stable")):
        if rank >= MAX_LABELS and labels[row] != actual:
            continue
        kind = "actual" if labels[row] == actual else "" if rank else "top" if actual is None else "wrong"
        name, value = escape(labels[row]), probabilities[row]
        rows.append(f'<span>{name}</span><i class="{kind}" style="--p:{value:.3f}"></i><b>{value:.2f}</b>')
    return f'<div class="bars">{"".join(rows)}</div>'


def show_windows(labels: list[str], windows: list[Window], seconds: float) -> tuple[str, str, list[str]]:
    """Return the buttons of windows, a cell for each of their labels, and the names of the labels that have a row."""
    if not windows:
        return "", "", []
    table = np.stack([window.probabilities for window in windows])
    highest = np.argsort(-table.max(axis=0), kind="stable")[:MAX_LABELS]
    shown = sorted(highest, key=lambda label: -table[:, label].mean())
    ends = [window.start for window in windows[1:]] + [seconds]
    buttons, cells = [], []
    for (start, end, row), stop in zip(windows, ends):
        best = ", ".join(f"{labels[label]} {row[label]:.2f}" for label in np.argsort(-row, kind="stable")[:3])
        text = escape(f"{start:.1f} to {end:.1f} s: {best}")
        place = f"left:{100 * start / seconds:.3f}%;width:{100 * (stop - start) / seconds:.3f}%"
        data = f'data-start="{start:.3f}" data-end="{stop:.3f}"'
        buttons.append(f'<button style="{place}" {data} title="{text}" aria-label="{text}"></button>')
        for y, label in enumerate(shown):
            box = f'x="{start:.3f}" y="{y}.06" width="{stop - start:.3f}" height=".88"'
            cells.append(f'<rect {box} fill-opacity="{row[label]:.2f}"/>' if row[label] >= 0.02 else "")
    return "".join(buttons), "".join(cells), [labels[label] for label in shown]


def show_timeline(samples: np.ndarray, labels: list[str], windows: list[Window]) -> str:
    """Return the spectrogram, the probabilities of each window below it, and axes in seconds and Hz."""
    seconds, top = len(samples) / SOUND_RATE, SOUND_RATE / 2
    buttons, cells, shown = show_windows(labels, windows, seconds)
    names = "".join(f'<div title="{escape(name)}">{escape(name)}</div>' for name in shown)
    step = next((step for step in STEPS if seconds / step <= 10), STEPS[-1])
    ticks = [(at * step, min(100, 100 * at * step / seconds)) for at in range(int(seconds / step + 0.05) + 1)]
    axis = "".join(f'<span class="{"end" * (x > 97)}" style="left:{x:.2f}%">{at:g} s</span>' for at, x in ticks)
    scale = 100 / np.log(top / MIN_HZ)
    hz = "".join(f'<span style="top:{scale * np.log(top / at):.1f}%">{at} Hz</span>' for at in TICKS_HZ)
    size = f'viewBox="0 0 {seconds:.3f} {max(1, len(shown))}" style="height:{1.4 * len(shown):.1f}rem"'
    plot = "plot dense" if len(windows) > 80 else "plot"  # without lines between the windows
    return (
        f'<div class="timeline"><div class="hz">{hz}</div><div class="{plot}" data-seconds="{seconds:.3f}">'
        f'<img src="{draw_spectrogram(samples)}" alt="spectrogram">'
        f'<svg {size} preserveAspectRatio="none" aria-hidden="true">{cells}</svg>{buttons}<div class="head"></div>'
        f'</div><div class="names">{names}</div><div class="seconds">{axis}</div></div>'
    )


def show_clip(title: str, note: str, samples: np.ndarray, bars: str, timeline: str) -> str:
    """Return the part of the page about one recording. bars, timeline: as the functions above return them."""
    heading = f"<header><h3>{escape(title)}</h3><small>{escape(note)}</small></header>"
    player = f'<audio controls preload="auto" src="{encode_sound(samples)}"></audio>'
    return f'<section class="clip">{heading}{bars}{player}{timeline}</section>'


def show_message(text: str) -> str:
    """Return a message in place of a result."""
    return f'<p class="message" role="alert">{escape(text)}</p>'


def read_recording(path: Path) -> tuple[np.ndarray, int]:
    """Read a file as mono: float32, (samples,), and its sampling rate in Hz. ValueError has the reason if it cannot."""
    try:
        with soundfile.SoundFile(path) as sound:
            rate, limit, blocks, total = sound.samplerate, MAX_SECONDS * sound.samplerate, [], 0
            while total <= limit and len(block := sound.read(BLOCK // sound.channels, "float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
                total += len(block)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").strip().rstrip(".")
        raise ValueError(f"cannot be read as audio ({reason}); try WAV, FLAC, OGG or MP3") from None
    if total > limit:
        raise ValueError(f"longer than {MAX_SECONDS // 60} minutes; cut it")
    if total < rate / 10:
        raise ValueError("shorter than 0.1 s")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all() or not np.ptp(samples):
        raise ValueError("silent, or without valid samples")
    return samples, rate


def list_starts(total: int, length: int) -> list[int]:
    """Return where windows start, side by side; the last one ends at the end, so it may start earlier."""
    return [*range(0, total - length, length), max(0, total - length)]


def find_label(probabilities: np.ndarray, labels: list[str], answer: dict[str, Any]) -> str:
    """Return the most probable label, or "none of these" if it is the background, or not probable enough."""
    label, least = labels[int(probabilities.argmax())], answer.get("threshold") or 0
    return label if probabilities.max() > least and label != answer.get("background") else "none of these"


class Classifier:
    """The model with its feature extractor."""

    def __init__(self) -> None:
        import torch  # the page can be drawn without these
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        source = folder if (folder := Path(__file__).with_name("model")).is_dir() else MODEL
        self.torch, self.extractor = torch, AutoFeatureExtractor.from_pretrained(source)
        self.model = AutoModelForAudioClassification.from_pretrained(source).eval()
        self.labels = [str(label) for _, label in sorted(self.model.config.id2label.items())]
        self.answer = getattr(self.model.config, "answer", None) or {}  # temperature, threshold and background

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the model's input for a clip, float32."""
        features = self.extractor(samples, sampling_rate=self.extractor.sampling_rate, return_tensors="np")
        return features[self.extractor.model_input_names[0]][0].astype(np.float32)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probabilities of the labels, float, (labels,)."""
        with self.torch.inference_mode():
            logits = self.model(self.torch.from_numpy(features)[None]).logits[0].double()
        return (logits / self.answer.get("temperature", 1)).softmax(-1).numpy()

    def classify(self, samples: np.ndarray, rate: int) -> tuple[np.ndarray, list[Window]]:
        """Return the mean probabilities of a recording, and its windows."""
        samples, rate = soxr.resample(samples, rate, self.extractor.sampling_rate), self.extractor.sampling_rate
        clip, length = round(CLIP_SECONDS * rate), round(WINDOW_SECONDS * rate)
        samples = samples if len(samples) > clip + round(SLACK * clip) else samples[:clip]
        means, windows, end = [], list[Window](), 0
        for first in list_starts(len(samples), clip):
            features = self.encode(part := samples[first : first + clip])
            means.append(self.predict(features))
            for start in list_starts(len(part), length):
                stop = min(first + start + length, len(samples))
                if stop <= end:  # in the clip before, too
                    continue
                is_samples = features.shape == part.shape  # a spectrogram has a fixed length, so each window gets one
                cut = slice(start, start + length)
                row = self.predict(features[cut] if is_samples else self.encode(part[cut]))
                windows.append(Window((first + start) / rate, stop / rate, row))
                end = stop
        return np.mean(means, axis=0), windows


def build_page(classifier: Classifier) -> gr.Blocks:
    """Return the page."""

    def answer(path: str | None) -> tuple[None, str]:
        if path is None:
            return None, ""
        name = Path(path).name
        try:
            samples, rate = read_recording(Path(path))
            probabilities, windows = classifier.classify(samples, rate)
        except ValueError as error:
            return None, show_message(f"{name}: {error}")
        sound, labels = soxr.resample(samples, rate, SOUND_RATE), classifier.labels
        bars, timeline = show_bars(labels, probabilities, None), show_timeline(sound, labels, windows)
        title, length = find_label(probabilities, labels, classifier.answer), len(samples) / rate
        return None, show_clip(title, f"{name}, {length:.1f} s", sound, bars, timeline)

    # Gradio deletes uploads after ten minutes: a result contains what it needs of them.
    with gr.Blocks(title=MODEL, analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(f"# {MODEL.split('/')[-1]}\nUpload or record a sound. Click on the timeline to play from there.")
        recorder = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Recording", editable=False)
        result = gr.HTML()
        for event in (recorder.upload, recorder.stop_recording):
            event(answer, recorder, [recorder, result], api_visibility="private")
    return page


if __name__ == "__main__":
    theme = gr.themes.Default(font="sans-serif", font_mono="monospace")  # without fonts from the internet
    look = {"theme": theme, "css": CSS, "head": f"<script>{SCRIPT}</script>", "footer_links": []}
    page = build_page(Classifier()).queue(max_size=100)
    page.launch(max_file_size=MAX_BYTES, run_history=False, ssr_mode=False, **look)
