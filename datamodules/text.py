"""Text as bytes: UTF-8 from a folder per class or from CSV files, one element per byte."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .core.byte_array import ByteArray, DataSpec, ModalitySpec
from .core.datamodule import ByteArrayDataModule, Split, SplitName
from .core.errors import BadSampleError, UserError
from .core.flatten import Flatten
from .core.positions import fourier_channels, fourier_features, grid_coordinates
from .core.splits import deal

PADDING = -1


class TextModality(nn.Module):
    """Bytes of text in their order, padded to one length.

    A byte is one of 256 symbols, not a size, so its value is one-hot, (B, M, 256): the linear map by which a model reads
    its byte array is then an embedding of its own for every byte. Eight bits would be fewer channels, but maps that are
    linear in bits cannot tell all bytes apart. It is made here, on the device; a loader ships two bytes per byte.

    elements: bytes of the longest text that fits.
    bands, max_frequency: of the Fourier features; max_frequency is `elements` if left out. A byte's position does not
        depend on the length of its text.
    """

    def __init__(self, elements: int, bands: int, max_frequency: float | None = None) -> None:
        super().__init__()
        self.spec = ModalitySpec(256, fourier_channels(1, bands), elements, grid=(elements,), coordinates=1)
        positions = fourier_features(grid_coordinates((elements,)), bands, max_frequency or elements)
        self.register_buffer("positions", positions.float(), persistent=False)
        self.register_buffer("symbols", torch.arange(256, dtype=torch.int16), persistent=False)

    def forward(self, raw: Tensor) -> ByteArray:
        """raw: (B, M) int16, byte values, PADDING behind the text's end. Padding has zeros for values and is masked; of an
        empty text everything is."""
        if raw.shape[1:] != (self.spec.elements,):
            raise ValueError(f"expected (B, {self.spec.elements}), got {tuple(raw.shape)}")
        one_hot = (raw[..., None] == self.symbols).to(self.positions.dtype)
        return ByteArray(one_hot, self.positions, self.spec.grid, mask=raw != PADDING)


@dataclass(frozen=True)
class Document:
    """One text: its key, its class's number, and where its bytes are: a file, or the bytes themselves."""

    key: str
    label: int
    source: Path | bytes

    def read(self) -> bytes:
        """All bytes of the text. Raises BadSampleError where they are not UTF-8."""
        try:
            content = self.source.read_bytes() if isinstance(self.source, Path) else self.source
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise BadSampleError(f"{self.key} is not UTF-8: byte {byte:#04x} at offset {error.start}") from error
        except OSError as error:
            raise BadSampleError(f"{self.key} cannot be read ({error.strerror})") from error
        return content


class TextSplit(Split):
    """Texts cut or padded to `elements` bytes."""

    def __init__(self, texts: Sequence[Document], elements: int) -> None:
        self.texts, self.elements = texts, elements
        self.keys = [text.key for text in texts]

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        text = self.texts[index]
        content = np.frombuffer(text.read()[: self.elements], np.uint8)
        padded = np.full(self.elements, PADDING, np.int16)
        padded[: len(content)] = content
        return {"text": torch.from_numpy(padded), "target": torch.tensor(text.label)}


class Text(ByteArrayDataModule):
    """Texts of one class each, read from a folder with one of

        train/CLASS/*.txt and test/CLASS/*.txt, one text per file, or
        train.csv and test.csv with the columns `text` and `label`,

    as byte arrays of `elements` bytes: shorter texts are padded and masked, longer ones cut. A tenth of each class's
    training texts is held out for choosing (val). Text that is not UTF-8 is a bad sample; empty text is an ordinary one.

    classes: the names of the class folders, or the labels in the CSV files; their order numbers them.
    elements: bytes of a text that are read.
    bands: of the Fourier features of a byte's place.
    """

    def __init__(
        self,
        data_dir: str,
        classes: Sequence[str],
        elements: int = 1024,
        bands: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        if len(set(classes)) != len(classes) or len(classes) < 2 or elements < 1:
            raise UserError(
                f"classes {list(classes)}, elements {elements}: name two or more, each once; at least 1 byte"
            )
        self.data_dir, self.elements = Path(data_dir), elements
        text = TextModality(elements, bands)
        self.flatten = Flatten({"text": text})
        self.spec = DataSpec({"text": text.spec}, "single_label", tuple(classes))

    def texts(self, stored: Literal["train", "test"]) -> list[Document]:
        """All texts under train or test, in a fixed order."""
        table, folder = self.data_dir / f"{stored}.csv", self.data_dir / stored
        if table.is_file():
            texts = read_table(table, self.spec.classes)
        elif folder.is_dir():
            texts = find_files(folder, self.spec.classes)
        else:
            raise UserError(
                f"{self.data_dir} has neither {stored}.csv nor a folder {stored}: put there a CSV with the columns text and "
                f"label, or {stored}/CLASS/*.txt, or set another --data.data_dir"
            )
        if not texts:
            raise UserError(f"{table if table.is_file() else folder} has no texts: set another --data.data_dir")
        return texts

    def make_split(self, name: SplitName) -> Split:
        texts = self.texts("test" if name == "test" else "train")
        if name != "test":
            tenths = deal([text.label for text in texts], 10, seed=0)
            texts = [text for text, tenth in zip(texts, tenths, strict=True) if (tenth == 0) == (name == "val")]
        return TextSplit(texts, self.elements)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for text in (*self.texts("train"), *self.texts("test")):
            content = text.source.read_bytes() if isinstance(text.source, Path) else text.source
            digest.update(f"{text.key}/{text.label}/{len(content)}/".encode() + content)
        return digest.hexdigest()


def find_files(folder: Path, classes: Sequence[str]) -> list[Document]:
    """The texts of a folder per class. Raises UserError where folders and classes differ."""
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    if found != set(classes):
        raise UserError(
            f"{folder} has folders {sorted(found)}, but --data.classes says {sorted(classes)}: make them the same"
        )
    return [
        Document(path.relative_to(folder.parent).as_posix(), label, path)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*.txt"))
    ]


def read_table(path: Path, classes: Sequence[str]) -> list[Document]:
    """The texts of a CSV file with the columns text and label, keyed by their row."""
    csv.field_size_limit(2**31 - 1)  # the default refuses texts longer than 128 KiB
    texts = []
    # bytes that are not UTF-8 pass through here and are found by Document.read, one sample each
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if not {"text", "label"} <= set(rows.fieldnames or ()):
                raise UserError(f"{path} has the columns {rows.fieldnames}: it needs text and label")
            for number, row in enumerate(rows, start=1):
                if row["text"] is None or row["label"] not in classes:
                    raise UserError(
                        f"{path}, row {number}, lacks its text or has a label, {row['label']!r}, that is not one of "
                        f"--data.classes {list(classes)}: mend one of them"
                    )
                content = row["text"].encode("utf-8", "surrogateescape")
                texts.append(Document(f"{path.name}/{number:07d}", classes.index(row["label"]), content))
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num}, is no CSV ({error}): mend it") from error
    return texts
