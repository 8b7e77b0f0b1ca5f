"""Encoding and decoding of video and sound with PyAV. All times are presentation times in seconds."""

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
from .windows import PREROLL, AudioExtractor, AudioWindow, Filters, FrameExtractor, VideoWindow

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
    """Encodes a clip as mp4 (H.264 and AAC).

    Args:
        video: (T, H, W, 3) uint8 with even H and W, or None.
        fps: frames per second.
        sound: (S,) or (S, channels) int16, or None.
        rate: samples per second.
        key_every: frames between key frames, at which decoding can start; by default the encoder decides.
        preset: preset of x264.
        quality: constant rate factor of x264; lower is better.
        bit_rate: bits per second of the sound.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        streams: list[tuple[Any, Iterator]] = []
        if video is not None:
            # with x264's macroblock tree on AVX-512, 15 of 300 encodings of one clip had different key frames
            options = {"preset": preset, "crf": str(quality), "threads": "1", "mbtree": "0"}
            if key_every is not None:
                options["g"] = str(key_every)
            video_stream = container.add_stream("libx264", rate=fps, options=options)
            video_stream.height, video_stream.width = video.shape[1:3]
            video_stream.pix_fmt = "yuv420p"
            streams.append((video_stream, video_frames(video)))
        if sound is not None:
            layout = LAYOUTS[1 if sound.ndim == 1 else sound.shape[1]]
            audio_stream = container.add_stream("aac", rate=rate, options={"aac_coder": "fast"}, layout=layout)
            audio_stream.bit_rate = bit_rate
            streams.append((audio_stream, sound_frames(sound, rate, layout)))
        for stream, frames in streams:  # after all streams are added: the first packet writes the header
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
    """Decodes the part of a clip that starts at `start` seconds.

    Each frame is the one shown at its time. If the video ends early, its last frame is repeated; missing sound at either
    end is silence.

    Args:
        content: bytes of a file, or its path.
        start: start of the window in seconds.
        video: the video window to decode, or None.
        audio: the audio window to decode, or None.
        filters: filters applied to the frames before scaling; by default `video.center_crop`.
        fill_missing: whether missing video becomes black and missing audio silence.

    Returns:
        Frames (T, H, W, 3) uint8 and samples (S,) int16; None for a window that is None.

    Raises:
        BadSampleError: if the file cannot be decoded or has no such stream.
    """
    frames, sound = read_window(content, start, video, audio, filters)
    for window, found, kind in ((video, frames, "video"), (audio, sound, "audio")):
        if window is not None and found is None and not fill_missing:
            raise BadSampleError(f"has no {kind} stream")
    images = samples = None
    if video is not None:
        black = torch.zeros(video.frames, video.height, video.width, 3, dtype=torch.uint8)
        images = black if frames is None else frames.result()
    if audio is not None:
        samples = torch.zeros(audio.samples, dtype=torch.int16) if sound is None else sound.result()
    return images, samples


@dataclass(frozen=True)
class ClipInfo:
    """Metadata of a media file: its length in seconds (None if unknown), and the height and width at which its frames are
    shown (None without video)."""

    seconds: float | None
    size: tuple[int, int] | None
    has_audio: bool


def describe_clip(path: Path) -> ClipInfo:
    """Reads the metadata of a file. Raises BadSampleError if it cannot be opened."""
    try:
        with av.open(path, "r") as container:
            video = first_stream(container, "video")
            size = None
            if video is not None and video.codec_context.height:
                aspect = video.codec_context.sample_aspect_ratio or 1  # old videos may have non-square pixels
                size = (video.codec_context.height, round(video.codec_context.width * aspect))
            seconds = None if container.duration is None else container.duration / av.time_base
            return ClipInfo(seconds, size, first_stream(container, "audio") is not None)
    except (av.FFmpegError, ValueError) as error:
        raise BadSampleError(f"cannot be opened: {message(error)}") from error


def read_window(
    content: bytes | Path,
    start: float,
    video: VideoWindow | None,
    audio: AudioWindow | None,
    filters: Filters | None = None,
) -> tuple[FrameExtractor | None, AudioExtractor | None]:
    """Decodes a window as `decode_clip` does, into extractors; None for a stream that is not wanted or missing."""
    frames = sound = None
    try:
        with av.open(io.BytesIO(content) if isinstance(content, bytes) else content, "r") as container:
            origin = max(0, container.start_time or 0) / av.time_base  # some files start long after zero
            extractors: dict[av.stream.Stream, FrameExtractor | AudioExtractor] = {}
            if video is not None and (stream := first_stream(container, "video")) is not None:
                extractors[stream] = frames = FrameExtractor(start + origin, video, filters or video.center_crop)
            if audio is not None and (stream := first_stream(container, "audio")) is not None:
                extractors[stream] = sound = AudioExtractor(start + origin, audio)
            if start > PREROLL:
                container.seek(int((start + origin - PREROLL) * av.time_base))
            for packet in container.demux(*extractors) if extractors else ():
                extractor = extractors[packet.stream]
                if not extractor.full and not extractor.skips(packet):
                    for frame in packet.decode():
                        extractor.add(frame)
                if all(e.full for e in extractors.values()):
                    break
            for extractor in extractors.values():
                extractor.finish()
    except (av.FFmpegError, ValueError) as error:
        raise BadSampleError(f"cannot be decoded: {message(error)}") from error
    return frames, sound


def message(error: Exception) -> str:
    return (error.strerror if isinstance(error, av.FFmpegError) else None) or str(error)


def first_stream(container: av.container.InputContainer, kind: str) -> Any | None:
    """The first stream of a kind; None if there is none. Cover art is not video.

    The stream is decoded on one thread, since loaders already run in parallel.
    """
    for stream in getattr(container.streams, kind):
        if not stream.disposition & av.stream.Disposition.attached_pic:
            stream.codec_context.thread_count = 1
            return stream
    return None
