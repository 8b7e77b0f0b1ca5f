"""Every config and every variant of the papers trains for two steps and is evaluated, through src.fit, on tiny files.

The files have the real formats of their data sets, but are small and few. The models are small too: the sizes below replace
the config's, everything else stays.
"""

import gzip
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from test_audioset import CLASSES, WHOLE
from test_detection_data import CATEGORIES, write_coco
from test_furniture import HEAD, PILLAR, entry
from test_imagenet import write_imagenet
from test_point_clouds import BOX, TETRAHEDRON
from test_text import write_folder

from datamodules.images.fashion_mnist import FASHION_FILES
from datamodules.prepare import main as prepare
from datamodules.sounds.language_id import LANGUAGES
from datamodules.storage.shards import write_shards
from src import fit
from src.suites.definition import SUITES, expand_variant, load_suite

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parent.parent
BUDGET = (
    "trainer.max_epochs",
    "data.fold",
    "data.fold_seed",
)  # overrides that change how long or on which fold to train
SMALL_COPIES = ("digits_ablations", "permuted_fashion_mnist")  # the variants of paper suites, on other data
SMALLER = {
    "Perceiver": {"num_latents": 16, "latent_dim": 32},
    "Transformer": {"dim": 32, "depth": 1, "heads": 1},
    "ViT": {"name": "vit_tiny_patch16_224"},
    "LambdaNet": {"widths": [32, 64]},
}
SMALLER_HEADS = {"channels": 32, "box_features": 64, "regions": 16}  # of Detection


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


def write_fashion(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("train", 5100), ("test", 60)):  # 5,000 are held out of training
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        for file, array in zip(FASHION_FILES[name], (images, labels), strict=True):
            write_idx(folder / f"{file}.gz", array)
    return folder


def write_prompts(folder: Path) -> Path:
    sounds = folder.parent / "sounds"
    for code in LANGUAGES:
        (sounds / code).mkdir(parents=True)
        for number in range(40):  # so that every split has some of every language
            wave = np.random.default_rng(number).integers(-3000, 3000, 12_000 + 250 * number, np.int16)
            soundfile.write(sounds / code / f"p{number}.wav", wave, 8000)
    assert prepare(["language_id", "--source", str(sounds), "--out", str(folder), "--workers", "1"]) == 0
    return folder


def write_garments(folder: Path, fashion: Path, prompts: Path) -> Path:
    parts = ["--garments", str(fashion), "--prompts", str(prompts)]
    options = [*parts, "--out", str(folder), "--clips", "6", "4", "4", "--workers", "1"]
    assert prepare(["garments_spoken", *options]) == 0
    return folder


def audioset_clip(item: tuple[str, int]) -> dict:
    return {"__key__": "_".join(map(str, item)), "mp4": WHOLE, "json": {"labels": [item[1] % 3], "seconds": 3.0}}


def write_audioset(folder: Path) -> Path:
    splits = {name: [(name, number) for number in range(4)] for name in ("train", "val", "test")}
    made_with = {"classes": list(CLASSES.values())}
    write_shards(folder, "audioset", splits, audioset_clip, made_with=made_with, licence="", workers=1)
    return folder


def write_modelnet40(folder: Path) -> Path:
    source = folder.parent / "off"
    for name, mesh in (("bathtub", BOX), ("tent", TETRAHEDRON)):
        for split, count in (("train", 12), ("test", 2)):
            (source / name / split).mkdir(parents=True)
            for number in range(count):
                (source / name / split / f"{name}_{number:04d}.off").write_text(mesh)
    assert prepare(["modelnet40", "--source", str(source), "--out", str(folder), "--points", "2048"]) == 0
    return folder


