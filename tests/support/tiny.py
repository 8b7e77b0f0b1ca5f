"""Tiny files of every data set, in the format that the real ones have."""

import zipfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from datamodules.prepare import main as prepare
from datamodules.sounds.language_id import LANGUAGES
from datamodules.storage.shards import write_shards
from tests.support.clips import CLASSES, WHOLE
from tests.support.coco import CATEGORIES, write_coco
from tests.support.fashion_mnist import write_fashion
from tests.support.icons import write_emoji, write_package, write_tagged
from tests.support.imagenet import write_imagenet
from tests.support.meshes import BOX, HEAD, PILLAR, TETRAHEDRON, entry
from tests.support.texts import write_folder


class Tiny:
    """Data sets in folders below `root`, each written when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        folder = self.root / name
        if not folder.exists():
            WRITERS[name](self, folder)
        return folder

    def options(self, data: str) -> dict:
        """The options that make a datamodule read its tiny files, by the name of its class."""
        if data == "DeclaredData":
            image = {"kind": "image", "side": 32}
            return {"source": str(self.folder("declared")), "modalities": {"image": image}, "num_workers": 0}
        coco = {"categories": CATEGORIES, "held_out": 3, "side": 128}
        name, others = {
            "AudioSet": ("audioset", {"num_classes": 3, "side": 32}),
            "Coco": ("coco", coco),
            "Composed": ("composed", {"scenes": [4, 2, 2], "side": 96}),
            "Dialpad": ("dialpad", {"clips": [6, 4, 4], "decode_workers": 1}),
            "Diabetes": (None, {}),
            "Digits": (None, {}),
            "Emoji": ("emoji", {}),
            "FashionMNIST": ("fashion", {}),
            "Furniture": ("furniture", {}),
            "GarmentsSpoken": ("garments", {"decode_workers": 1}),
            "Icons": ("icons", {}),
            "ImageNet": ("imagenet", {"classes": 3, "side": 64}),
            "LanguageId": ("prompts", {}),
            "ModelNet40": ("modelnet40", {}),
            "Tags": ("tags", {}),
            "Text": ("text", {"classes": ["en", "ru"]}),
        }[data]
        if name in WRITERS:
            self.folder(name)  # the other data compose themselves
        return ({"data_dir": str(self.root / name)} if name else {}) | others


def write_prompts(tiny: Tiny, folder: Path) -> None:
    sounds = tiny.root / "sounds"
    for code in LANGUAGES:
        (sounds / code).mkdir(parents=True)
        for number in range(40):  # so that every split has some of every language
            wave = np.random.default_rng(number).integers(-3000, 3000, 12_000 + 250 * number, np.int16)
            soundfile.write(sounds / code / f"p{number}.wav", wave, 8000)
    assert prepare(["language_id", "--source", str(sounds), "--out", str(folder), "--workers", "1"]) == 0


def write_garments(tiny: Tiny, folder: Path) -> None:
    parts = ["--garments", str(tiny.folder("fashion")), "--prompts", str(tiny.folder("prompts"))]
    options = [*parts, "--out", str(folder), "--clips", "6", "4", "4", "--workers", "1"]
    assert prepare(["garments_spoken", *options]) == 0


def audioset_clip(item: tuple[str, int]) -> dict:
    return {"__key__": "_".join(map(str, item)), "mp4": WHOLE, "json": {"labels": [item[1] % 3], "seconds": 3.0}}


def write_audioset(tiny: Tiny, folder: Path) -> None:
    splits = {name: [(name, number) for number in range(4)] for name in ("train", "val", "test")}
    made_with = {"classes": list(CLASSES.values())}
    write_shards(folder, "audioset", splits, audioset_clip, made_with=made_with, licence="", workers=1)


def write_modelnet40(tiny: Tiny, folder: Path) -> None:
    source = tiny.root / "off"
    for name, mesh in (("bathtub", BOX), ("tent", TETRAHEDRON)):
        for split, count in (("train", 12), ("test", 2)):
            (source / name / split).mkdir(parents=True)
            for number in range(count):
                (source / name / split / f"{name}_{number:04d}.off").write_text(mesh)
    assert prepare(["modelnet40", "--source", str(source), "--out", str(folder), "--points", "2048"]) == 0


def write_furniture(tiny: Tiny, folder: Path) -> None:
    source = tiny.root / "catalogues"
    source.mkdir()
    names = ["Oak chair", "Desk lamp"] * 16
    pieces = [entry(number, name, "Office", f"m{number}.obj") for number, name in enumerate(names, start=1)]
    with zipfile.ZipFile(source / "test.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join([HEAD, *pieces]).encode("latin-1"))
        for number in range(1, len(names) + 1):
            archive.writestr(f"test/m{number}.obj", PILLAR)
    assert prepare(["furniture", "--source", str(source), "--out", str(folder), "--points", "2048"]) == 0


def write_declared(tiny: Tiny, folder: Path) -> None:
    for number, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for seed in range(12):
            pixels = np.random.default_rng(seed).integers(100 * number, 150 + 100 * number, (40, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{seed}.png")


def write_icons(tiny: Tiny, folder: Path) -> None:
    source = write_package(tiny.root / "icons.tgz", sets=40)
    assert prepare(["icons", "--source", str(source), "--out", str(folder), "--workers", "1"]) == 0


def write_emoji_data(tiny: Tiny, folder: Path) -> None:
    styles, names = tiny.root / "styles.tgz", tiny.root / "names.tgz"
    write_emoji(styles, names)
    options = ["--source", str(styles), "--names", str(names), "--out", str(folder), "--workers", "1"]
    assert prepare(["emoji", *options]) == 0


def write_tags(tiny: Tiny, folder: Path) -> None:
    source = write_tagged(tiny.root / "tagged.tgz")
    assert prepare(["tags", "--source", str(source), "--out", str(folder), "--workers", "1"]) == 0


WRITERS = {
    "audioset": write_audioset,
    "coco": lambda tiny, folder: write_coco(folder),
    "declared": write_declared,
    "emoji": write_emoji_data,
    "fashion": lambda tiny, folder: write_fashion(folder, gz=True),
    "furniture": write_furniture,
    "garments": write_garments,
    "icons": write_icons,
    "imagenet": lambda tiny, folder: write_imagenet(folder),
    "modelnet40": write_modelnet40,
    "prompts": write_prompts,
    "tags": write_tags,
    "text": lambda tiny, folder: write_folder(folder),
}
