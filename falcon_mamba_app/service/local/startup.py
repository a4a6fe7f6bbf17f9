"""Makes a running engine from a placement, on the engine's thread; other threads read its progress.

It reads what was decided, reports its progress, and describes the result for people.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from functools import partial

import torch

from falcon_mamba_app.checkpoint.generation import GenerationDefaults, load_generation_defaults
from falcon_mamba_app.checkpoint.locate import Checkpoint
from falcon_mamba_app.checkpoint.placement import Placement
from falcon_mamba_app.checkpoint.progress import ProgressLines
from falcon_mamba_app.checkpoint.weights import (
    load_model,
    load_tokenizer,
)
from falcon_mamba_app.engine.build import build_engine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.runner.warm_up import rehearse_meanwhile
from falcon_mamba_app.engine.states.file import fingerprint
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.in_8bit import put_in_8bit
from falcon_mamba_app.model.linear import weights_bytes
from falcon_mamba_app.protocol import ModelInfo, SamplingParams
from falcon_mamba_app.service.local.prompts import tell_of_tokens_beyond
from falcon_mamba_app.settings import EngineLimits, flags_spelled
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.reply_log import ReplyLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of loading: the name of the current step, and its progress from 0 to 1."""

    share: float
    what: str


def read_tokenizer(
    checkpoint: Checkpoint, reply_log: ReplyLog
) -> tuple[PromptEncoder, GenerationDefaults]:
    """The tokenizer and the defaults. A reply also ends where the template closes a turn.

    Raises CheckpointError.
    """
    tokenizer = load_tokenizer(checkpoint)
    tell_of_tokens_beyond(tokenizer, checkpoint.config.vocab_size)
    defaults = load_generation_defaults(checkpoint, tokenizer)
    encoder = PromptEncoder(
        tokenizer,
        model_id=checkpoint.id,
        vocab_size=checkpoint.config.vocab_size,
        eos_token_ids=defaults.eos_token_ids,
        reply_log=reply_log,
    )
    if encoder.cannot_chat is not None:
        plain = replace(checkpoint, has_chat_template=False)
        return encoder, load_generation_defaults(plain, tokenizer)
    if encoder.end_of_turn_id is not None:
        end_ids = defaults.eos_token_ids | {encoder.end_of_turn_id}
        defaults = replace(defaults, eos_token_ids=end_ids)
    return encoder, defaults


def grammars_of(startup: Startup, encoder: PromptEncoder) -> Grammars:
    """The compiler of replies' forms for the model."""
    return Grammars(
        encoder.vocabulary,
        vocab_size=startup.placement.checkpoint.config.vocab_size,
        eos_token_ids=startup.eos_token_ids,
    )


def begin_rehearsal(placement: Placement, *, max_running: int) -> threading.Thread | None:
    """On a GPU, compile kernels before the weights are loaded. Not in 4 bits: an empty layer has no
    matrices in bitsandbytes' storage, so their products cannot be compiled.
    """
    quantization = placement.quantization
    if placement.device.type != "cuda" or (quantization is not None and not quantization.is_8bit):
        return None
    return rehearse_meanwhile(
        placement.checkpoint.config,
        placement.ops,
        max_running=max_running,
        device=placement.device,
        dtype=placement.dtype,
        form=partial(put_in_8bit, dtype=placement.dtype) if quantization else _leave,
    )


def _leave(model: FalconMamba) -> None:
    """The form of a model that is not quantised."""


