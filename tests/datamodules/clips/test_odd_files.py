"""Files as they are found: damaged, turned, stretched, badly timed. What plays right elsewhere is read right here."""

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from datamodules import BadSampleError
from datamodules.clips.base import ClipSplit
from datamodules.clips.media import decode_clip, decode_window, describe_clip
from datamodules.clips.windows import AudioWindow, VideoWindow
from datamodules.core.datamodule import ByteArrayDataModule
from datamodules.storage import shards

FPS, RATE, FRAMES, SIDE = 25, 16_000, 50, 32
LEVELS = [np.full((SIDE, SIDE, 3), 20 + 4 * number, np.uint8) for number in range(FRAMES)]
EVERY = VideoWindow(FRAMES, FPS, SIDE, SIDE)
# dark but for its upper left quarter
CORNER = np.full((SIDE, 2 * SIDE, 3), 20, np.uint8)
CORNER[: SIDE // 2, :SIDE] = 220


def encode(pictures, *, container="mp4", codec="libx264", options=None, times=None, shape=None, turn=None):
    """A video with a picture at each of its times (in frames)."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as made:
        options = options or {"g": "10", "bf": "0", "crf": "10"}
        stream = made.add_stream(codec, rate=FPS, options={"threads": "1", **options})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = shape
        if turn is not None:
            stream.set_display_rotation(*turn)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, FPS)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return file.getvalue()


def copied(content: bytes, change, container="matroska") -> bytes:
    """The packets of the video as `change` leaves them: it gets a packet and its number, and returns its bytes."""
    file = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(file, "w", format=container) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is None:
                continue
            new = av.Packet(change(packet, number))
            new.stream, new.time_base = stream, packet.time_base
            new.pts, new.dts, new.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
            copy.mux(new)
    return file.getvalue()


def spoilt(content: bytes, bad) -> bytes:
    """A copy in which some packets are noise."""
    random = np.random.default_rng(0)
    return copied(content, lambda packet, n: random.bytes(packet.size) if n in bad else bytes(packet))


def numbers(video: torch.Tensor) -> list[int]:
    return ((video.float().mean((1, 2, 3)) - 20) / 4).round().int().tolist()


KEYS_ONLY = {"g": "1", "bf": "0", "crf": "10"}  # so that a bad packet spoils one frame


def test_one_bad_packet_costs_one_frame_and_is_told():
    content = spoilt(encode(LEVELS, options=KEYS_ONLY), {20})
    video, _, damage = decode_window(content, 0.0, EVERY, None)
    assert numbers(video) == [*range(20), 19, *range(21, FRAMES)]
    assert damage == "1 of 50 packets are damaged and were skipped"
    assert decode_window(encode(LEVELS), 0.0, EVERY, None)[2] is None


def test_a_file_of_mostly_bad_packets_is_a_bad_sample():
    content = spoilt(encode(LEVELS, options=KEYS_ONLY), set(range(3, 40)))
    with pytest.raises(BadSampleError, match="37 of 50 packets are damaged"):
        decode_window(content, 0.0, EVERY, None)


def clip_sample(item: tuple[str, bytes]) -> dict:
    return {"__key__": item[0], "mp4": item[1], "json": {"labels": [0], "seconds": 2.0}}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_clip_is_trained_on_told_once_and_counted(tmp_path, caplog, workers):
    good = encode(LEVELS, options=KEYS_ONLY)
    shards.write_shard(tmp_path / "x.tar", map(clip_sample, [("a", good), ("b", spoilt(good, {20})), ("c", good)]))
    line = {"file": "x.tar", "samples": 3, "bytes": (tmp_path / "x.tar").stat().st_size}

    class Clips(ByteArrayDataModule):
        def make_split(self, name):
            return ClipSplit(shards.ShardReader(tmp_path, [line]), 1, EVERY, None, training=False, windows=2)

        def fingerprint(self):
            return ""

    data = Clips(batch_size=6, num_workers=workers)
    data.flatten = lambda batch: batch
    for _ in range(2):
        (batch,) = [data.on_after_batch_transfer(batch, 0) for batch in data.loader("test")]
    assert batch["weight"].tolist() == [1.0] * 6
    said = "1 of 50 packets are damaged and were skipped"
    assert data.gather_bad_samples() == {}
    assert data.damaged_samples == {"b": said}
    assert caplog.text.count(said) == 1
    other = Clips()
    other.spec = data.spec = type("Spec", (), {"to_dict": lambda self: {}})()
    other.load_state_dict(data.state_dict())
    assert other.damaged_samples == {"b": said}


@pytest.mark.parametrize(("container", "late"), [("matroska", 0), ("avi", 1)])
def test_frames_whose_times_step_back_are_shown_in_their_order(container, late):
    """B-frames with the times of decoding, as old files have them. AVI's own times count the delay of the decoder."""
    options = {"bf": "2", "q": "2", "qmin": "2", "qmax": "2", "g": "100"}

    def times_of_decoding(packet, number):
        packet.pts = packet.dts
        return bytes(packet)

    crossed = copied(encode(LEVELS, codec="mpeg4", options=options), times_of_decoding, container)
    with av.open(io.BytesIO(crossed)) as opened:
        times = [frame.time for frame in opened.decode(video=0)]
    assert any(later < earlier for earlier, later in pairwise(times)) == (container == "matroska")
    for start in (0, 24):
        window = VideoWindow(20, FPS, SIDE, SIDE)
        video, _, damage = decode_window(crossed, start / FPS, window, None)
        assert damage is None
        assert numbers(video) == [max(0, number - late) for number in range(start, start + 20)]


def lit(video: torch.Tensor) -> np.ndarray:
    """The share of the first frame that is bright, and its middle (row, column) from 0 to 1."""
    bright = video[0].float().mean(-1) > 120
    return np.array([bright.float().mean().item(), *((bright.nonzero().float() + 0.5) / SIDE).mean(0).tolist()])


@pytest.mark.parametrize(
    ("turn", "row", "column"),
    [
        ((0,), 0.25, 0.25),
        ((90,), 0.75, 0.25),  # counter-clockwise: the upper left comes to the lower left
        ((180,), 0.75, 0.75),
        ((270,), 0.25, 0.75),
        ((0, True, False), 0.25, 0.75),
        ((0, False, True), 0.75, 0.25),
        ((90, True, False), 0.75, 0.75),
    ],
)
def test_a_turned_or_mirrored_video_is_upright(turn, row, column, tmp_path):
    content = encode([CORNER] * 3, turn=turn)
    upright = (SIDE, 2 * SIDE) if turn[0] % 180 == 0 else (2 * SIDE, SIDE)
    (tmp_path / "turned.mp4").write_bytes(content)
    assert describe_clip(tmp_path / "turned.mp4").size == upright
    seen = []

    def whole(height: int, width: int) -> list[tuple[str, str]]:
        seen.append((height, width))
        return []

    video, _ = decode_clip(content, 0.0, VideoWindow(1, FPS, SIDE, SIDE), None, whole)
    assert seen == [upright]
    np.testing.assert_allclose(lit(video), [0.25, row, column], atol=0.03)


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_pixels_that_are_not_square_are_made_square(container, tmp_path):
    """A square of shown points is half as wide as high where it is stored."""
    picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
    picture[8:24, 12:20] = 220
    codec = "mpeg4" if container == "avi" else "libx264"
    content = encode([picture] * 3, container=container, codec=codec, options={"g": "1"}, shape=Fraction(2, 1))
    (tmp_path / "wide").write_bytes(content)
    assert describe_clip(tmp_path / "wide").size == (SIDE, 2 * SIDE)
    video, _ = decode_clip(content, 0.0, VideoWindow(1, FPS, SIDE, SIDE), None)
    bright = video[0].float().mean(-1) > 120
    assert abs(bright.any(0).sum().item() - bright.any(1).sum().item()) <= 2
    assert abs(bright.sum().item() - 256) < 40


def test_frames_of_changing_rate_are_shown_at_their_times():
    times = [0, 1, 2, 10, 11, 30, 31, 32, 33, 45]
    content = encode(LEVELS[: len(times)], times=times)
    video, _ = decode_clip(content, 0.0, EVERY, None)
    shown = np.searchsorted(times, np.arange(FRAMES), side="right") - 1
    assert numbers(video) == shown.tolist()


def with_sound(delay: float, video_delay: float) -> bytes:
    """Frames, and a click at 1 s of the presentation, in streams that start late."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as made:
        stream = made.add_stream("libx264", rate=FPS, options={"g": "10", "bf": "0", "crf": "10", "threads": "1"})
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv420p"
        sound = made.add_stream("pcm_s16le", rate=RATE, layout="mono")
        samples = np.zeros(2 * RATE - round(delay * RATE), np.int16)
        samples[round((1 - delay) * RATE)] = 20_000
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), round(delay * RATE)
        packets = list(sound.encode(frame))
        for number in range(round(video_delay * FPS), FRAMES):
            picture = av.VideoFrame.from_ndarray(LEVELS[number], format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            packets += stream.encode(picture)
        made.mux([*packets, *stream.encode(None), *sound.encode(None)])
    return file.getvalue()


@pytest.mark.parametrize(("delay", "video_delay"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.4, 0.6)])
def test_streams_that_start_late_stay_in_step(delay, video_delay):
    """The file starts with its first stream. Before its first frame, a video shows that one."""
    content, origin = with_sound(delay, video_delay), min(delay, video_delay)
    video, sound = decode_clip(content, 0.0, VideoWindow(25, FPS, SIDE, SIDE), AudioWindow(2 * RATE, RATE))
    wanted = np.maximum(np.arange(25) + origin * FPS, video_delay * FPS).round().astype(int)
    assert numbers(video) == wanted.tolist()
    assert abs(int(sound.abs().argmax()) - round((1 - origin) * RATE)) <= RATE // 1000  # Matroska counts milliseconds


LAYOUTS = {
    "mono": {"FC": 1.0},
    "stereo": {"FL": 0.5, "FR": 0.5},
    "5.1": {"FL": 0.7071, "FR": 0.7071, "FC": 1.0, "LFE": 0.0, "BL": 0.5, "BR": 0.5},
    "quad": {"FL": 0.7071, "FR": 0.7071, "BL": 0.5, "BR": 0.5},
    "7.1": {"FL": 0.7071, "FR": 0.7071, "FC": 1.0, "LFE": 0.0, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5},
}


@pytest.mark.parametrize(
    ("layout", "channel"), [(layout, channel) for layout, weights in LAYOUTS.items() for channel in weights]
)
def test_every_channel_is_heard_with_its_weight(layout, channel):
    names = list(LAYOUTS[layout])
    tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    sound = np.zeros((RATE, len(names)), np.int16)
    sound[:, names.index(channel)] = tone
    content = encode_sound(sound, layout)
    _, mixed = decode_clip(content, 0.0, None, AudioWindow(RATE, RATE))
    heard = mixed.float().std().item() / tone.std()
    assert heard == pytest.approx(LAYOUTS[layout][channel], abs=0.002)


def encode_sound(sound: np.ndarray, layout: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as made:
        stream = made.add_stream("pcm_s16le", rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        made.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_a_file_that_cannot_be_sought_in_is_decoded_from_its_beginning():
    rise = np.linspace(-0.5, 0.5, 3 * RATE)
    file = io.BytesIO()
    soundfile.write(file, rise, RATE, format="flac")
    _, sound = decode_clip(file.getvalue(), 2.5, None, AudioWindow(RATE // 4, RATE))
    assert np.abs(sound.numpy() / 2**15 - rise[5 * RATE // 2 :][: RATE // 4]).max() < 1e-3


def test_surround_that_is_too_loud_for_one_channel_keeps_its_form():
    wave = (20_000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)
    content = encode_sound(np.repeat(wave[:, None], 6, axis=1), "5.1")
    mixed = decode_clip(content, 0.0, None, AudioWindow(RATE, RATE))[1].numpy().astype(float)
    assert np.corrcoef(mixed, wave)[0, 1] > 0.9999
    assert 32_700 < np.abs(mixed).max() <= 32_767


def test_a_container_that_is_cut_gives_what_is_left_of_it_and_says_so(tmp_path):
    content = encode(LEVELS, container="matroska", options=KEYS_ONLY)
    path = Path(tmp_path / "cut.mkv")
    path.write_bytes(content[: len(content) * 6 // 10])
    video, _, damage = decode_window(path, 0.0, EVERY, None)
    found = numbers(video)
    last = max(found)
    assert 20 < last < 37
    assert f"it ends {(FRAMES - 1 - last) / FPS:.1f} s early" in damage
    assert found == [min(number, last) for number in range(FRAMES)]
