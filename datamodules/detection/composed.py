"""Object detection on composed scenes."""

from __future__ import annotations

from typing import Any, Literal

from ..core.checks import check_counts
from ..core.errors import UserError
from ..images.fashion_mnist import FASHION_CLASSES
from .annotations import Instances, annotation_file
from .coco import Coco


class Composed(Coco):
    """Scenes of 0 to 8 handwritten digits or garments on a noisy background, with exact boxes and masks, 10 classes.

    If data_dir is empty, the scenes are composed on this machine; nothing is downloaded. The objects of
    test scenes come from test images.

    Args:
        data_dir: a COCO folder with the splits train, val and test.
        of: the objects: digits (scikit-learn) or garments (Fashion-MNIST, from `source`).
        scenes: number of scenes in train, val and test.
        side: height and width of the scenes and of the input in pixels.
        source: the folder of Fashion-MNIST.
        scale_jitter: range of the factor that scales training images.
        flip: whether to flip training images left to right with probability 0.5.
        num_workers: worker processes per rank; 0 loads in the training process, which is best for data this small.
        kwargs: see Coco.
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
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        names = tuple("0123456789") if of == "digits" else FASHION_CLASSES
        super().__init__(
            data_dir, side, train="train", val="val", test="test", held_out=0, categories=dict(enumerate(names, start=1)),
            scale_jitter=scale_jitter, flip=flip, num_workers=num_workers, **kwargs,
        )  # fmt: skip
        check_counts(scenes=scenes)
        self.licence = "BSD-3-Clause" if of == "digits" else "MIT"  # of the objects
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
                f"{self.data_dir} was composed with {made} instead of {wanted}: choose another --data.data_dir, or "
                f"delete the folder and run `{self.how_to_make}`"
            )
        return instances