class Startup:
    """Loads what was decided, and builds engines over it."""

    def __init__(
        self,
        placement: Placement,
        defaults: GenerationDefaults,
        limits: EngineLimits,
        *,
        rehearsal: threading.Thread | None = None,
        cannot_chat: str | None = None,
        can_continue: bool = False,
    ) -> None:
        """A started rehearsal ends before the engine is built. `cannot_chat` says why the model has
        no conversations, or is None.
        """
        self.placement, self.limits, self._defaults = placement, limits, defaults
        self._rehearsal = rehearsal
        self.progress = Progress(0.0, "starting")
        self._lines = ProgressLines()
        self.fingerprint = ""  # of the weights, after they are loaded
        self.model_info = describe(
            placement, defaults, limits, cannot_chat=cannot_chat, can_continue=can_continue
        )

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Any of them ends a reply."""
        return self._defaults.eos_token_ids

    def make_engine(self) -> Engine:
        """Load the weights and build the engine. Raises CheckpointError."""
        if self.limits.threads is not None:
            torch.set_num_threads(self.limits.threads)  # applies to the calling thread only
        try:
            model = self._load(self.placement.device)
        finally:
            if self._rehearsal is not None:
                _wait_for(self._rehearsal)
        return self.build_engine(model, limits=self.limits)

    def load_on_host(self) -> FalconMamba:
        """The model in host memory, whatever device it is for. Raises CheckpointError."""
        return self._load(torch.device("cpu"))

    def _load(self, device: torch.device) -> FalconMamba:
        with flags_spelled():
            model = load_model(
                self.placement.checkpoint,
                device=device,
                dtype=self.placement.dtype,
                make_model=lambda config: FalconMamba(config, self.placement.ops),
                quantization=self.placement.quantization,
                on_progress=self._on_progress,
            )
        assert isinstance(model, FalconMamba), type(model)
        self.model_info = replace(
            self.model_info,
            num_parameters=model.config.num_parameters(),
            weights_bytes=weights_bytes(model),
        )
        self.fingerprint = fingerprint(model)
        return model

    def build_engine(self, model: FalconMamba, *, limits: EngineLimits) -> Engine:
        """The engine over a loaded model, which is moved to the device if necessary."""
        engine = build_engine(
            model.to(self.placement.device),
            eos_token_ids=self._defaults.eos_token_ids,
            max_running=limits.max_running,
            max_prefill_tokens=limits.max_prefill_tokens,
            max_mixed_prefill_tokens=limits.max_mixed_prefill_tokens,
            max_snapshot_bytes=limits.snapshot_bytes,
            max_session_snapshots=limits.session_snapshots,
            speculates=limits.speculation != "off",
        )
        info = self.model_info
        logger.info(
            "%s runs in %s (%.2f GB) on %s with %s kernels",
            info.id,
            ", ".join(filter(None, (info.quantization, info.dtype))),
            weights_bytes(model) / 1e9,
            info.device,
            info.kernels,
        )
        return engine

    def _on_progress(self, share: float, what: str) -> None:
        self.progress = Progress(share, what)
        self._lines(share, what)


def describe(
    placement: Placement,
    defaults: GenerationDefaults,
    limits: EngineLimits,
    *,
    cannot_chat: str | None = None,
    can_continue: bool = False,
) -> ModelInfo:
    """The model's description for people; known before the weights are read."""
    checkpoint, quantization = placement.checkpoint, placement.quantization
    config = checkpoint.config
    return ModelInfo(
        id=checkpoint.id,
        aliases=checkpoint.aliases,
        has_chat_template=cannot_chat is None,
        cannot_chat=cannot_chat,
        can_continue=can_continue,
        is_bundled=checkpoint.is_bundled,
        family=config.family,
        num_parameters=config.num_parameters(),
        dtype=str(placement.dtype).removeprefix("torch."),
        device=_device_name(placement.device, limits.threads),
        kernels=placement.ops.name,
        quantization=quantization.describe() if quantization else None,
        state_bytes=config.state_bytes(placement.dtype.itemsize),
        kv_bytes_per_token=config.kv_bytes_per_token(),
        trained_context_tokens=checkpoint.trained_context_tokens,
        max_prompt_tokens=limits.max_prompt_tokens,
        max_new_tokens=limits.max_new_tokens,
        default_sampling=_within(limits, defaults.sampling),
    )


def _within(limits: EngineLimits, sampling: SamplingParams) -> SamplingParams:
    limit = min(sampling.max_new_tokens, limits.max_new_tokens)
    return replace(sampling, max_new_tokens=limit)


def _wait_for(rehearsal: threading.Thread) -> None:
    started_s = time.perf_counter()
    rehearsal.join()
    torch.cuda.empty_cache()  # 0.8 GB of the 7B's shapes
    logger.info("waited %.1f s for the rehearsal", time.perf_counter() - started_s)


def _device_name(device: torch.device, threads: int | None) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {threads or torch.get_num_threads()} threads"
