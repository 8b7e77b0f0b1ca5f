"""Composed scenes with exact boxes and masks."""

from __future__ import annotations

from typing import Literal

from ..core.errors import UserError
from ..images.fashion_mnist import FASHION_CLASSES
from .annotations import Instances, annotation_file
from .coco import Coco


class Composed(Coco):
    """Scenes of 0 to 8 handwritten digits or garments on a noisy canvas, with exact boxes and masks, 10 classes.

    Composed on this machine where data_dir has none; nothing is downloaded. Objects of test scenes come from test images.

    data_dir: a COCO folder with the splits train, val and test.
    of: digits (scikit-learn's) or garments (Fashion-MNIST, read from `source`).
    scenes: numbers of scenes in train, val and test.
    side: of the scenes and of the input, in pixels.
    """

    def __init__(
        self,
        data_dir: str = "data/composed",
        of: Literal["digits", "garments"] = "digits",
        scenes: tuple[int, int, int] = (2000, 200, 400),
        side: int = 128,
        source: str = "data/fashion_mnist",
        scale_jitter: tuple[float, float] = (0.8, 1.25),
        flip: bool = False,
        bands: int = 16,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        names = tuple("0123456789") if of == "digits" else FASHION_CLASSES
        super().__init__(
            data_dir, side, train="train", val="val", test="test", categories=dict(enumerate(names, start=1)),
            scale_jitter=scale_jitter, flip=flip, bands=bands, batch_size=batch_size, num_workers=num_workers, seed=seed,
            on_bad_sample=on_bad_sample, max_bad_share=max_bad_share,
        )  # fmt: skip
        self.of, self.scenes, self.source = of, tuple(scenes), source

    @property
    def how_to_make(self) -> str:
        scenes = " ".join(map(str, self.scenes))
        return (
            f"python -m datamodules.prepare composed --out {self.data_dir} --of {self.of} --scenes {scenes} "
            f"--side {self.side}"
        )

    def prepare_data(self) -> None:
        from . import compose_scenes

        if not annotation_file(self.data_dir, "test").is_file():
            compose_scenes.compose(self.data_dir, self.of, self.scenes, self.side, self.source)

    def instances(self, name: str) -> Instances:
        instances = super().instances(name)
        wanted = {"of": self.of, "scenes": list(self.scenes), "side": self.side}
        made = {key: instances.info.get(key) for key in wanted}
        if made != wanted:
            raise UserError(
                f"{self.data_dir} was composed with {made}, asked for is {wanted}: set another --data.data_dir, or "
                f"delete the folder and run `{self.how_to_make}`"
            )
        return instances
