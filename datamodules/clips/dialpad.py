"""Dialpad: seen digits and heard tones."""

from __future__ import annotations

from typing import Any

from ..core.checks import check_counts
from ..core.errors import UserError
from ..storage import shards
from . import compose_dialpad
from .composed import ComposedClips
from .windows import AudioWindow, VideoWindow


class Dialpad(ComposedClips):
    """Handwritten digits that move over a 32x32 frame to the sound of telephone tones: 10 digits seen, 10 heard, multi-label.

    The modality `video` is 32 frames in patches of 2x8x8: 256 elements of 384 channels. `audio` is 1.28 s at 8 kHz: 80
    elements of 128 samples. If data_dir is empty, the clips are composed on this machine from scikit-learn's digits;
    nothing is downloaded.

    Args:
        data_dir: the folder of the shards; if it is empty, the clips are composed there.
        clips: number of clips in train, val and test.
        kwargs: see ComposedClips.
    """

    prepared_as = "dialpad"
    licence = "BSD-3-Clause"
    credit = "composed by ByteBench of scikit-learn's digits (E. Alpaydin, C. Kaynak, 1998)"

    def __init__(
        self,
        data_dir: str = "data/dialpad",
        clips: tuple[int, int, int] = compose_dialpad.CLIPS,
        **kwargs: Any,
    ) -> None:
        video = VideoWindow(compose_dialpad.FRAMES, compose_dialpad.FPS, compose_dialpad.SIDE, compose_dialpad.SIDE)
        audio = AudioWindow(compose_dialpad.SAMPLES, compose_dialpad.RATE)
        super().__init__(video, audio, compose_dialpad.CLASSES, data_dir, **kwargs)
        check_counts(clips=clips)
        self.clips = tuple(clips)

    def prepare_data(self) -> None:
        if not shards.finished(self.data_dir):
            compose_dialpad.compose(self.data_dir, self.clips, workers=self.decode_workers)

    def manifest(self) -> dict:
        manifest = super().manifest()
        made = manifest["made_with"].get("clips")
        if made != list(self.clips):
            raise UserError(
                f"{self.data_dir} holds {made} clips, but --data.clips is {list(self.clips)}: "
                "choose another --data.data_dir, or delete the folder"
            )
        return manifest
