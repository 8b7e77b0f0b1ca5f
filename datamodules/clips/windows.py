"""Takes a window out of streams of decoded frames: pictures at a fixed rate and size, sound at a fixed rate."""

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

# A sound's first packets after a jump decode wrong, since they build on the one before
ROLL_IN = 0.05
# Time stamps are rounded (to a millisecond in webm), sound is not: a step smaller than this is no gap
JITTER = 0.025
# From the height and width of a picture to the FFmpeg filters, with their arguments, that it passes before it is scaled
Filters = Callable[[int, int], list[tuple[str, str]]]


@dataclass(frozen=True)
class VideoWindow:
    """What is taken of a video: `frames` at `fps`, scaled to height x width."""

    frames: int
    fps: float
    height: int
    width: int

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def middle(self, height: int, width: int) -> list[tuple[str, str]]:
        """Keeps the largest box of the window's shape in the middle of a picture."""
        scale = min(height / self.height, width / self.width)
        return [("crop", f"{round(self.width * scale)}:{round(self.height * scale)}")]


@dataclass(frozen=True)
class AudioWindow:
    """What is taken of a sound: `samples` at `rate` per second, mixed to one channel."""

    samples: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


class TakeFrames:
    """Takes the frames shown at start, start + 1/fps, ... out of a stream of frames.

    seconds: how long, from `start` on, the stream has frames to show, as far as it was looked at.
    """

    def __init__(self, start: float, window: VideoWindow, filters: Filters) -> None:
        # a frame counts as shown from a quarter of a frame earlier on, so that rounded time stamps do not shift it
        self.start, self.first = start, start + 0.25 / window.fps
        self.window, self.filters = window, filters
        self.pictures = np.empty((window.frames, window.height, window.width, 3), np.uint8)
        self.taken = 0
        self.shown: Any = None
        self.until = start  # when the frame that is shown now ends, as far as is known
        self.graph: av.filter.Graph | None = None
        self.graph_takes: tuple = ()

    @property
    def full(self) -> bool:
        return self.taken == self.window.frames

    @property
    def seconds(self) -> float:
        return max(0.0, self.until - self.start)

    def skips(self, packet: av.Packet) -> bool:
        return False  # later frames are made of it

    def add(self, frame: Any) -> None:
        time = self.until if frame.time is None else frame.time
        self.take_until(time)
        self.shown = frame
        self.until = time + float(frame.duration * frame.time_base if frame.duration else 1 / self.window.fps)

    def take_until(self, time: float) -> None:
        """The frame shown now is taken for every moment before `time`."""
        last = self.taken
        while last < self.window.frames and self.first + last / self.window.fps < time:
            last += 1
        if self.shown is not None and last > self.taken:
            self.pictures[self.taken : last] = self.picture(self.shown)
            self.taken = last

    def picture(self, frame: Any) -> np.ndarray:
        """A frame's pixels, filtered and scaled in one pass."""
        takes = (frame.height, frame.width, frame.format.name)
        if self.graph is None or self.graph_takes != takes:  # a stream may change its size
            self.graph, self.graph_takes = self.make_graph(frame), takes
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
        """The last frame stays."""
        self.take_until(float("inf"))

    def result(self) -> Tensor:
        """(T, H, W, 3) uint8."""
        if not self.full:
            raise BadSampleError("has no video frames")
        return torch.from_numpy(self.pictures)


class TakeSound:
    """Takes `samples` of sound from `start` on out of a stream of sound frames, resampled and mixed to one channel.

    seconds: how long, from `start` on, the stream has sound, as far as it was looked at.
    """

    def __init__(self, start: float, window: AudioWindow) -> None:
        self.start, self.window = start, window
        self.sound = np.zeros(window.samples, np.int16)
        self.resampler: av.AudioResampler | None = None
        self.resampler_takes: tuple = ()
        self.place: int | None = None  # where the next sample belongs, counted from `start`

    @property
    def full(self) -> bool:
        return self.place is not None and self.place >= self.window.samples

    @property
    def seconds(self) -> float:
        return max(0, self.place or 0) / self.window.rate

    def skips(self, packet: av.Packet) -> bool:
        """Whether all of it sounds so long before the window that nothing in there needs it."""
        if packet.pts is None or packet.duration is None:
            return False
        return float((packet.pts + packet.duration) * packet.time_base) < self.start - ROLL_IN

    def add(self, frame: Any) -> None:
        takes = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self.resampler is None or self.resampler_takes != takes:  # a stream may change from mono to stereo
            self.finish()
            self.resampler = av.AudioResampler(format="s16", layout="mono", rate=self.window.rate)
            self.resampler_takes = takes
        self.put(self.resampler.resample(frame))

    def put(self, parts: list[Any]) -> None:
        for part in parts:
            samples = part.to_ndarray()[0]
            place = self.place or 0
            if part.time is not None:
                stamped = round((part.time - self.start) * self.window.rate)
                if self.place is None or abs(stamped - place) > JITTER * self.window.rate:
                    place = stamped
            self.place = place + len(samples)
            kept = samples[max(0, -place) : max(0, self.window.samples - place)]
            self.sound[max(0, place) : max(0, place) + len(kept)] = kept

    def finish(self) -> None:
        """What the resampler still holds."""
        if self.resampler is not None and not self.full:
            self.put(self.resampler.resample(None))

    def result(self) -> Tensor:
        """(S,) int16."""
        return torch.from_numpy(self.sound)
