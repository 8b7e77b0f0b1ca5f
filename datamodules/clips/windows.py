"""Extraction of windows from decoded streams: frames at a fixed rate and size, sound at a fixed rate."""

from __future__ import annotations

import heapq
from collections import deque
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
# More frames than any codec keeps to put them in the order of presentation
REORDERED = 32
# ITU-R BS.775, table 2, one channel: the low-frequency effects are left out, other channels than these are surround
CENTRE, FRONT, SURROUND = 1.0, 0.5**0.5, 0.5
CHANNELS = {"FL": FRONT, "FR": FRONT, "FC": CENTRE, "LFE": 0.0, "LFE2": 0.0}
# From the height and width of a frame as shown to FFmpeg filters and their arguments, which are applied before scaling
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


class OutOfOrder(Exception):
    """A frame has an earlier time than the one before it."""


def oriented(frame: Any, aspect: float) -> list[tuple[str, str]]:
    """The filters that make of a stored frame what is shown: square pixels, turned and mirrored by its display matrix.

    Args:
        frame: a decoded frame.
        aspect: width of a pixel over its height.
    """
    filters = []
    if aspect != 1:
        filters.append(("scale", f"{max(1, round(frame.width * aspect))}:{frame.height}:flags=bilinear"))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        # a shown point is (a x + c y, b x + d y)
        a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            filters.append(("transpose", "cclock_flip"))  # x and y change places
            a, d = c, b
        filters += [(name, "") for name, number in (("hflip", a), ("vflip", d)) if number < 0]
    return filters


def shown_size(frame: Any, aspect: float) -> tuple[int, int]:
    """Height and width of a frame as it is shown, see `oriented`."""
    size = frame.height, max(1, round(frame.width * aspect))
    return size[::-1] if "transpose" in dict(oriented(frame, aspect)) else size


class FrameExtractor:
    """Extracts the frames shown at start, start + 1/fps, ... from a stream of frames.

    Args:
        start: start of the window in seconds.
        window: the window.
        filters: applied to the frames before scaling.
        aspect: width of a pixel over its height.
        reorder: whether to give the frames, which decoders return in the order of presentation, their times in ascending
            order; otherwise times that step back raise OutOfOrder.
    """

    def __init__(
        self, start: float, window: VideoWindow, filters: Filters, aspect: float = 1.0, reorder: bool = False
    ) -> None:
        # a frame counts as shown a quarter of a frame early, so that rounded timestamps do not shift it
        self.start, self.first = start, start + 0.25 / window.fps
        self.window, self.filters, self.aspect, self.reorder = window, filters, aspect, reorder
        self.waiting: deque = deque()  # frames whose times are not certain yet, and their times
        self.times: list[float] = []
        self.latest = -float("inf")
        self.decoded = self.bad = 0  # packets
        self.lost = 0.0  # seconds of the window that the file should have and does not
        self.images = np.empty((window.frames, window.height, window.width, 3), np.uint8)
        self.extracted = 0
        self.shown: Any = None
        self.began: float | None = None
        self.until = start  # estimated end of the frame that is shown now
        self.graph: av.filter.Graph | None = None
        self.graph_input: tuple = ()

    @property
    def full(self) -> bool:
        return self.extracted == self.window.frames

    @property
    def starts_late(self) -> bool:
        """Whether the first frame is shown after the start of the window."""
        return self.began is not None and self.began > self.first

    @property
    def seconds(self) -> float:
        """How long the stream has frames from `start` on, as far as it was decoded."""
        return max(0.0, self.until - self.start)

    def skips(self, packet: av.Packet) -> bool:
        return False  # later frames depend on it

    def add(self, frame: Any) -> None:
        if self.began is None:
            self.began = frame.time
        if frame.time is None or not self.reorder:
            time = self.until if frame.time is None else frame.time
            if time < self.latest:
                raise OutOfOrder
            self.place(frame, time)
            return
        self.waiting.append(frame)
        heapq.heappush(self.times, frame.time)
        if len(self.waiting) > REORDERED:
            self.place(self.waiting.popleft(), heapq.heappop(self.times))

    def place(self, frame: Any, time: float) -> None:
        """Takes a frame that is shown from `time` on, after all frames before."""
        self.latest = max(self.latest, time)
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
            *(graph.add(name, settings) for name, settings in oriented(frame, self.aspect)),
            *(graph.add(name, settings) for name, settings in self.filters(*shown_size(frame, self.aspect))),
            graph.add("scale", f"{self.window.width}:{self.window.height}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ).configure()
        return graph

    def finish(self) -> None:
        """Repeats the last frame to the end of the window."""
        while self.waiting:
            self.place(self.waiting.popleft(), heapq.heappop(self.times))
        self.extract_until(float("inf"))

    def result(self) -> Tensor:
        """The frames: (T, H, W, 3) uint8."""
        if not self.full:
            raise BadSampleError("has no video frames")
        return torch.from_numpy(self.images)


class AudioExtractor:
    """Extracts the samples from `start` on from a stream of audio frames, resampled and mixed down to one channel.

    Stereo becomes its mean, and more channels the sum with the weights of ITU-R BS.775: a voice in the centre stays as loud
    as it is. A window whose sum is too loud for int16 is made quieter as a whole.
    """

    def __init__(self, start: float, window: AudioWindow) -> None:
        self.start, self.window = start, window
        self.mixed = np.zeros(window.samples, np.float32)
        self.resampler: av.AudioResampler | None = None
        self.resampler_input: tuple = ()
        self.weights: np.ndarray | None = None  # of more than two channels
        self.position: int | None = None  # position of the next sample, relative to `start`
        self.decoded = self.bad = 0  # packets
        self.lost = 0.0  # seconds of the window that the file should have and does not

    @property
    def sound(self) -> np.ndarray:
        """The samples: (S,) int16."""
        loudest = np.iinfo(np.int16).max
        peak = max(self.mixed.max(initial=0), -1 - self.mixed.min(initial=0))
        return (self.mixed * min(1.0, loudest / max(peak, 1))).round().astype(np.int16)

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
            channels = [channel.name for channel in frame.layout.channels]
            surround = len(channels) > 2
            self.weights = np.array([CHANNELS.get(name, SURROUND) for name in channels]) if surround else None
            format_, layout = ("flt", frame.layout) if surround else ("s16", "mono")
            self.resampler = av.AudioResampler(format=format_, layout=layout, rate=self.window.rate)
            self.resampler_input = input_format
        self.write(self.resampler.resample(frame))

    def write(self, parts: list[Any]) -> None:
        for part in parts:
            samples = part.to_ndarray()[0]
            if self.weights is not None:
                samples = samples.reshape(-1, len(self.weights)) @ self.weights * 2**15
            position = self.position or 0
            if part.time is not None:
                stamped = round((part.time - self.start) * self.window.rate)
                if self.position is None or abs(stamped - position) > JITTER * self.window.rate:
                    position = stamped
            self.position = position + len(samples)
            kept = samples[max(0, -position) : max(0, self.window.samples - position)]
            self.mixed[max(0, position) : max(0, position) + len(kept)] = kept

    def finish(self) -> None:
        """Writes the samples that the resampler still holds."""
        if self.resampler is not None and not self.full:
            self.write(self.resampler.resample(None))

    def result(self) -> Tensor:
        """The samples: (S,) int16."""
        return torch.from_numpy(self.sound)
