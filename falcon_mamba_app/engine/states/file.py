"""A conversation's entire memory as one small file, and back.

The file is safetensors: `token_ids`, `conv_state` and `ssm_state`, with the model's fingerprint and
the session's recorded replies in its metadata. The file comes from outside, so all of its contents
are checked before they are used.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba

FORMAT = "falcon-mamba-state-1"
STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# States of real models stay below a thousand; products of numbers up to here stay finite in fp32.
MAX_MAGNITUDE = 1e6
# A header names three tensors and the replies' ids, 6 bytes each. Parsed, JSON grows tenfold.
MAX_HEADER_BYTES = 8 * 2**20


def fingerprint(model: FalconMamba) -> str:
    """A name of the weights, the same in every form of them; other weights cannot use the state."""
    digest = hashlib.sha256(repr(model.config).encode())
    for sample in (model.backbone.norm_f.weight, *model.named_rows):
        # bfloat16: every precision of one checkpoint rounds to the same values.
        numbers = sample.detach().to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()


def to_bytes(snapshot: Snapshot, *, model_fingerprint: str, replies: list[Any]) -> bytes:
    """The file of a snapshot that has arrived in host memory.

    `replies` is JSON data that `from_bytes` returns unchanged.
    """
    tensors = {
        "token_ids": torch.frombuffer(bytearray(snapshot.packed_token_ids), dtype=torch.int32),
        "conv_state": snapshot.state.conv.contiguous(),
        "ssm_state": snapshot.state.ssm.contiguous(),
    }
    metadata = {
        "format": FORMAT,
        "model": model_fingerprint,
        "replies": json.dumps(replies, separators=(",", ":")),
    }
    return save(tensors, metadata)


def from_bytes(
    data: bytes, *, config: ModelConfig, conv_dtype: torch.dtype, model_fingerprint: str
) -> tuple[Snapshot, Any]:
    """The snapshot and the replies of a file; the replies are not checked here.

    Raises InvalidRequest that names the first fault. Nothing here touches the device.
    """
    metadata = _metadata(data)
    if metadata.get("format") != FORMAT:
        raise InvalidRequest(f"this file is no saved state: its format is not {FORMAT!r}")
    if metadata.get("model") != model_fingerprint:
        raise InvalidRequest("this state was saved by another model; load it into the same one")
    try:
        tensors = load(data)
        replies = json.loads(metadata.get("replies", "[]"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"this state's file is damaged: {error}") from error
    token_ids = _checked_token_ids(tensors.get("token_ids"), config.vocab_size)
    shapes = config.state_shapes
    conv = _checked_state(tensors, "conv_state", shapes.conv, conv_dtype)
    ssm = _checked_state(tensors, "ssm_state", shapes.ssm, torch.float32)
    return Snapshot(token_ids, State(conv, ssm)), replies


def _metadata(data: bytes) -> dict[str, Any]:
    """The header's metadata; safetensors returns it only for files on disk."""
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidRequest(
            f"this file is no saved state: its header claims {length} bytes;"
            f" at most {MAX_HEADER_BYTES} are read"
        )
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise InvalidRequest("this file is no saved state: it is not safetensors")
    return metadata


def _checked_token_ids(token_ids: torch.Tensor | None, vocab_size: int) -> bytes:
    """The ids packed: as a list, the ids of one file could take half a gigabyte."""
    is_list = token_ids is not None and token_ids.dtype is torch.int32 and token_ids.dim() == 1
    if token_ids is None or not is_list or not token_ids.numel():
        raise InvalidRequest("this state's file is damaged: it has no list of token_ids")
    if int(token_ids.min()) < 0 or int(token_ids.max()) >= vocab_size:
        raise InvalidRequest(f"this state's file has token ids beyond 0 to {vocab_size - 1}")
    return token_ids.numpy().tobytes()


def _checked_state(
    tensors: dict[str, torch.Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """The tensor in `dtype`; each number is finite there and in the range of real states."""
    state = tensors.get(name)
    if state is None or tuple(state.shape) != shape or state.dtype not in STATE_DTYPES:
        found = "nothing" if state is None else f"{state.dtype} of shape {tuple(state.shape)}"
        raise InvalidRequest(
            f"this state's file has {found} as {name}; it must be of shape {shape}"
        )
    state = state.to(dtype)
    # One pass and no copy; a NaN comes out as both, and is no number between the bounds.
    low, high = (float(number) for number in state.aminmax())
    if not -MAX_MAGNITUDE <= low <= high <= MAX_MAGNITUDE:
        raise InvalidRequest(
            f"this state's file has numbers in {name} beyond ±{MAX_MAGNITUDE:g}, or none at all"
        )
    return state
