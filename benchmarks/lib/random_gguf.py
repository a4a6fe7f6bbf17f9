"""A GGUF file of the 7B's shape, with random matrices of the published file's kinds.

Speed and memory do not depend on what the blocks hold. Bytes of at most 15 are whole numbers like
any others, and as the halves that scale a block next to nothing, so everything stays finite.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from benchmarks.lib.checkpoint import write_tokenizer
from falcon_mamba_app.checkpoint.gguf.config import ARCHITECTURE
from falcon_mamba_app.checkpoint.gguf.tensors import PRODUCTS, shapes
from falcon_mamba_app.checkpoint.gguf.write import add_dimensions, add_tokenizer, file_name
from falcon_mamba_app.model.config import ModelConfig

Kind = GGMLQuantizationType
PATTERN_BYTES = 2**24


def write_random_gguf(path: Path, config: ModelConfig) -> None:
    """As Q4_K_M: the head is Q6_K, all other matrices Q4_K, the rest fp32."""
    writer: Any = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_name(path.stem)
    add_dimensions(writer, config)
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), config.vocab_size)
        add_tokenizer(writer, Path(folder), {"vocab_size": config.vocab_size}, "gpt-2")
    sizes = {name: _squeezed(shape) for name, shape in shapes(config).items()}
    for name, shape in sizes.items():
        kind = _kind(name, shape)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        # The writer wants the shape that the bytes of the blocks have.
        stored = shape if kind == Kind.F32 else (*shape[:-1], shape[-1] // block * block_bytes)
        dtype = np.dtype(np.float32 if kind == Kind.F32 else np.uint8)
        num_bytes = int(np.prod(stored)) * dtype.itemsize
        writer.add_tensor_info(file_name(name), stored, dtype, num_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    pattern = np.random.default_rng(0).integers(0, 16, PATTERN_BYTES, np.uint8)
    for name, shape in sizes.items():
        writer.write_tensor_data(_numbers(name, shape, pattern))
    writer.close()


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the convolution's dimension of one, which the format does not have."""
    return tuple(size for place, size in enumerate(shape) if size > 1 or place == 0)


def _kind(name: str, shape: tuple[int, ...]) -> Kind:
    if not name.endswith(PRODUCTS) or shape[-1] % GGML_QUANT_SIZES[Kind.Q4_K][0]:
        return Kind.F32
    return Kind.Q6_K if name == "lm_head.weight" else Kind.Q4_K


def _numbers(name: str, shape: tuple[int, ...], pattern: np.ndarray[Any, Any]) -> Any:
    kind = _kind(name, shape)
    if kind == Kind.F32:
        sign = -1.0 if name.endswith("A_log") else 1.0
        return np.full(shape, sign, np.float32)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    num_bytes = int(np.prod(shape)) // block * block_bytes
    return np.resize(pattern, num_bytes)