def write_furniture(folder: Path) -> Path:
    import zipfile

    source = folder.parent / "catalogues"
    source.mkdir()
    names = ["Oak chair", "Desk lamp"] * 16
    pieces = [entry(number, name, "Office", f"m{number}.obj") for number, name in enumerate(names, start=1)]
    with zipfile.ZipFile(source / "test.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join([HEAD, *pieces]).encode("latin-1"))
        for number in range(1, len(names) + 1):
            archive.writestr(f"test/m{number}.obj", PILLAR)
    assert prepare(["furniture", "--source", str(source), "--out", str(folder), "--points", "2048"]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """From the class of a config's data to the options that make it read tiny files, which are written at first use."""
    folder, made = tmp_path_factory.mktemp("tiny"), {}

    def at(name: str, write) -> str:
        if name not in made:
            made[name] = write(folder / name)
        return str(made[name])

    def options(data: str) -> dict:
        fashion, prompts = partial(at, "fashion", write_fashion), partial(at, "prompts", write_prompts)
        coco = {"categories": CATEGORIES, "held_out": 3, "side": 128}
        garments = partial(write_garments, fashion=folder / "fashion", prompts=folder / "prompts")
        if data == "GarmentsSpoken":
            fashion(), prompts()
        return {
            "AudioSet": lambda: {"data_dir": at("audioset", write_audioset), "num_classes": 3, "side": 32},
            "Coco": lambda: {"data_dir": at("coco", write_coco), **coco},
            "Composed": lambda: {"data_dir": str(folder / "composed"), "scenes": [4, 2, 2]},
            "Dialpad": lambda: {"data_dir": str(folder / "dialpad"), "clips": [6, 4, 4], "decode_workers": 1},
            "Digits": dict,
            "FashionMNIST": lambda: {"data_dir": fashion()},
            "Furniture": lambda: {"data_dir": at("furniture", write_furniture)},
            "GarmentsSpoken": lambda: {"data_dir": at("garments", garments), "decode_workers": 1},
            "ImageNet": lambda: {"data_dir": at("imagenet", write_imagenet), "classes": 3, "side": 64},
            "LanguageId": lambda: {"data_dir": prompts()},
            "ModelNet40": lambda: {"data_dir": at("modelnet40", write_modelnet40)},
            "Text": lambda: {"data_dir": at("text", write_folder), "classes": ["en", "ru"]},
        }[data]()

    return options


def flow(value: object) -> str:
    """A value as an option takes it."""
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip(".\n")


def cases() -> dict[str, tuple[str, ...]]:
    """From a name to the arguments of src.fit: all configs, and the variants that equal no config and no variant before."""
    found = {path.stem: ("--config", str(path)) for path in sorted((ROOT / "configs").glob("*.yaml"))}
    seen = {(path, "[]") for _, path in found.values()}
    for path in sorted(SUITES.glob("*.yaml")):
        if path.stem in SMALL_COPIES:
            continue
        suite = load_suite(path)
        for variant in suite.variants:
            overrides = sorted((o, value) for o, value in variant.overrides.items() if o not in BUDGET)
            key = (str(variant.config), json.dumps(overrides, sort_keys=True))
            if key not in seen:
                found[f"{suite.name}/{variant.name}"] = ("--variant", f"{suite.name}/{variant.name}")
            seen.add(key)
    return found


def option(args: list[str], name: str) -> str | None:
    """The last value of an option."""
    return next((value for word, value in zip(args[-2::-1], args[:0:-1], strict=True) if word == name), None)


def smoke(args: Sequence[str], tiny, runs: Path, *more: str) -> dict:
    expanded = expand_variant(args)
    config = yaml.safe_load(Path(option(expanded, "--config") or "").read_text())
    task, data = config["model"], config["data"]["class_path"].rpartition(".")[2]
    backbone = task["init_args"]["backbone"] | json.loads(option(expanded, "--model.backbone") or "{}")
    changed = {f"data.{option}": value for option, value in tiny(data).items()}
    smaller = SMALLER.get(backbone["class_path"].rpartition(".")[2], {})
    changed |= {f"model.backbone.{option}": value for option, value in smaller.items()}
    if "optimizer" in task["init_args"]:
        changed["model.optimizer.lr"] = 0.001  # the config's may be for a batch of 1,024, and this one has 2
    if task["class_path"].endswith("Detection"):
        changed |= {f"model.{option}": value for option, value in SMALLER_HEADS.items()}
    words = [word for option, value in changed.items() for word in (f"--{option}", flow(value))]
    overlay = ROOT / "configs" / "trainer" / "smoke.yaml"
    return fit.main([*args, "--config", str(overlay), "--runs_dir", str(runs), *words, *more])


@pytest.fixture(scope="session")
def trained_half(tiny, tmp_path_factory) -> Path:
    """A run whose weights can be probed."""
    runs = tmp_path_factory.mktemp("half")
    smoke(["--variant", "probe/perceiver_half"], tiny, runs, "--trainer.enable_checkpointing", "true")
    return runs / "probe" / "perceiver_half" / "seed0"


@pytest.mark.parametrize("args", [pytest.param(args, id=name) for name, args in cases().items()])
def test_two_steps_and_an_evaluation(args, tiny, tmp_path, request):
    more = []
    if args in (("--config", str(ROOT / "configs/fashion_mnist_probe.yaml")), ("--variant", "probe/probe")):
        more = ["--model.weights", str(request.getfixturevalue("trained_half"))]
    results = smoke(args, tiny, tmp_path, *more)
    assert results["steps"] == 2
    for split in ("val", "test"):
        assert results["metrics"][split]["samples"] > 0
        assert math.isfinite(results["metrics"][split].get("loss", 0.0))
