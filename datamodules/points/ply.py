"""PLY files: vertices and faces of any number of corners, as text or binary."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadSampleError
from .polygons import triangulate

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
TYPES |= {"float32": "f4", "double": "f8", "float64": "f8"}
ORDERS = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}
CORNERS = ("vertex_indices", "vertex_index")


class Property(NamedTuple):
    """One property of an element. `count` is the type of the length of a list, None for a single number."""

    name: str
    type: str
    count: str | None


class Element(NamedTuple):
    name: str
    rows: int
    properties: list[Property]


def read_ply(content: bytes) -> tuple[Tensor, Tensor]:
    """Reads vertices (V, 3) float64 and triangles (T, 3), none for a cloud of points. trimesh 5 reads no binary file in
    which faces have different numbers of corners, and splits concave faces wrongly.

    Raises:
        BadSampleError: if the header or a number cannot be read, or a face has a vertex that is not there.
    """
    try:
        order, elements, body = read_header(content)
        tables = read_text(elements, body) if order is None else read_binary(elements, body, order)
        if "vertex" not in tables:
            raise ValueError("no vertices")
        vertices = np.stack([np.asarray(tables["vertex"][axis], np.float64) for axis in "xyz"], axis=1)
        faces = tables.get("face", {})
        corners = next((faces[name] for name in CORNERS if name in faces), [])
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise BadSampleError(f"cannot be read as PLY ({error})") from error
    by_size: dict[int, list[np.ndarray]] = {}
    for face in corners:
        if len(face) > 2:
            by_size.setdefault(len(face), []).append(np.asarray(face, np.int64))
        if len(face) and (min(face) < 0 or max(face) >= len(vertices)):
            raise BadSampleError(f"has a face with a vertex outside of 0 to {len(vertices) - 1}")
    points = torch.from_numpy(vertices)
    return points, triangulate(points, map(np.stack, by_size.values()))


def read_header(content: bytes) -> tuple[str | None, list[Element], bytes]:
    """The byte order (None for text), the elements, and what follows the header. Raises ValueError."""
    head, found, body = content.partition(b"end_header")
    lines = head.decode("ascii", "replace").split("\n")
    if lines[0].strip() != "ply" or not found:
        raise ValueError("no header")
    order, elements = "", []
    for words in (line.split() for line in lines[1:]):
        match words:
            case ["format", name, _]:
                order = name
            case ["element", name, rows]:
                elements.append(Element(name, int(rows), []))
            case ["property", "list", count, kind, name]:
                elements[-1].properties.append(Property(name, TYPES[kind], TYPES[count]))
            case ["property", kind, name]:
                elements[-1].properties.append(Property(name, TYPES[kind], None))
    if any(element.rows < 0 for element in elements):
        raise ValueError("a negative number of rows")
    return ORDERS[order], elements, body.partition(b"\n")[2]


def read_text(elements: list[Element], body: bytes) -> dict[str, dict]:
    """For each element, the values of its properties: an array of numbers, or a list of arrays."""
    numbers, at = np.array(body.split(), np.float64), 0
    tables: dict[str, dict] = {}
    for element in elements:
        table: dict[str, list] = {each.name: [] for each in element.properties}
        for _ in range(element.rows):
            for each in element.properties:
                length = 1
                if each.count is not None:
                    length, at = int(numbers[at]), at + 1
                if length < 0 or at + length > len(numbers):
                    raise ValueError(f"{element.name} is cut short")
                table[each.name].append(numbers[at] if each.count is None else numbers[at : at + length])
                at += length
        tables[element.name] = table
    return tables


def read_binary(elements: list[Element], body: bytes, order: str) -> dict[str, dict]:
    """As `read_text`. Elements without lists are read at once."""
    at = 0
    tables: dict[str, dict] = {}
    for element in elements:
        if all(each.count is None for each in element.properties):
            row = np.dtype([(each.name, order + each.type) for each in element.properties])
            rows = np.frombuffer(body, row, element.rows, at)
            tables[element.name], at = {each.name: rows[each.name] for each in element.properties}, at + rows.nbytes
            continue
        table: dict[str, list] = {each.name: [] for each in element.properties}
        for _ in range(element.rows):
            for each in element.properties:
                length = 1
                if each.count is not None:
                    length = int(np.frombuffer(body, order + each.count, 1, at)[0])
                    at += np.dtype(each.count).itemsize
                values = np.frombuffer(body, order + each.type, length, at)
                table[each.name].append(values[0] if each.count is None else values)
                at += values.nbytes
        tables[element.name] = table
    return tables
