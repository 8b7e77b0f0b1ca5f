"""Encoding and decoding of video and sound with PyAV. All times are presentation times in seconds."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
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
from .windows import (
    PREROLL,
    AudioExtractor,
    AudioWindow,
    Filters,
    FrameExtractor,
    OutOfOrder,
    VideoWindow,
    shown_size,
)

CUT = 0.5  # seconds that a stream may end before its declared length; headers round
WAV_PROBED = 4096  # bytes
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
    """Decodes the part of a clip that starts at `start` seconds; see `decode_window`."""
    images, samples, _ = decode_window(content, start, video, audio, filters, fill_missing)
    return images, samples


def decode_window(
    content: bytes | Path,
    start: float,
    video: VideoWindow | None,
    audio: AudioWindow | None,
    filters: Filters | None = None,
    fill_missing: bool = False,
) -> tuple[Tensor | None, Tensor | None, str | None]:
    """Decodes the part of a clip that starts at `start` seconds.

    Each frame is the one shown at its time, turned and with square pixels as players show it. If the video ends early, its
    last frame is repeated; missing sound at either end is silence. Damaged packets are skipped, as long as they are the
    smaller part.

    Args:
        content: bytes of a file, or its path.
        start: start of the window in seconds.
        video: the video window to decode, or None.
        audio: the audio window to decode, or None.
        filters: filters applied to the frames before scaling; by default `video.center_crop`.
        fill_missing: whether missing video becomes black and missing audio silence.

    Returns:
        Frames (T, H, W, 3) uint8 and samples (S,) int16, None for a window that is None; and what was skipped, None if
        nothing.

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
    return images, samples, damage(frames, sound)


def damage(*extractors: FrameExtractor | AudioExtractor | None) -> str | None:
    """What was skipped; None if nothing. Raises BadSampleError if more was skipped than decoded."""
    bad = sum(each.bad for each in extractors if each is not None)
    every = bad + sum(each.decoded for each in extractors if each is not None)
    if 2 * bad > every:
        raise BadSampleError(f"cannot be decoded: {bad} of {every} packets are damaged")
    said = [f"{bad} of {every} packets are damaged and were skipped"] if bad else []
    lost = max((each.lost for each in extractors if each is not None), default=0.0)
    said += [f"it ends {lost:.1f} s early"] if lost > CUT else []
    return "; ".join(said) or None


@dataclass(frozen=True)
class ClipInfo:
    """Metadata of a media file: its length in seconds (None if unknown), and the height and width at which its frames are
    shown (None without video)."""

    seconds: float | None
    size: tuple[int, int] | None
    has_audio: bool


def describe_clip(path: Path | bytes) -> ClipInfo:
    """Reads the metadata of a file and decodes its first frame. Raises BadSampleError if it cannot be opened."""
    try:
        with opened(path) as container:
            video = first_stream(container, "video")
            seconds = None if container.duration is None else container.duration / av.time_base
            has_audio = first_stream(container, "audio") is not None
            size = None
            if video is not None and video.codec_context.height:
                size = video.codec_context.height, max(1, round(video.codec_context.width * pixel_aspect(video)))
                with suppress(av.FFmpegError):  # only frames say how they are turned
                    size = shown_size(next(container.decode(video)), pixel_aspect(video))
            return ClipInfo(seconds, size, has_audio)
    except (av.FFmpegError, ValueError, StopIteration) as error:
        raise BadSampleError(f"cannot be opened: {message(error)}") from error


def length_of(content: bytes | Path) -> float | None:
    """The length of a file in seconds, by its header; None if that does not say. Raises BadSampleError."""
    try:
        with opened(content) as container:
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, ValueError) as error:
        raise BadSampleError(f"cannot be decoded: {message(error)}") from error


def opened(content: bytes | Path) -> av.container.InputContainer:
    if isinstance(content, bytes):
        # FFmpeg searches 5 MB of samples in a WAV for another codec, which takes longer than to decode them
        wav = content[:4] == b"RIFF" and content[8:12] == b"WAVE"
        return av.open(io.BytesIO(content), "r", options={"probesize": str(WAV_PROBED)} if wav else {})
    return av.open(content, "r")


def pixel_aspect(stream: Any) -> float:
    """Width of a pixel over its height. What no camera makes is damage, and counts as square."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.1 < aspect < 10 else 1.0


def read_window(
    content: bytes | Path,
    start: float,
    video: VideoWindow | None,
    audio: AudioWindow | None,
    filters: Filters | None = None,
) -> tuple[FrameExtractor | None, AudioExtractor | None]:
    """Decodes a window as `decode_window` does, into extractors; None for a stream that is not wanted or missing."""
    reorder, seek = False, start > PREROLL
    try:
        while True:
            try:
                return extract(content, start, video, audio, filters, reorder, seek)
            except OutOfOrder:
                reorder = True
            except CannotSeek:
                seek = False
    except (av.FFmpegError, ValueError) as error:
        raise BadSampleError(f"cannot be decoded: {message(error)}") from error


class CannotSeek(Exception):
    """The file must be decoded from its beginning: FLAC without a table, or a key frame that is found by its time of decoding
    and shown later than the window starts."""


def extract(
    content: bytes | Path,
    start: float,
    video: VideoWindow | None,
    audio: AudioWindow | None,
    filters: Filters | None,
    reorder: bool,
    seek: bool,
) -> tuple[FrameExtractor | None, AudioExtractor | None]:
    frames = sound = None
    with opened(content) as container:
        origin = max(0, container.start_time or 0) / av.time_base  # some files start long after zero
        extractors: dict[av.stream.Stream, FrameExtractor | AudioExtractor] = {}
        if video is not None and (stream := first_stream(container, "video")) is not None:
            chosen = filters or video.center_crop
            frames = FrameExtractor(start + origin, video, chosen, pixel_aspect(stream), reorder)
            extractors[stream] = frames
        if audio is not None and (stream := first_stream(container, "audio")) is not None:
            extractors[stream] = sound = AudioExtractor(start + origin, audio)
        if seek:
            try:
                container.seek(int((start + origin - PREROLL) * av.time_base))
            except av.FFmpegError as error:
                raise CannotSeek from error
        for packet in packets_until_damage(container, extractors):
            extractor = extractors[packet.stream]
            if not extractor.full and not extractor.skips(packet):
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    extractor.bad += packet.size > 0
                    continue
                extractor.decoded += packet.size > 0
                for frame in decoded:
                    extractor.add(frame)
                if seek and frames is not None and frames.starts_late:
                    raise CannotSeek
            if all(e.full for e in extractors.values()):
                break
        for stream, extractor in extractors.items():
            whole = extractor.full
            extractor.finish()
            if not whole and (length := declared_seconds(container, stream)) is not None:
                wanted = min(length, start + extractor.window.seconds) - start
                extractor.lost = max(0.0, wanted - extractor.seconds)
    return frames, sound


def declared_seconds(container: av.container.InputContainer, stream: Any) -> float | None:
    """How long a stream lasts by its header; None if only the length of several streams together is known."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return None


def packets_until_damage(
    container: av.container.InputContainer, extractors: Mapping[Any, FrameExtractor | AudioExtractor]
) -> Iterator[av.Packet]:
    """The packets of some streams, up to where the container itself is damaged, which counts as one bad packet of each."""
    found = False
    try:
        for packet in container.demux(*extractors) if extractors else ():
            yield packet
            found = True
    except av.FFmpegError:
        if not found:
            raise
        for extractor in extractors.values():
            extractor.bad += not extractor.full


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
