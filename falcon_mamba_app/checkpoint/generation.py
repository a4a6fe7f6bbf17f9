"""The authors' defaults for generating, from generation_config.json, config.json and the tokenizer.
The log names each default that this app does not follow.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from falcon_mamba_app.checkpoint.locate import Checkpoint
from falcon_mamba_app.checkpoint.small_files import (
    IDS,
    NUMBER,
    SWITCH,
    Check,
    check_fields,
    read_object,
)
from falcon_mamba_app.errors import CheckpointError, InvalidRequest
from falcon_mamba_app.protocol import SamplingParams

logger = logging.getLogger(__name__)

FILE = "generation_config.json"
# For chats whose checkpoint has no defaults: a common, safe choice.
CHAT_SAMPLING = SamplingParams(temperature=0.7, top_p=0.9)
FOLLOWED_IN_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")
CHECKS: dict[str, Check] = {
    "eos_token_id": IDS,
    "do_sample": SWITCH,
    **dict.fromkeys((*FOLLOWED_IN_SAMPLING, "repetition_penalty"), NUMBER),
}
# transformers' settings that change a reply and that this app lacks, each with its neutral values.
NOT_FOLLOWED: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_decoder_ids": ([],),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "max_length": (20,),
    "max_new_tokens": (),
    "max_time": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "remove_invalid_values": (False,),
    "sequence_bias": ([], {}),
    "stop_strings": ([],),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "top_h": (),
    "watermarking_config": ({},),
}


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Any of `eos_token_ids` ends a reply; `sampling` applies unless a request overrides it."""

    eos_token_ids: frozenset[int]
    sampling: SamplingParams


def load_generation_defaults(checkpoint: Checkpoint, tokenizer: Any) -> GenerationDefaults:
    """Read the defaults from the checkpoint's files alone: base and instruct models have different
    end tokens.

    A generation_config that samples is followed. A chat model without one gets CHAT_SAMPLING; a
    base model gets the plain distribution, as in the OpenAI API. Raises CheckpointError.
    """
    has_file = (checkpoint.folder / FILE).is_file()
    file = FILE if has_file else "config.json"  # older checkpoints have these fields there
    config = read_object(checkpoint.folder / file, checkpoint.id)
    check_fields(config, CHECKS, file=file, name=checkpoint.id)
    _tell_what_is_not_followed(config, file, checkpoint.id)
    fallback = CHAT_SAMPLING if checkpoint.has_chat_template else SamplingParams()
    try:
        sampling = _sampling(config, fallback)
    except InvalidRequest as error:
        raise CheckpointError(f"{checkpoint.id}: {file}: {error}") from error
    return GenerationDefaults(_eos_token_ids(checkpoint, config, tokenizer), sampling)


def _eos_token_ids(
    checkpoint: Checkpoint, config: Mapping[str, Any], tokenizer: Any
) -> frozenset[int]:
    eos = config.get("eos_token_id")
    if eos is None:
        model_config = read_object(checkpoint.folder / "config.json", checkpoint.id)
        file, checks = "config.json", {"eos_token_id": IDS}
        check_fields(model_config, checks, file=file, name=checkpoint.id)
        eos = model_config.get("eos_token_id", 0)  # 0: transformers' default for both families
    # A chat template ends turns with the tokenizer's own end token, which the list may lack.
    ids = [*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id]
    return frozenset(token_id for token_id in ids if token_id is not None)


def _sampling(config: Mapping[str, Any], fallback: SamplingParams) -> SamplingParams:
    given = {key: config[key] for key in FOLLOWED_IN_SAMPLING if config.get(key) is not None}
    sampling = SamplingParams(**given) if config.get("do_sample") else fallback
    penalty = config.get("repetition_penalty")  # applies with and without sampling
    return sampling if penalty is None else replace(sampling, repetition_penalty=penalty)


def _tell_what_is_not_followed(config: Mapping[str, Any], file: str, name: str) -> None:
    asked = [
        key
        for key, neutral in NOT_FOLLOWED.items()
        if config.get(key) is not None and config[key] not in neutral
    ]
    if asked:
        logger.warning(
            "%s: %s asks for %s, which this app does not follow", name, file, ", ".join(asked)
        )
