"""Small folders as ImageNet's: pictures whose colour tells their class."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n01443537", "n01484850")
TRAIN, VAL = 20, 4  # of each class


def picture(label: int, number: int, height: int = 60, width: int = 80) -> Image.Image:
    """Smooth noise of a colour that tells its class: red, green, blue."""
    rng = np.random.default_rng(1000 * label + number)
    coarse = rng.integers(0, 60, (6, 8, 3), np.uint8)
    coarse[..., label] += 150
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90)
    return file.getvalue()


def write_imagenet(root: Path, flat: str | None = None) -> Path:
    """flat: the name of the list, where val has no folders; its labels are folder names or numbers."""
    lines = ["ImageId,PredictionString"] if flat == "LOC_val_solution.csv" else []
    for label, name in enumerate(CLASSES):
        (root / "train" / name).mkdir(parents=True)
        val = root / "val" if flat else root / "val" / name
        val.mkdir(parents=True, exist_ok=True)
        for number in range(TRAIN):
            (root / "train" / name / f"{name}_{number}.JPEG").write_bytes(jpeg(picture(label, number)))
        for number in range(VAL):
            stem = f"ILSVRC2012_val_{3 * number + label:08d}"
            (val / f"{stem}.JPEG").write_bytes(jpeg(picture(label, 100 + number)))
            csv = f"{stem},{name} 1 2 30 40 {name} 5 6 7 8"
            lines.append(csv if flat == "LOC_val_solution.csv" else f"{stem}.JPEG {label}")
    if flat:
        (root / flat).write_text("\n".join(lines) + "\n")
    return root
