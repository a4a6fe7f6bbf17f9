"""The peers: other software that runs this model, over the same weights.

transformers is always installed. mamba-ssm runs plain Mamba-1, without Falcon's norms of dt, B and
C, so it has a little less work; it is measured if it is installed.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from falcon_mamba_app.model.falcon_mamba import FalconMamba

HAS_MAMBA_SSM = importlib.util.find_spec("mamba_ssm") is not None
DECODE_TOKENS = 24
GRAPH_PROMPT = 16


def transformers_over(model: FalconMamba) -> Any:
    """transformers' own FalconMambaForCausalLM on our model's tensors: nothing is held twice."""
    # Here, because a start that is measured takes what the app imports and no more.
    from transformers import FalconMambaConfig, FalconMambaForCausalLM

    config = model.config
    with torch.device("meta"):
        theirs = FalconMambaForCausalLM(
            # Any: transformers' types do not know all that its configuration takes.
            cast(Any, FalconMambaConfig)(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                intermediate_size=config.d_inner,
                num_hidden_layers=config.num_layers,
                state_size=config.d_state,
                conv_kernel=config.d_conv,
                time_step_rank=config.dt_rank,
                layer_norm_epsilon=config.norm_eps,
                mixer_rms_eps=config.mixer_norm_eps,
                use_bias=config.use_bias,
                use_conv_bias=config.use_conv_bias,
                residual_in_fp32=config.residual_in_fp32,
                tie_word_embeddings=config.tie_word_embeddings,
            )
        )
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    theirs.load_state_dict(weights, assign=True, strict=False)
    theirs.tie_weights()
    _fill_norms(theirs, model)
    return theirs.eval()


def _fill_norms(theirs: torch.nn.Module, model: FalconMamba) -> None:
    """transformers multiplies the norms of dt, B and C by ones that no checkpoint holds."""
    for name, weight in [*theirs.named_parameters(), *theirs.named_buffers()]:
        if weight.is_meta:
            assert name.endswith("layernorm.weight"), f"{name} has no tensor"
            parent, _, attribute = name.rpartition(".")
            ones = torch.ones(weight.shape, dtype=model.dtype, device=model.device)
            is_parameter = isinstance(weight, torch.nn.Parameter)
            value = torch.nn.Parameter(ones, requires_grad=False) if is_parameter else ones
            setattr(theirs.get_submodule(parent), attribute, value)


def has_fast_kernels() -> bool:
    """Whether transformers finds mamba-ssm's and causal-conv1d's kernels; else it loops."""
    return HAS_MAMBA_SSM and importlib.util.find_spec("causal_conv1d") is not None


def transformers_decode(theirs: Any, num_rows: int) -> float:
    """Tokens a second that `generate` samples, reading the prompt left out."""
    prompt = random_prompt(theirs, num_rows, GRAPH_PROMPT)

    def generate(new_tokens: int) -> None:
        theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )

    timed(lambda: generate(2), prompt.device)
    first_s = timed(lambda: generate(1), prompt.device)
    rest_s = timed(lambda: generate(1 + DECODE_TOKENS), prompt.device) - first_s
    return num_rows * DECODE_TOKENS / rest_s


def transformers_prefill(theirs: Any, num_tokens: int) -> float:
    """Tokens a second of one forward pass over a prompt, logits of its last token only."""
    prompt = random_prompt(theirs, 1, num_tokens)

    @torch.inference_mode()
    def forward() -> None:
        theirs(prompt, use_cache=True, logits_to_keep=1)

    return num_tokens / statistics.median(timed(forward, prompt.device) for _ in range(2))


def random_prompt(theirs: Any, num_rows: int, num_tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(num_tokens)
    size = (num_rows, num_tokens)
    prompt = torch.randint(20, theirs.config.vocab_size, size, generator=generator)
    return prompt.to(theirs.device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done the work."""
    started_s = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started_s


def mamba_ssm_decode(model: FalconMamba, num_rows: int) -> float:
    """Tokens a second of mamba-ssm's `generate` with its CUDA graph; needs mamba-ssm and a GPU."""
    theirs = _mamba_ssm_of(model)
    prompt = torch.randint(20, model.config.vocab_size, (num_rows, GRAPH_PROMPT)).to(model.device)

    def generate(new_tokens: int) -> None:
        theirs.generate(
            prompt, max_length=GRAPH_PROMPT + new_tokens, cg=True, top_k=0, top_p=0.9,
            temperature=0.7,
        )  # fmt: skip

    timed(lambda: generate(2), model.device)  # captures its graph
    first_s = timed(lambda: generate(1), model.device)
    rest_s = timed(lambda: generate(1 + 4 * DECODE_TOKENS), model.device) - first_s
    return 4 * num_rows * DECODE_TOKENS / rest_s


def mamba_ssm_prefill(model: FalconMamba, num_tokens: int) -> float:
    """Tokens a second of mamba-ssm's forward pass over a prompt."""
    theirs = _mamba_ssm_of(model)
    prompt = torch.randint(20, model.config.vocab_size, (1, num_tokens)).to(model.device)

    @torch.inference_mode()
    def forward() -> None:
        theirs(prompt, num_last_tokens=1)

    timed(forward, model.device)
    return num_tokens / timed(forward, model.device)


def _mamba_ssm_of(model: FalconMamba) -> Any:
    """mamba-ssm's model of the same shape, its weights left as they are drawn."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    config = model.config
    theirs = MambaConfig(
        d_model=config.hidden_size,
        n_layer=config.num_layers,
        vocab_size=config.vocab_size,
        ssm_cfg={"d_state": config.d_state, "d_conv": config.d_conv, "dt_rank": config.dt_rank},
        residual_in_fp32=config.residual_in_fp32,
        tie_embeddings=config.tie_word_embeddings,
    )
    return MambaLMHeadModel(theirs, device=model.device, dtype=model.dtype).eval()
