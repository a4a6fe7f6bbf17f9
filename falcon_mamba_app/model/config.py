"""The dimensions of a Mamba-1 model, and what follows from them: parameters, bytes, FLOPs.

It knows no tensors and imports neither torch nor transformers. The glossary of letters, used for
shapes everywhere:

    b rows   t tokens   l layers   h hidden size   d d_inner   n d_state   k d_conv   r dt_rank
    s slots  v vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from falcon_mamba_app.errors import CheckpointError

Family = Literal["falcon_mamba", "mamba"]
FAMILIES: dict[str, Family] = {
    "FalconMambaForCausalLM": "falcon_mamba",
    "MambaForCausalLM": "mamba",
}
DEFAULT_MIXER_NORM_EPS = 1e-6  # of checkpoints that do not say, the published 7B among them
SSM_STATE_BYTES = 4  # per number, always fp32
BLOCK_4BIT = 64  # numbers
KV_BYTES = 2  # per number of an attention model's cache in bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What the modules are built from. The letters are those of the glossary above."""

    family: Family
    num_layers: int  # l
    hidden_size: int  # h
    d_inner: int  # d
    d_state: int  # n
    d_conv: int  # k
    dt_rank: int  # r
    vocab_size: int  # v
    norm_eps: float = 1e-5
    mixer_norm_eps: float | None = DEFAULT_MIXER_NORM_EPS  # None: dt, B, C are not normalised
    use_bias: bool = False
    use_conv_bias: bool = True
    residual_in_fp32: bool = True
    tie_word_embeddings: bool = True
    hidden_act: str = "silu"

    def __post_init__(self) -> None:
        if self.hidden_act not in ("silu", "swish"):
            raise CheckpointError(
                f"the model's activation is {self.hidden_act!r}; this app runs Mamba-1 with 'silu'"
            )

    @classmethod
    def from_transformers(cls, config: Any) -> ModelConfig:
        """The dimensions of a transformers FalconMambaConfig or MambaConfig.

        d_inner is `intermediate_size`, never `expand`: where config.json names the former,
        transformers lets it rule, and the published 7B says expand 16 with an intermediate size of
        twice the hidden size. Raises CheckpointError for another family or activation.
        """
        family = config.model_type
        if family not in FAMILIES.values():
            raise CheckpointError(
                f"the model's type is {family!r}; this app runs Mamba-1 models: "
                + ", ".join(FAMILIES.values())
            )
        eps = getattr(config, "mixer_rms_eps", DEFAULT_MIXER_NORM_EPS)
        return cls(
            family=family,
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            d_inner=config.intermediate_size,
            d_state=config.state_size,
            d_conv=config.conv_kernel,
            dt_rank=int(config.time_step_rank),
            vocab_size=config.vocab_size,
            norm_eps=config.layer_norm_epsilon,
            mixer_norm_eps=eps if family == "falcon_mamba" else None,
            use_bias=config.use_bias,
            use_conv_bias=config.use_conv_bias,
            residual_in_fp32=config.residual_in_fp32,
            tie_word_embeddings=config.tie_word_embeddings,
            hidden_act=config.hidden_act,
        )

    def num_parameters(self) -> int:
        """All weights; a tied head counts once."""
        h, d, n, k = self.hidden_size, self.d_inner, self.d_state, self.d_conv
        vectors = d * k + d + d * n + d + h  # conv1d, dt_proj.bias, A_log, D, norm
        biases = self.use_bias * (2 * d + h) + self.use_conv_bias * d
        layer = self._matrix_parameters_per_layer() + vectors + biases
        tables = self._table_parameters() * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + tables + h

    def bytes_in_4bit(self, dtype_bytes: int, *, is_double: bool) -> int:
        """All weights with the layers' matrices in 4 bits. A block of 64 numbers has a magnitude of
        4 bytes; or of one, and 256 blocks another of 4.
        """
        matrices = self.num_layers * self._matrix_parameters_per_layer()
        num_blocks = matrices // BLOCK_4BIT
        magnitudes = num_blocks + num_blocks // 256 * 4 if is_double else num_blocks * 4
        full = (self.num_parameters() - matrices) * dtype_bytes
        return full + matrices // 2 + magnitudes

    def _matrix_parameters_per_layer(self) -> int:
        h, d, n, r = self.hidden_size, self.d_inner, self.d_state, self.dt_rank
        return h * 2 * d + d * (r + 2 * n) + r * d + d * h  # in_proj, x_proj, dt_proj, out_proj

    def _table_parameters(self) -> int:
        return self.vocab_size * self.hidden_size

    def state_bytes(self, conv_dtype_bytes: int) -> int:
        """Of one sequence, whatever its length: ssm (l, n, d) fp32 and conv (l, k-1, d)."""
        per_channel = self.d_state * SSM_STATE_BYTES + (self.d_conv - 1) * conv_dtype_bytes
        return self.num_layers * self.d_inner * per_channel

    def kv_bytes_per_token(self) -> int:
        """What an attention model of this size would add to its cache for every token it reads.

        A Mamba layer stands for half a transformer block, so l/2 blocks with K and V of h/4
        numbers each (8 of 32 heads, grouped) in bf16: 131,072 bytes for the 7B, exactly
        Llama-3.1-8B's.
        """
        return 2 * (self.num_layers // 2) * (self.hidden_size // 4) * KV_BYTES

    def bytes_read_per_step(self, dtype_bytes: int) -> int:
        """Weights that one decode step streams, whatever its rows: all but the embedding table,
        of which it gathers single rows. A tied table is the head, and is read.
        """
        gathered_only = 0 if self.tie_word_embeddings else self._table_parameters()
        return (self.num_parameters() - gathered_only) * dtype_bytes

    def bytes_moved_per_step(self, num_rows: int, dtype_bytes: int) -> int:
        """Memory traffic of a decode step: the weights once, and each row's state in and out."""
        return self.bytes_read_per_step(dtype_bytes) + 2 * num_rows * self.state_bytes(dtype_bytes)
