"""A picture of every data set: samples with predictions, attention, importance, on small real files."""

from functools import partial

import pytest
import torch

import datamodules
from datamodules import ByteArrayDataModule, DataSpec, Digits, TensorSplit
from datamodules.detection.coco import Coco
from datamodules.sounds.spectrogram import FlattenAugmented, LogMel
from src.backbones import Perceiver, ResNet
from src.pictures.attention import draw_attention
from src.pictures.receptive_fields import draw_importance
from src.pictures.samples import draw_samples, load_samples
from src.tasks import Detection
from tests.support.models import classified


class Mel(Digits):
    """A sound of two tones as a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        mel = LogMel(6000, 8000, frames=20, mels=16, bands=2)
        self.flatten = FlattenAugmented({"audio": mel})
        self.spec = DataSpec({"audio": mel.spec}, "multi_label", ("low", "high"))

    def make_split(self, name):
        wave = (8000 * torch.sin(torch.arange(6000) / torch.tensor([[8.0], [2.0]]))).to(torch.int16)
        return TensorSplit(["low", "high"], {"audio": wave, "target": torch.eye(2)})


DATA = [kind for kind in vars(datamodules).values() if isinstance(kind, type) and issubclass(kind, ByteArrayDataModule)]
CONCRETE = [kind for kind in DATA if not kind.__abstractmethods__]


@pytest.mark.parametrize("kind", [*CONCRETE, Mel], ids=lambda kind: kind.__name__)
def test_every_data_set_gets_pictures(kind, tiny, tmp_path):
    data = kind(**({} if kind is Mel else tiny.options(kind.__name__)))
    data.prepare_data()
    if issubclass(kind, Coco):
        task = Detection(data.spec, partial(ResNet, name="resnet18"), channels=16, box_features=16, proposals=10)
        samples = load_samples(task.eval(), data, "test", 2)
    else:
        task, samples = classified(data, 2)
    draw_samples(samples, tmp_path / "samples.png", kind.__name__)
    written = [tmp_path / "samples.png"]
    if isinstance(task.backbone, Perceiver):
        written += draw_attention(task.backbone, samples, tmp_path, kind.__name__)
        assert len(written) == 1 + 2 * len(data.spec.modalities)
        written += draw_importance(task, samples, tmp_path, kind.__name__)
    assert all(path.stat().st_size > 2000 for path in written)
