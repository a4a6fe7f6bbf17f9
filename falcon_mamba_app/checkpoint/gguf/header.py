"""What a GGUF file says about itself: its metadata, and where each tensor lies.

The file comes from strangers. Every count and length is compared with what is left of the file
before it is believed, so a damaged or hostile one costs a sentence. (The package `gguf` has a
reader too; it follows a count of 2⁶⁰ without looking at the file's end.)

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from falcon_mamba_app.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_NAME_BYTES = 1_024
MAX_TEXT_BYTES = 64 * 2**20  # a whole tokenizer.json is the longest
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
TEXT, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies. `shape` is torch's: rows first."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int  # bytes from the file's beginning

    @property
    def num_bytes(self) -> int:
        block, block_bytes = GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // block * block_bytes


@dataclass(frozen=True, slots=True)
class Header:
    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorPlace]

    @property
    def num_bytes(self) -> int:
        """The number of bytes of all tensors."""
        return sum(place.num_bytes for place in self.tensors.values())


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The file's bytes, from the page cache."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def mapped_for_good(path: Path) -> mmap.mmap:
    """The file's bytes, mapped as long as anything made of them lives. They are private to this
    process: torch wants memory that it could write to.
    """
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def read_header(path: Path) -> Header:
    """Read and check it; the tensors' own numbers are not touched.

    Raises CheckpointError with one line that names the file and its first fault.
    """
    try:
        with mapped(path) as data:
            return _Reader(path, data).header()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # mmap's, of an empty file
        raise CheckpointError(f"{path} is no GGUF file: {error}") from error


class _Reader:
    """A place in the file that moves forward."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def header(self) -> Header:
        if self._data[:4] != MAGIC:
            raise CheckpointError(f"{self._path} is no GGUF file: it does not begin with 'GGUF'")
        self._at = 4
        version = self._number("<u4")
        if version not in VERSIONS:
            raise self._fault(f"its version is {version}; this app reads 2 and 3, little-endian")
        num_tensors, num_values = self._count(24), self._count(12)
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._text(MAX_NAME_BYTES)
            if key in metadata:
                raise self._fault(f"{key[:80]!r} is there twice")
            metadata[key] = self._value(self._number("<u4"))
        tensors = self._tensors(num_tensors, metadata)
        return Header(self._path, metadata, tensors)

    def _tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, TensorPlace]:
        places: dict[str, TensorPlace] = {}
        for _ in range(count):
            name = self._text(MAX_NAME_BYTES)
            num_dimensions = self._number("<u4")
            if not 1 <= num_dimensions <= MAX_DIMENSIONS:
                raise self._fault(f"{name[:80]!r} has {num_dimensions} dimensions")
            shape = tuple(self._number("<u8") for _ in range(num_dimensions))[::-1]
            kind, offset = self._number("<u4"), self._number("<u8")
            if name in places:
                raise self._fault(f"the tensor {name[:80]!r} is there twice")
            places[name] = TensorPlace(name, shape, self._kind(name, kind, shape), offset)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
            raise self._fault(f"its alignment is {alignment!r}, no power of two")
        start = -(-self._at // alignment) * alignment
        return {name: self._placed(place, start) for name, place in places.items()}

    def _kind(self, name: str, number: int, shape: tuple[int, ...]) -> GGMLQuantizationType:
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise self._fault(f"{name[:80]!r} has the unknown type {number}") from None
        block, _ = GGML_QUANT_SIZES[kind]
        if not all(0 < size < 2**40 for size in shape) or shape[-1] % block:
            raise self._fault(f"{name[:80]!r} of shape {shape} cannot be of type {kind.name}")
        return kind

    def _placed(self, place: TensorPlace, start: int) -> TensorPlace:
        begin = start + place.offset
        if begin + place.num_bytes > len(self._data):
            raise self._fault(
                f"it ends within {place.name!r}, at {len(self._data)} of at least"
                f" {begin + place.num_bytes} bytes; download it again"
            )
        return TensorPlace(place.name, place.shape, place.kind, begin)

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text(MAX_TEXT_BYTES)
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == ARRAY:
            return self._array()
        raise self._fault(f"a value has the unknown type {kind}")

    def _array(self) -> list[Any]:
        kind = self._number("<u4")
        if kind == TEXT:
            return [self._text(MAX_TEXT_BYTES) for _ in range(self._count(8))]
        if kind not in SCALARS:
            raise self._fault(f"a list holds values of the type {kind}")
        dtype = np.dtype(SCALARS[kind])
        count = self._count(dtype.itemsize)
        return list(np.frombuffer(self._bytes(count * dtype.itemsize), dtype).tolist())

    def _count(self, least_bytes: int) -> int:
        """A number of things of at least so many bytes each, which must fit into the rest."""
        count = int(self._number("<u8"))
        if count * least_bytes > len(self._data) - self._at:
            raise self._fault(f"it announces {count} values and ends before them")
        return count

    def _text(self, max_bytes: int) -> str:
        num_bytes = int(self._number("<u8"))
        if num_bytes > max_bytes:
            raise self._fault(f"a text is {num_bytes} bytes long; at most {max_bytes} are read")
        return self._bytes(num_bytes).decode("utf-8", "replace")

    def _number(self, dtype: str) -> Any:
        if dtype == "?":
            return bool(self._bytes(1)[0])
        letter = {"u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i", "f4": "f",
                  "u8": "Q", "i8": "q", "f8": "d"}[dtype[1:]]  # fmt: skip
        form = f"<{letter}"
        value = struct.unpack(form, self._bytes(struct.calcsize(form)))[0]
        # 1e-05 was written, not 9.999999747378752e-06: the shortest decimal of the same fp32.
        return float(str(np.float32(value))) if letter == "f" else value

    def _bytes(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise self._fault("it ends in the middle of its header; download it again")
        found = self._data[self._at : end]
        self._at = end
        return found

    def _fault(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path} cannot be read as GGUF: {what}")
