"""Encode and decode video and sound with PyAV. Times are presentation times in seconds, whatever the file's own rates."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from datamodules.errors import BadSampleError


@dataclass(frozen=True)
class VideoWindow:
    """What is taken of a video: `frames` at `fps`, scaled to height x width."""

    frames: int
    fps: float
    height: int
    width: int


@dataclass(frozen=True)
class AudioWindow:
    """What is taken of a sound: `samples` at `rate` per second, mixed to one channel."""

    samples: int
    rate: int


def encode_clip(video: np.ndarray, fps: int, sound: np.ndarray, rate: int) -> bytes:
    """An mp4 (H.264 and AAC) of video (T, H, W, 3) uint8 and sound (S,) int16."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        picture = container.add_stream(
            "libx264", rate=fps, options={"preset": "ultrafast", "crf": "26", "threads": "1"}
        )
        picture.height, picture.width = video.shape[1:3]
        picture.pix_fmt = "yuv420p"
        voice = container.add_stream("aac", rate=rate, options={"aac_coder": "fast"}, layout="mono", bit_rate=32_000)
        rescale = VideoReformatter()
        for number, image in enumerate(video):
            frame = rescale.reformat(av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p", threads=1)
            frame.pts = number
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        samples = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        samples.sample_rate, samples.time_base, samples.pts = rate, Fraction(1, rate), 0
        container.mux(voice.encode(samples))
        container.mux(voice.encode(None))
    return file.getvalue()


def decode_clip(
    content: bytes, start: float, video: VideoWindow | None, audio: AudioWindow | None
) -> tuple[Tensor | None, Tensor | None]:
    """The part of a clip that begins `start` seconds in: frames (T, H, W, 3) uint8 and samples (S,) int16.

    A frame is the one that is shown at its time; the last one stays where the video ends early; sound that is missing at
    the end is silence. Raises BadSampleError for a file that cannot be decoded or lacks the stream asked for.
    """
    try:
        with av.open(io.BytesIO(content), "r") as container:
            takers: dict[av.stream.Stream, TakeFrames | TakeSound] = {}
            if video is not None:
                takers[one_stream(container.streams.video, "video")] = TakeFrames(start, video)
            if audio is not None:
                takers[one_stream(container.streams.audio, "audio")] = TakeSound(start, audio)
            if start > 0:
                container.seek(int(start * av.time_base))
            for packet in container.demux(*takers):
                taker = takers[packet.stream]
                if not taker.full:
                    for frame in packet.decode():  # of the kind that the stream holds
                        taker.add(frame)
                elif all(t.full for t in takers.values()):
                    break
            results = {type(taker): taker.result() for taker in takers.values()}
    except av.FFmpegError as error:
        raise BadSampleError(f"cannot be decoded: {error.strerror}") from error
    return results.get(TakeFrames), results.get(TakeSound)


def one_stream(streams: tuple, kind: str) -> av.stream.Stream:
    """The first stream of its kind, decoded on one thread, since loaders already run side by side."""
    if not streams:
        raise BadSampleError(f"has no {kind} stream")
    streams[0].codec_context.thread_count = 1
    return streams[0]


class TakeFrames:
    """Takes the frames shown at start, start + 1/fps, ... out of a stream of frames."""

    def __init__(self, start: float, window: VideoWindow) -> None:
        # a frame counts as shown from a quarter of a frame earlier on, so that rounded time stamps do not shift it
        self.due = [start + (i + 0.25) / window.fps for i in range(window.frames)]
        self.window = window
        self.rescale = VideoReformatter()
        self.taken: list[np.ndarray] = []
        self.shown: av.VideoFrame | None = None

    @property
    def full(self) -> bool:
        return len(self.taken) == len(self.due)

    def add(self, frame: Any) -> None:
        self.take_until(frame.time)
        self.shown = frame

    def take_until(self, time: float) -> None:
        """The frame shown now is taken for every moment before `time`."""
        count = sum(due < time for due in self.due[len(self.taken) :])
        if self.shown is not None and count:
            rgb = self.rescale.reformat(self.shown, self.window.width, self.window.height, "rgb24", threads=1)
            self.taken += [rgb.to_ndarray()] * count

    def result(self) -> Tensor:
        if self.shown is None:
            raise BadSampleError("has no video frames")
        self.take_until(float("inf"))
        return torch.from_numpy(np.stack(self.taken))


class TakeSound:
    """Takes `samples` of sound from `start` on out of a stream of sound frames, resampled and mixed to one channel."""

    def __init__(self, start: float, window: AudioWindow) -> None:
        self.start, self.window = start, window
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=window.rate)
        self.sound = np.zeros(window.samples, np.int16)
        self.full = False

    def add(self, frame: Any) -> None:
        for part in self.resampler.resample(frame):
            place = round(((part.time or 0.0) - self.start) * self.window.rate)
            samples = part.to_ndarray()[0, max(0, -place) :]
            place = max(0, place)
            room = max(0, min(len(samples), self.window.samples - place))
            self.sound[place : place + room] = samples[:room]
            self.full = place + len(samples) >= self.window.samples

    def result(self) -> Tensor:
        if not self.full:
            self.add(None)  # what the resampler still holds
        return torch.from_numpy(self.sound)
