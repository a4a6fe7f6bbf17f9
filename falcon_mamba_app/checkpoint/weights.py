"""Weights and tokenizer of a located checkpoint.

On a CPU `plain_files` reads plain files; transformers and accelerate read all others. Our modules
then take over the same tensors, so nothing is held twice. A damaged file, a missing tensor or a
tensor of another shape raises CheckpointError: no weight keeps its initial value. This module knows
no text and no engine.

transformers is imported inside functions: the import takes seconds, in which a GPU can be prepared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from falcon_mamba_app.checkpoint import hub
from falcon_mamba_app.checkpoint.host_memory import returning_freed
from falcon_mamba_app.checkpoint.locate import Checkpoint
from falcon_mamba_app.checkpoint.plain_files import read_plain
from falcon_mamba_app.checkpoint.progress import OnProgress, progress_told_to, unheard
from falcon_mamba_app.checkpoint.quantization import Quantization
from falcon_mamba_app.checkpoint.quantization import weights_bytes as needed_bytes
from falcon_mamba_app.checkpoint.small_files import one_line
from falcon_mamba_app.checkpoint.weights_4bit import (
    quantize_while_reading,
    refuse_without_library,
    take_over_4bit,
)
from falcon_mamba_app.checkpoint.weights_8bit import take_over_8bit
from falcon_mamba_app.checkpoint.weights_gguf import read_gguf
from falcon_mamba_app.errors import CheckpointError, is_lack_of_memory
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.linear import weights_bytes

logger = logging.getLogger(__name__)

# A = -exp(A_log): a rounded logarithm changes every decay, so these stay in fp32.
FP32_PARAMETERS = frozenset({"A_log", "D"})


def load_model(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    make_model: Callable[[ModelConfig], nn.Module],
    quantization: Quantization | None = None,
    on_progress: OnProgress = unheard,
) -> nn.Module:
    """The checkpoint's weights in the modules of `make_model`, on `device`, ready to run.

    `on_progress` gets the name of the current step and its progress from 0 to 1. All matrices are
    in `dtype`, or quantised; each is quantised while it is read, unless the checkpoint is already
    quantised. A_log and D are in fp32. At the end the model's `prepare` method is called, if it has
    one. Raises CheckpointError.
    """
    started = time.perf_counter()
    if quantization is not None and quantization.is_4bit:
        refuse_without_library(checkpoint, device)
    with torch.device("meta"):
        model: Any = make_model(checkpoint.config)
    if checkpoint.gguf is not None:
        read_gguf(
            model,
            checkpoint,
            device=device,
            dtype=dtype,
            fp32=FP32_PARAMETERS,
            keeps_blocks=quantization is not None,
            on_progress=on_progress,
        )
    else:
        _fetch_weights(checkpoint, on_progress)
        _read_folder(model, checkpoint, quantization, device, dtype, on_progress)
    prepare = getattr(model, "prepare", None)
    if prepare is not None:
        prepare()
    on_progress(1.0, "weights loaded")
    seconds = time.perf_counter() - started
    loaded: nn.Module = model
    num_bytes = weights_bytes(loaded)
    logger.info("loaded %s, %.2f GB in %.1f s", checkpoint.id, num_bytes / 1e9, seconds)
    return loaded


def _read_folder(
    model: Any,
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: OnProgress,
) -> None:
    """Give `model` the tensors of the checkpoint's files. Raises CheckpointError."""
    is_8bit = quantization is not None and quantization.is_8bit
    told_errors = partial(_errors_of, checkpoint, quantization, device, dtype)
    held: frozenset[str] = frozenset()  # modules whose matrix is in place
    with told_errors():
        tensors = None
        if device.type == "cpu" and (quantization is None or is_8bit):
            tensors = read_plain(
                checkpoint,
                model.state_dict(),
                dtype_of=(lambda key: None) if is_8bit else partial(_dtype_of, dtype=dtype),
                on_progress=on_progress,
            )
        if tensors is None:
            source = _read_weights(
                checkpoint,
                quantization,
                # In 8 bits the files stay mapped into memory, and each matrix is read from there.
                device=torch.device("cpu") if is_8bit else device,
                dtype="auto" if is_8bit else dtype,
                on_progress=on_progress,
            )
            _settle_head(model, source, checkpoint)
            if not is_8bit:
                held = frozenset(take_over_4bit(model, source, checkpoint))
            tensors = source.state_dict()
        if is_8bit:
            held = take_over_8bit(
                model, tensors, device=device, dtype=dtype, on_progress=on_progress
            )
    _take_over(model, tensors, held, device=device, dtype=dtype)


def _fetch_weights(checkpoint: Checkpoint, on_progress: OnProgress) -> None:
    if checkpoint.missing_weights:
        assert checkpoint.hub_id is not None, f"{checkpoint.id} has nowhere to come from"
        hub.fetch_files(
            checkpoint.hub_id, checkpoint.commit, checkpoint.missing_weights, on_progress
        )


