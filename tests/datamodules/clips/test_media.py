"""Clips survive encoding and decoding: the right frames and the right sound at the right time."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from datamodules import BadSampleError
from datamodules.clips.media import decode_clip, describe_clip, encode_clip
from datamodules.clips.windows import AudioExtractor, AudioWindow, VideoWindow

FPS, RATE, FRAMES, SIDE = 25, 16_000, 50, 32  # two seconds
LEVELS = 20 + 4 * np.arange(FRAMES)  # every frame has its own grey


def noise(samples: int, rate: int, seed: int = 0) -> np.ndarray:
    """Noise below 1.5 kHz, which every rate of these tests carries: int16."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=samples))
    spectrum[np.fft.rfftfreq(samples, 1 / rate) > 1500] = 0
    wave = np.fft.irfft(spectrum, samples)
    return (wave / np.abs(wave).max() * 20_000).astype(np.int16)


SOUND = noise(FRAMES * RATE // FPS, RATE)


@pytest.fixture(scope="module")
def clip() -> bytes:
    frames = np.broadcast_to(LEVELS[:, None, None, None], (FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
    return encode_clip(frames, FPS, SOUND, RATE)


def frame_numbers(video: torch.Tensor) -> list[int]:
    """Which frames of `clip` these are, by their grey."""
    return ((video.float().mean((1, 2, 3)) - 20) / 4).round().int().tolist()


def lag_and_correlation(decoded: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """By how many samples `decoded` comes late, and how alike the two are there."""
    a, b = decoded - decoded.mean(), expected - expected.mean()
    products = np.correlate(a, b, "full") / (np.linalg.norm(a) * np.linalg.norm(b))
    return int(products.argmax()) - (len(b) - 1), float(products.max())


def without(kind: str) -> bytes:
    """A clip that has sound or video only."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        if kind == "audio":
            stream = container.add_stream("libx264", rate=FPS)
            stream.height = stream.width = SIDE
            stream.pix_fmt = "yuv420p"
            frames = [av.VideoFrame.from_ndarray(np.zeros((SIDE, SIDE, 3), np.uint8), format="rgb24")]
        else:
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            frames = [av.AudioFrame.from_ndarray(SOUND[None], format="s16", layout="mono")]
            frames[0].sample_rate, frames[0].time_base = RATE, Fraction(1, RATE)
        for frame in frames:
            frame.pts = 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_sound_comes_back_without_delay(clip):
    video, sound = decode_clip(clip, 0.0, None, AudioWindow(len(SOUND), RATE))
    assert video is None
    assert sound.dtype == torch.int16
    lag, correlation = lag_and_correlation(sound.numpy().astype(float), SOUND.astype(float))
    assert lag == 0
    assert correlation > 0.95


def test_frames_come_back_in_order_and_alike(clip):
    video, sound = decode_clip(clip, 0.0, VideoWindow(FRAMES, FPS, SIDE, SIDE), None)
    assert sound is None
    assert (video.dtype, video.shape) == (torch.uint8, (FRAMES, SIDE, SIDE, 3))
    assert frame_numbers(video) == list(range(FRAMES))


def test_pictures_correlate_with_what_was_encoded():
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frames = [128 + 80 * np.sin((rows + t) / 4) * np.cos(columns / 5) for t in range(8)]
    frames = np.repeat(np.stack(frames)[..., None], 3, -1).astype(np.uint8)
    video, _ = decode_clip(encode_clip(frames, FPS, SOUND[:4000], RATE), 0.0, VideoWindow(8, FPS, SIDE, SIDE), None)
    for decoded, encoded in zip(video.numpy(), frames, strict=True):
        assert np.corrcoef(decoded.ravel(), encoded.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("first", [1, 13, 30])
def test_start_in_mid_clip_picks_the_right_frames_and_sound(clip, first):
    start = first / FPS
    video, sound = decode_clip(clip, start, VideoWindow(8, FPS, SIDE, SIDE), AudioWindow(5120, RATE))
    assert frame_numbers(video) == list(range(first, first + 8))
    begin = round(start * RATE)
    lag, correlation = lag_and_correlation(sound.numpy().astype(float), SOUND[begin : begin + 5120].astype(float))
    assert lag == 0
    assert correlation > 0.9


@pytest.mark.parametrize(
    ("start", "fps", "shown"),
    [(10.5, FPS, [10, 11, 12]), (4, FPS / 2, [4, 6, 8, 10]), (0, 2 * FPS, [0, 0, 1, 1, 2, 2])],
)
def test_a_window_of_any_rate_has_the_frames_that_are_shown_at_its_times(clip, start, fps, shown):
    video, _ = decode_clip(clip, start / FPS, VideoWindow(len(shown), fps, SIDE, SIDE), None)
    assert frame_numbers(video) == shown


@pytest.mark.parametrize("start", [0.0, 0.52])
def test_another_rate_changes_the_samples_and_not_their_time(clip, start):
    _, sound = decode_clip(clip, start, None, AudioWindow(8000, 8000))
    begin = round(start * RATE)
    expected = SOUND[begin : begin + 16_000 : 2].astype(float)  # noise has nothing above 1.5 kHz, so this is exact
    lag, correlation = lag_and_correlation(sound.numpy().astype(float), expected)
    assert lag == 0
    assert correlation > 0.95


def test_frames_are_scaled_to_the_window(clip):
    video, _ = decode_clip(clip, 0.0, VideoWindow(3, FPS, 16, 24), None)
    assert video.shape == (3, 16, 24, 3)
    assert frame_numbers(video) == [0, 1, 2]


def test_short_clip_holds_the_last_frame_and_goes_silent(clip):
    video, sound = decode_clip(clip, 46 / FPS, VideoWindow(8, FPS, SIDE, SIDE), AudioWindow(RATE, RATE))
    assert frame_numbers(video) == [46, 47, 48, 49, 49, 49, 49, 49]
    heard = RATE * 4 // FPS
    assert sound[:heard].float().std() > 1000
    assert not sound[heard + 1024 :].any()  # an AAC frame is 1,024 samples


def test_window_behind_the_end_is_the_last_frame_and_silence(clip):
    video, sound = decode_clip(clip, 10.0, VideoWindow(2, FPS, SIDE, SIDE), AudioWindow(100, RATE))
    assert frame_numbers(video) == [49, 49]
    assert not sound.any()


@pytest.mark.parametrize("content", [b"", b"no clip at all", bytes(1000)])
def test_what_is_no_clip_is_a_bad_sample(content):
    with pytest.raises(BadSampleError, match="cannot be decoded"):
        decode_clip(content, 0.0, VideoWindow(2, FPS, SIDE, SIDE), AudioWindow(100, RATE))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_clip_is_a_bad_sample(clip, share):
    with pytest.raises(BadSampleError, match="cannot be decoded"):
        decode_clip(clip[: int(len(clip) * share)], 0.0, VideoWindow(2, FPS, SIDE, SIDE), AudioWindow(100, RATE))


def test_missing_stream_is_a_bad_sample_only_where_it_is_asked_for():
    video, audio = VideoWindow(1, FPS, SIDE, SIDE), AudioWindow(100, RATE)
    with pytest.raises(BadSampleError, match="has no audio stream"):
        decode_clip(without("audio"), 0.0, video, audio)
    with pytest.raises(BadSampleError, match="has no video stream"):
        decode_clip(without("video"), 0.0, video, audio)
    assert decode_clip(without("audio"), 0.0, video, None)[0] is not None
    assert decode_clip(without("video"), 0.0, None, audio)[1] is not None


def chirp(seconds: float, rate: int) -> np.ndarray:
    """A tone that rises from 200 to 1,400 Hz: the same sound at every rate, int16."""
    time = np.arange(round(seconds * rate)) / rate
    return (15_000 * np.sin(2 * np.pi * (200 * time + 600 / seconds * time**2))).astype(np.int16)


@pytest.mark.parametrize("fps", [10, Fraction(24_000, 1001), 60])
def test_frames_of_other_rates_are_taken_by_their_time(fps):
    frames = np.broadcast_to(LEVELS[:, None, None, None], (FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
    content = encode_clip(frames, fps, None, RATE)
    video, _ = decode_clip(content, 0.2, VideoWindow(10, FPS, SIDE, SIDE), None)
    assert frame_numbers(video) == [int((0.2 + (i + 0.25) / FPS) * fps) for i in range(10)]


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_sound_of_other_rates_keeps_its_time(rate):
    content = encode_clip(None, FPS, chirp(2.0, rate), rate, bit_rate=64_000)
    _, sound = decode_clip(content, 0.5, None, AudioWindow(RATE, RATE))
    lag, correlation = lag_and_correlation(
        sound.numpy().astype(float), chirp(2.0, RATE)[RATE // 2 :][:RATE].astype(float)
    )
    assert lag == 0
    assert correlation > 0.98


@pytest.mark.parametrize("channels", [2, 6])
def test_stereo_and_surround_sound_is_mixed_to_one_channel(channels):
    sound = np.repeat(SOUND[:, None], channels, axis=1)
    content = encode_clip(None, FPS, sound, RATE, bit_rate=64_000 * channels)
    _, mixed = decode_clip(content, 0.3, None, AudioWindow(RATE, RATE))
    lag, correlation = lag_and_correlation(mixed.numpy().astype(float), SOUND[4800 : 4800 + RATE].astype(float))
    assert lag == 0
    assert correlation > 0.95


def test_rounded_time_stamps_leave_no_gaps_in_the_sound():
    """Matroska counts milliseconds, in which no AAC frame of 44.1 kHz fits."""
    content = encode_clip(None, FPS, chirp(2.0, 44_100), 44_100, bit_rate=64_000)
    file = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(file, "w", format="matroska") as copy:
        stream = copy.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    window = AudioWindow(44_100, 44_100)
    _, exact = decode_clip(content, 0.0, None, window)
    _, rounded = decode_clip(file.getvalue(), 1024 / 44_100, None, window)  # the copy keeps the encoder's lead-in
    lag, correlation = lag_and_correlation(rounded.numpy().astype(float), exact.numpy().astype(float))
    assert abs(lag) <= 23  # half a millisecond
    assert correlation > 0.999


def test_sound_that_changes_from_mono_to_stereo_goes_on():
    taker = AudioExtractor(0.0, AudioWindow(2000, RATE))
    for number, layout in enumerate(("mono", "stereo")):
        shape = (1, 1000 * (number + 1))
        frame = av.AudioFrame.from_ndarray(np.full(shape, 1000, np.int16), format="s16", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 1000 * number
        taker.add(frame)
    taker.finish()
    assert (taker.result() - 1000).abs().max() <= 1
    assert taker.full


def test_a_wide_picture_gives_its_middle():
    picture = np.full((SIDE, 2 * SIDE, 3), 20, np.uint8)
    picture[:, SIDE // 2 : -SIDE // 2] = 200
    content = encode_clip(np.stack([picture] * 3), FPS, None, RATE)
    for side in (SIDE, SIDE // 2):
        video, _ = decode_clip(content, 0.0, VideoWindow(3, FPS, side, side), None)
        assert (video.float() - 200).abs().max() < 25


def test_filters_see_the_picture_as_it_is_stored():
    picture = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    picture[:, :SIDE] = 200
    content = encode_clip(np.stack([picture] * 3), FPS, None, RATE)
    seen = []

    def right_half(height: int, width: int) -> list[tuple[str, str]]:
        seen.append((height, width))
        return [("crop", f"{width // 2}:{height}:{width // 2}:0"), ("hflip", "")]

    video, _ = decode_clip(content, 0.0, VideoWindow(2, FPS, 16, 16), None, right_half)
    assert seen == [(SIDE, 2 * SIDE)]
    assert video[:, :, :-2].max() < 20


def test_key_frames_come_as_often_as_asked_for():
    content = encode_clip(np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8), FPS, None, RATE, key_every=12)
    with av.open(io.BytesIO(content)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert keys == [0, 12, 24, 36, 48]


def test_missing_streams_are_filled_where_that_is_allowed():
    video, audio = VideoWindow(2, FPS, SIDE, SIDE), AudioWindow(100, RATE)
    _, sound = decode_clip(without("audio"), 0.0, video, audio, fill_missing=True)
    pictures, _ = decode_clip(without("video"), 0.0, video, audio, fill_missing=True)
    assert sound.shape == (100,)
    assert not sound.any()
    assert pictures.shape == (2, SIDE, SIDE, 3)
    assert not pictures.any()


def test_a_file_says_what_it_has(clip, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clip)
    (tmp_path / "mute.mp4").write_bytes(without("audio"))
    (tmp_path / "empty.mp4").touch()
    found = describe_clip(tmp_path / "clip.mp4")
    assert (found.size, found.has_audio) == ((SIDE, SIDE), True)
    assert found.seconds == pytest.approx(2.0, abs=0.1)
    assert not describe_clip(tmp_path / "mute.mp4").has_audio
    with pytest.raises(BadSampleError, match="cannot be opened"):
        describe_clip(tmp_path / "empty.mp4")
