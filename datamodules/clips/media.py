"""Encode and decode video and sound with PyAV. Times are presentation times in seconds, whatever the file's own rates."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from ..core.errors import BadSampleError
from .windows import ROLL_IN, AudioWindow, Filters, TakeFrames, TakeSound, VideoWindow

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def encode_clip(
    video: np.ndarray | None,
    fps: int | Fraction,
    sound: np.ndarray | None,
    rate: int,
    *,
    key_every: int | None = None,
    preset: str = "ultrafast",
    quality: int = 26,
    bit_rate: int = 32_000,
) -> bytes:
    """An mp4 (H.264 and AAC) of video (T, H, W, 3) uint8, with even H and W, and sound (S,) or (S, channels) int16.

    key_every: frames from one key frame to the next, since decoding begins at one; the encoder's choice if left out.
    preset, quality: x264's preset and constant rate factor, where less is better. bit_rate: of the sound, per second.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        streams: list[tuple[Any, Iterator]] = []
        if video is not None:
            # x264's macroblock tree in AVX-512 chose other key frames' bits in 15 of 300 encodings of one clip
            options = {"preset": preset, "crf": str(quality), "threads": "1", "mbtree": "0"}
            if key_every is not None:
                options["g"] = str(key_every)
            picture = container.add_stream("libx264", rate=fps, options=options)
            picture.height, picture.width = video.shape[1:3]
            picture.pix_fmt = "yuv420p"
            streams.append((picture, video_frames(video)))
        if sound is not None:
            layout = LAYOUTS[1 if sound.ndim == 1 else sound.shape[1]]
            voice = container.add_stream("aac", rate=rate, options={"aac_coder": "fast"}, layout=layout)
            voice.bit_rate = bit_rate
            streams.append((voice, sound_frames(sound, rate, layout)))
        for stream, frames in streams:  # the header, written with the first packet, names both
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return file.getvalue()


def video_frames(video: np.ndarray) -> Iterator[av.VideoFrame]:
    rescale = VideoReformatter()
    for number, image in enumerate(video):
        frame = rescale.reformat(av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p", threads=1)
        frame.pts = number
        yield frame


def sound_frames(sound: np.ndarray, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    yield frame


def decode_clip(
    content: bytes | Path,
    start: float,
    video: VideoWindow | None,
    audio: AudioWindow | None,
    filters: Filters | None = None,
    fill_missing: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """The part of a clip that begins `start` seconds in: frames (T, H, W, 3) uint8 and samples (S,) int16.

    A frame is the one that is shown at its time; the last one stays where the video ends early; sound that is missing at
    either end is silence.

    content: a file's bytes or its path.
    filters: what the pictures pass before they are scaled to the window; `video.middle` if left out.
    fill_missing: a clip without pictures is black, one without sound silent; else they are bad samples.

    Raises BadSampleError for a file that cannot be decoded or lacks the stream asked for.
    """
    frames, sound = read_window(content, start, video, audio, filters)
    for asked, found, kind in ((video, frames, "video"), (audio, sound, "audio")):
        if asked is not None and found is None and not fill_missing:
            raise BadSampleError(f"has no {kind} stream")
    pictures = samples = None
    if video is not None:
        black = torch.zeros(video.frames, video.height, video.width, 3, dtype=torch.uint8)
        pictures = black if frames is None else frames.result()
    if audio is not None:
        samples = torch.zeros(audio.samples, dtype=torch.int16) if sound is None else sound.result()
    return pictures, samples


@dataclass(frozen=True)
class ClipInfo:
    """What a file says of itself: its length in seconds (None where it does not know), and the height and width at which
    its pictures are to be shown (None without pictures)."""

    seconds: float | None
    size: tuple[int, int] | None
    has_audio: bool


def describe_clip(path: Path) -> ClipInfo:
    """Raises BadSampleError for a file that cannot be opened."""
    try:
        with av.open(path, "r") as container:
            pictures = first_stream(container, "video")
            size = None
            if pictures is not None and pictures.codec_context.height:
                shape = pictures.codec_context.sample_aspect_ratio or 1  # old videos have pixels that are not square
                size = (pictures.codec_context.height, round(pictures.codec_context.width * shape))
            seconds = None if container.duration is None else container.duration / av.time_base
            return ClipInfo(seconds, size, first_stream(container, "audio") is not None)
    except (av.FFmpegError, ValueError) as error:
        raise BadSampleError(f"cannot be opened: {reason(error)}") from error


def read_window(
    content: bytes | Path,
    start: float,
    video: VideoWindow | None,
    audio: AudioWindow | None,
    filters: Filters | None = None,
) -> tuple[TakeFrames | None, TakeSound | None]:
    """What `decode_clip` decodes, in its making; None for a stream that is not asked for or not there."""
    frames = sound = None
    try:
        with av.open(io.BytesIO(content) if isinstance(content, bytes) else content, "r") as container:
            origin = max(0, container.start_time or 0) / av.time_base  # some files begin long after zero
            takers: dict[av.stream.Stream, TakeFrames | TakeSound] = {}
            if video is not None and (stream := first_stream(container, "video")) is not None:
                takers[stream] = frames = TakeFrames(start + origin, video, filters or video.middle)
            if audio is not None and (stream := first_stream(container, "audio")) is not None:
                takers[stream] = sound = TakeSound(start + origin, audio)
            if start > ROLL_IN:
                container.seek(int((start + origin - ROLL_IN) * av.time_base))
            for packet in container.demux(*takers) if takers else ():
                taker = takers[packet.stream]
                if not taker.full and not taker.skips(packet):
                    for frame in packet.decode():  # of the kind that the stream holds
                        taker.add(frame)
                if all(t.full for t in takers.values()):
                    break
            for taker in takers.values():
                taker.finish()
    except (av.FFmpegError, ValueError) as error:
        raise BadSampleError(f"cannot be decoded: {reason(error)}") from error
    return frames, sound


def reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, av.FFmpegError) else None) or str(error)


def first_stream(container: av.container.InputContainer, kind: str) -> Any | None:
    """The first stream of its kind, decoded on one thread, since loaders already run side by side; None if there is none.
    The cover of a record is no video."""
    for stream in getattr(container.streams, kind):
        if not stream.disposition & av.stream.Disposition.attached_pic:
            stream.codec_context.thread_count = 1
            return stream
    return None
