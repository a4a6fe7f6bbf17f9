"""Small checkpoints and a tokenizer for the tests, written the way transformers writes them.

Their weights remember: decays of A = -1…-16 with small time steps, so that what was read fifty
tokens ago still moves the logits. Random weights forget within a few tokens, and a state carried
wrongly would pass for right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GenerationConfig,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CORPUS = (
    "The river carries what it has read to the sea, and the sea forgets nothing.",
    "A state of fixed size remembers a long conversation: names, numbers, stories.",
    "user assistant system Hello! How are you today? I am fine, thank you.",
    "Zürich, naïve, façade, smörgåsbord; 你好，世界。 Привет, мир! 😀 👍🏽",
)
FAMILIES = {
    "falcon_mamba": (FalconMambaConfig, FalconMambaForCausalLM),
    "mamba": (MambaConfig, MambaForCausalLM),
}
DIMENSIONS = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "expand": 2,
    "state_size": 8,
    "conv_kernel": 4,
    "time_step_rank": 4,
}


def make_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE of some 450 tokens, the special ones first, with a ChatML template."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def make_model(family: str = "falcon_mamba", **config_overrides: Any) -> Any:
    """A transformers model of three layers whose weights remember, always the same ones."""
    config_class, model_class = FAMILIES[family]
    vocab_size = config_overrides.pop("vocab_size", len(make_tokenizer()))
    config = config_class(**{**DIMENSIONS, "vocab_size": vocab_size, **config_overrides})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).eval()
        with torch.no_grad():
            for layer in model.backbone.layers:
                _make_it_remember(layer.mixer)
            model.backbone.embeddings.weight.normal_(std=0.5)
            if not config.tie_word_embeddings:
                model.lm_head.weight.normal_(std=0.5)
    return model


def _make_it_remember(mixer: Any) -> None:
    decays = torch.linspace(1.0, 16.0, mixer.A_log.shape[1]).log()
    mixer.A_log.copy_(decays.expand_as(mixer.A_log))
    mixer.D.uniform_(0.5, 1.5)
    time_steps = torch.empty_like(mixer.dt_proj.bias).uniform_(0.001, 0.02)
    mixer.dt_proj.bias.copy_(time_steps + torch.log(-torch.expm1(-time_steps)))  # softplus⁻¹
    mixer.dt_proj.weight.normal_(std=0.02)
    for projection in (mixer.in_proj, mixer.x_proj, mixer.out_proj):
        projection.weight.normal_(std=projection.in_features**-0.5)
        if projection.bias is not None:
            projection.bias.normal_(std=0.1)
    mixer.x_proj.weight.mul_(3.0)  # larger B and C: more of what was read stays visible
    mixer.conv1d.weight.normal_(std=0.5)
    if mixer.conv1d.bias is not None:
        mixer.conv1d.bias.normal_(std=0.1)


def make_tiny_checkpoint(
    folder: Path,
    family: str = "falcon_mamba",
    *,
    chat_template: str | None = CHATML,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **config_overrides: Any,
) -> Path:
    """A folder as `save_pretrained` leaves it: config, weights, tokenizer, generation defaults."""
    tokenizer = make_tokenizer(chat_template)
    model = make_model(family, **config_overrides).to(dtype)
    model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=3)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    return folder
