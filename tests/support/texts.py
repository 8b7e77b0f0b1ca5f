"""Short texts in two languages."""

from pathlib import Path

TEXTS = {
    "en": ["bread and butter", "milk", "a\nb"],
    "ru": ["\u0445\u043b\u0435\u0431", "\u043c\u043e\u043b\u043e\u043a\u043e \u0438 \u043c\u0451\u0434", ""],
}


def write_folder(folder: Path) -> Path:
    for split, copies in (("train", 4), ("test", 1)):
        for name, texts in TEXTS.items():
            (folder / split / name).mkdir(parents=True)
            for number, text in enumerate(texts * copies):
                (folder / split / name / f"{number:02d}.txt").write_bytes(text.encode())
    return folder
