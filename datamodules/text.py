"""Text as bytes: UTF-8 from a folder per class or from CSV files, one element per byte."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .core.byte_array import ByteArray, DataSpec, ModalitySpec
from .core.checks import read_bytes
from .core.datamodule import ByteArrayDataModule, Split, SplitName
from .core.errors import BadSampleError, UserError
from .core.flatten import Flatten
from .core.positions import fourier_channels, fourier_features, grid_coordinates
from .core.splits import stratified_parts

PADDING = -1


class TextModality(nn.Module):
    """The bytes of a text in order, padded to a fixed length.

    A byte is one of 256 symbols, not a magnitude, so its value is one-hot, (B, M, 256). The linear input map of a model then
    learns an embedding for every byte. Eight bits would need fewer channels, but a linear map of bits cannot represent a
    separate embedding for every byte. The one-hot values are computed on the device; loaders send two bytes per byte.

    Args:
        elements: length in bytes; the position of a byte does not depend on the length of its text.
        bands: frequencies of the Fourier features.
        max_frequency: maximum frequency of the Fourier features; `elements` by default.
    """

    def __init__(self, elements: int, bands: int, max_frequency: float | None = None) -> None:
        super().__init__()
        self.spec = ModalitySpec(
            256, fourier_channels(1, bands), elements, grid=(elements,), coordinates=1, kind="text"
        )
        positions = fourier_features(grid_coordinates((elements,)), bands, max_frequency or elements)
        self.register_buffer("positions", positions.float(), persistent=False)
        self.register_buffer("symbols", torch.arange(256, dtype=torch.int16), persistent=False)

    def forward(self, raw: Tensor) -> ByteArray:
        """Takes byte values (B, M) int16 with PADDING after the end of the text. Padding has zeros as values and is masked,
        so an empty text is entirely masked."""
        if raw.shape[1:] != (self.spec.elements,):
            raise ValueError(f"expected (B, {self.spec.elements}), got {tuple(raw.shape)}")
        one_hot = (raw[..., None] == self.symbols).to(self.positions.dtype)
        return ByteArray(one_hot, self.positions, self.spec.grid, mask=raw != PADDING)


def padded_bytes(content: bytes, length: int) -> Tensor:
    """Bytes as TextModality takes them, (length,) int16: truncated, or padded with PADDING."""
    kept = np.frombuffer(content[:length], np.uint8)
    padded = np.full(length, PADDING, np.int16)
    padded[: len(kept)] = kept
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class Document:
    """One text: its key, its label, and its source, which is a file or the bytes themselves."""

    key: str
    label: int
    source: Path | bytes

    def read(self) -> bytes:
        """Reads all bytes of the text. Raises BadSampleError if they are not UTF-8."""
        try:
            content = read_bytes(self.source) if isinstance(self.source, Path) else self.source
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise BadSampleError(f"{self.key} is not UTF-8: byte {byte:#04x} at offset {error.start}") from error
        except OSError as error:
            raise BadSampleError(f"{self.key} cannot be read ({error.strerror})") from error
        return content


class TextSplit(Split):
    """Texts, truncated or padded to `elements` bytes."""

    def __init__(self, texts: Sequence[Document], elements: int) -> None:
        self.texts, self.elements = texts, elements
        self.keys = [text.key for text in texts]

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        text = self.texts[index]
        return {"text": padded_bytes(text.read(), self.elements), "target": torch.tensor(text.label)}


class Text(ByteArrayDataModule):
    """Text classification on the bytes of texts.

    The texts are in a folder with either

    - train/CLASS/*.txt and test/CLASS/*.txt, one text per file, or
    - train.csv and test.csv with the columns `text` and `label`.

    Texts shorter than `elements` bytes are padded and masked, longer ones truncated. A tenth of the training texts of each
    class is held out for model selection (val). Text that is not UTF-8 is a bad sample; empty text is allowed.

    Args:
        data_dir: the folder with train and test, as above.
        classes: names of the class folders or labels in the CSV files, in the order of their indices.
        elements: number of bytes to read of each text.
        bands: frequencies of the Fourier features of positions.
        kwargs: see ByteArrayDataModule.
    """

    def __init__(
        self, data_dir: str, classes: Sequence[str], elements: int = 1024, bands: int = 32, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if len(set(classes)) != len(classes) or len(classes) < 2 or elements < 1:
            raise UserError(
                f"classes {list(classes)}, elements {elements}: use at least two different classes and at least 1 byte"
            )
        self.data_dir, self.elements = Path(data_dir), elements
        text = TextModality(elements, bands)
        self.flatten = Flatten({"text": text})
        self.spec = DataSpec({"text": text.spec}, "single_label", tuple(classes))

    def texts(self, stored: Literal["train", "test"]) -> list[Document]:
        """All texts of train or test, in a fixed order."""
        table, folder = self.data_dir / f"{stored}.csv", self.data_dir / stored
        if table.is_file():
            texts = read_table(table, self.spec.classes)
        elif folder.is_dir():
            texts = find_files(folder, self.spec.classes)
        else:
            raise UserError(
                f"{self.data_dir} has neither {stored}.csv nor a folder {stored}: add a CSV with the columns text and label, "
                f"or {stored}/CLASS/*.txt, or set another --data.data_dir"
            )
        if not texts:
            raise UserError(f"{table if table.is_file() else folder} has no texts: set another --data.data_dir")
        return texts

    def make_split(self, name: SplitName) -> Split:
        texts = self.texts("test" if name == "test" else "train")
        if name != "test":
            tenths = stratified_parts([text.label for text in texts], 10, seed=0)
            texts = [text for text, tenth in zip(texts, tenths, strict=True) if (tenth == 0) == (name == "val")]
        return TextSplit(texts, self.elements)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for text in (*self.texts("train"), *self.texts("test")):
            content = read_bytes(text.source) if isinstance(text.source, Path) else text.source
            digest.update(f"{text.key}/{text.label}/{len(content)}/".encode() + content)
        return digest.hexdigest()


def find_files(folder: Path, classes: Sequence[str]) -> list[Document]:
    """Lists the texts of class folders. Raises UserError if the folders are not the classes."""
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    if found != set(classes):
        raise UserError(
            f"{folder} has the folders {sorted(found)}, but --data.classes is {sorted(classes)}: make them equal"
        )
    return [
        Document(path.relative_to(folder.parent).as_posix(), label, path)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*.txt"))
    ]


def read_table(path: Path, classes: Sequence[str]) -> list[Document]:
    """Reads the texts of a CSV file with the columns text and label; keys contain the row number."""
    csv.field_size_limit(2**31 - 1)  # the default limit is 128 KiB
    texts = []
    # bytes that are not UTF-8 pass here; Document.read reports them for each sample
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if not {"text", "label"} <= set(rows.fieldnames or ()):
                raise UserError(f"{path} has the columns {rows.fieldnames}: it needs text and label")
            for number, row in enumerate(rows, start=1):
                if row["text"] is None or row["label"] not in classes:
                    raise UserError(
                        f"{path}, row {number}: the text is missing, or the label {row['label']!r} is not in --data.classes "
                        f"{list(classes)}: correct the row or --data.classes"
                    )
                content = row["text"].encode("utf-8", "surrogateescape")
                texts.append(Document(f"{path.name}/{number:07d}", classes.index(row["label"]), content))
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num}, is not valid CSV ({error}): correct it") from error
    return texts
