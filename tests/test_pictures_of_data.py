"""A picture of every data set: samples with predictions, attention, importance, on small real files."""

from functools import partial

import pytest
import torch
from test_pictures import classified
from test_smoke import tiny  # noqa: F401, a fixture

import datamodules
from datamodules import ByteArrayDataModule, DataSpec, Digits, TensorSplit
from datamodules.detection.coco import Coco
from datamodules.sounds.spectrogram import FlattenAugmented, LogMel
from src.backbones import Perceiver, ResNet
from src.pictures.attention import draw_attention
from src.pictures.receptive_fields import draw_importance
from src.pictures.samples import draw_samples, load_samples
from src.tasks import Detection


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


KINDS = {
    "audio": "audio",
    "image": "image",
    "points": "points",
    "text": "text",
    "video": "video",
}  # by a modality's name


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_every_data_set_says_what_its_modalities_are_and_takes_the_options_of_loaders(kind, tiny):  # noqa: F811
    options = {"batch_size": 2, "num_workers": 0, "seed": 3, "on_bad_sample": "skip", "max_bad_share": 0.5}
    data = kind(**{**tiny(kind.__name__), **options})
    assert {name: getattr(data, name) for name in options} == options
    for name, spec in data.spec.modalities.items():
        assert spec.kind == KINDS[name]
        assert (spec.rate is not None) == (spec.kind in ("audio", "video"))


@pytest.mark.parametrize("kind", [*CONCRETE, Mel], ids=lambda kind: kind.__name__)
def test_every_data_set_gets_pictures(kind, tiny, tmp_path):  # noqa: F811
    data = kind(**({} if kind is Mel else tiny(kind.__name__)))
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
