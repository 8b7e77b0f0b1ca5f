"""Extraction of windows from decoded streams: frames at a fixed rate and size, sound at a fixed rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadSampleError

# Seconds to decode before the window: after a seek, the first audio packets decode incorrectly without the previous one
PREROLL = 0.05
# Timestamps are rounded (to a millisecond in webm), sound is not: a shorter step in seconds is not a gap
JITTER = 0.025
# From the height and width of a frame to FFmpeg filters and their arguments, which are applied before scaling
Filters = Callable[[int, int], list[tuple[str, str]]]


@dataclass(frozen=True)
class VideoWindow:
    """A window of a video: `frames` at `fps`, scaled to height x width."""

    frames: int
    fps: float
    height: int
    width: int

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def center_crop(self, height: int, width: int) -> list[tuple[str, str]]:
        """The largest centre crop with the aspect ratio of the window."""
        scale = min(height / self.height, width / self.width)
        return [("crop", f"{round(self.width * scale)}:{round(self.height * scale)}")]


@dataclass(frozen=True)
class AudioWindow:
    """A window of a sound: `samples` at `rate` per second, mixed down to one channel."""

    samples: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


class FrameExtractor:
    """Extracts the frames shown at start, start + 1/fps, ... from a stream of frames."""

    def __init__(self, start: float, window: VideoWindow, filters: Filters) -> None:
        # a frame counts as shown a quarter of a frame early, so that rounded timestamps do not shift it
        self.start, self.first = start, start + 0.25 / window.fps
        self.window, self.filters = window, filters
        self.images = np.empty((window.frames, window.height, window.width, 3), np.uint8)
        self.extracted = 0
        self.shown: Any = None
        self.until = start  # estimated end of the frame that is shown now
        self.graph: av.filter.Graph | None = None
        self.graph_input: tuple = ()

    @property
    def full(self) -> bool:
        return self.extracted == self.window.frames

    @property
    def seconds(self) -> float:
        """How long the stream has frames from `start` on, as far as it was decoded."""
        return max(0.0, self.until - self.start)

    def skips(self, packet: av.Packet) -> bool:
        return False  # later frames depend on it

    def add(self, frame: Any) -> None:
        time = self.until if frame.time is None else frame.time
        self.extract_until(time)
        self.shown = frame
        self.until = time + float(frame.duration * frame.time_base if frame.duration else 1 / self.window.fps)

    def extract_until(self, time: float) -> None:
        """Uses the frame shown now for all times of the window before `time`."""
        last = self.extracted
        while last < self.window.frames and self.first + last / self.window.fps < time:
            last += 1
        if self.shown is not None and last > self.extracted:
            self.images[self.extracted : last] = self.pixels(self.shown)
            self.extracted = last

    def pixels(self, frame: Any) -> np.ndarray:
        """The pixels of a frame, filtered and scaled in one pass."""
        input_format = (frame.height, frame.width, frame.format.name)
        if self.graph is None or self.graph_input != input_format:  # the size may change within a stream
            self.graph, self.graph_input = self.make_graph(frame), input_format
        self.graph.push(frame)
        scaled: Any = self.graph.pull()
        rows = np.frombuffer(scaled.planes[0], np.uint8).reshape(scaled.height, -1)
        return rows[:, : 3 * scaled.width].reshape(scaled.height, scaled.width, 3)

    def make_graph(self, frame: Any) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        time_base = frame.time_base or Fraction(1, 1000)
        graph.link_nodes(
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base),
            *(graph.add(name, settings) for name, settings in self.filters(frame.height, frame.width)),
            graph.add("scale", f"{self.window.width}:{self.window.height}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ).configure()
        return graph

    def finish(self) -> None:
        """Repeats the last frame to the end of the window."""
        self.extract_until(float("inf"))

    def result(self) -> Tensor:
        """The frames: (T, H, W, 3) uint8."""
        if not self.full:
            raise BadSampleError("has no video frames")
        return torch.from_numpy(self.images)


class AudioExtractor:
    """Extracts the samples from `start` on from a stream of audio frames, resampled and mixed down to one channel."""

    def __init__(self, start: float, window: AudioWindow) -> None:
        self.start, self.window = start, window
        self.sound = np.zeros(window.samples, np.int16)
        self.resampler: av.AudioResampler | None = None
        self.resampler_input: tuple = ()
        self.position: int | None = None  # position of the next sample, relative to `start`

    @property
    def full(self) -> bool:
        return self.position is not None and self.position >= self.window.samples

    @property
    def seconds(self) -> float:
        """How long the stream has sound from `start` on, as far as it was decoded."""
        return max(0, self.position or 0) / self.window.rate

    def skips(self, packet: av.Packet) -> bool:
        """Whether the packet is so far before the window that decoding does not need it."""
        if packet.pts is None or packet.duration is None:
            return False
        return float((packet.pts + packet.duration) * packet.time_base) < self.start - PREROLL

    def add(self, frame: Any) -> None:
        input_format = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self.resampler is None or self.resampler_input != input_format:  # a stream may change from mono to stereo
            self.finish()
            self.resampler = av.AudioResampler(format="s16", layout="mono", rate=self.window.rate)
            self.resampler_input = input_format
        self.write(self.resampler.resample(frame))

    def write(self, parts: list[Any]) -> None:
        for part in parts:
            samples = part.to_ndarray()[0]
            position = self.position or 0
            if part.time is not None:
                stamped = round((part.time - self.start) * self.window.rate)
                if self.position is None or abs(stamped - position) > JITTER * self.window.rate:
                    position = stamped
            self.position = position + len(samples)
            kept = samples[max(0, -position) : max(0, self.window.samples - position)]
            self.sound[max(0, position) : max(0, position) + len(kept)] = kept

    def finish(self) -> None:
        """Writes the samples that the resampler still holds."""
        if self.resampler is not None and not self.full:
            self.write(self.resampler.resample(None))

    def result(self) -> Tensor:
        """The samples: (S,) int16."""
        return torch.from_numpy(self.sound)