def _read_weights(
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    *,
    device: torch.device,
    dtype: torch.dtype | str,
    on_progress: OnProgress,
) -> Any:
    """transformers' own module with every weight in place; "auto" keeps the files' dtype."""
    model_class = _class_that_keeps_fp32(checkpoint)
    asked_of_library = quantize_while_reading(quantization, dtype)
    if asked_of_library is not None:
        on_progress = returning_freed(on_progress)
    with progress_told_to(on_progress):
        model, report = model_class.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            quantization_config=asked_of_library,
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below in one line
        )
    _refuse_incomplete(report, checkpoint)
    return model


@contextmanager
def _errors_of(
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[None]:
    """Any error of reading as a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # safetensors, OSError, RuntimeError …: all from the files
        if is_lack_of_memory(error):
            needed = needed_bytes(checkpoint.config, quantization, dtype.itemsize)
            form = quantization.kind if quantization else _name(dtype)
            raise CheckpointError(
                f"{checkpoint.id} needs {needed / 1e9:.1f} GB for its weights in {form} and"
                f" {device} has not that much free; free some, or choose a smaller `model`"
            ) from error
        raise CheckpointError(
            f"the weights of {checkpoint.id} cannot be read ({one_line(error)});"
            f" download {checkpoint.folder} again"
        ) from error


def _class_that_keeps_fp32(checkpoint: Checkpoint) -> Any:
    """transformers' class for the checkpoint, told to leave A_log and D in fp32."""
    from transformers import AutoModelForCausalLM

    classes: Any = AutoModelForCausalLM._model_mapping  # keyed by the type of the configuration
    base = classes[type(_transformers_config(checkpoint))]
    return type(base.__name__, (base,), {"_keep_in_fp32_modules_strict": set(FP32_PARAMETERS)})


def _refuse_incomplete(report: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        key, found, wanted = mismatched[0]
        raise CheckpointError(
            f"{checkpoint.id}: {key} has the shape {tuple(found)} where config.json implies"
            f" {tuple(wanted)} ({len(mismatched)} such); the files do not belong together"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{checkpoint.id} lacks {len(missing)} of the model's weights, {missing[0]} first;"
            " download it again"
        )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected:
        raise CheckpointError(
            f"{checkpoint.id} holds {len(unexpected)} weights that its config.json does not"
            f" imply, {unexpected[0]} first; the files do not belong together"
        )


def _settle_head(model: Any, source: Any, checkpoint: Checkpoint) -> None:
    """Take the head for tied or not as `source` has it: transformers uses a head that is stored in
    the file, whatever config.json says.
    """
    is_tied: bool = source.lm_head.weight is source.backbone.embeddings.weight
    if is_tied != checkpoint.config.tie_word_embeddings:
        logger.warning(
            "%s: config.json ties the head to the embeddings, but the file holds another; it is"
            " used, as transformers does",
            checkpoint.id,
        )
        model.config = replace(checkpoint.config, tie_word_embeddings=is_tied)


def _take_over(
    model: Any,
    tensors: Mapping[str, Tensor],
    quantised: frozenset[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Give `model` the `tensors`, without a copy where they are as they should be, but for the
    weights of its `quantised` modules.

    In a checkpoint in 4 bits transformers leaves the other tensors in their stored dtype; they are
    converted here.
    """
    held = tuple(f"{name}.weight" for name in quantised)
    weights = {
        key: tensor.to(device, _dtype_of(key, dtype=dtype))
        for key, tensor in tensors.items()
        if not key.startswith(held)
    }
    result = model.load_state_dict(weights, assign=True, strict=False)
    is_tied = model.config.tie_word_embeddings and "lm_head" not in quantised
    missing = set(result.missing_keys) - ({"lm_head.weight"} if is_tied else set())
    assert not missing, f"our modules need {missing}"
    assert not result.unexpected_keys, f"our modules lack {result.unexpected_keys}"
    if is_tied:
        model.lm_head.weight = model.backbone.embeddings.weight


def _dtype_of(key: str, *, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if key.split(".")[-1] in FP32_PARAMETERS else dtype


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer, a transformers fast one. Raises CheckpointError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except BaseException as error:  # tokenizers raises Exception; its Rust code panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"the tokenizer of {checkpoint.id} cannot be read: tokenizer.json or"
            f" tokenizer_config.json ({type(error).__name__}: {one_line(error)});"
            f" download {checkpoint.folder} again"
        ) from error


def _transformers_config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint.folder)
    except Exception as error:  # transformers raises exceptions of several kinds
        raise CheckpointError(
            f"{checkpoint.id}: config.json is not valid: {one_line(error)}"
        ) from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
