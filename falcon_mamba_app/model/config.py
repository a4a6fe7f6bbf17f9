"""The dimensions of a Mamba-1 model, and their consequences: parameters, bytes, FLOPs.

It knows no tensors and imports neither torch nor transformers. These letters denote shapes in all
docstrings:

    b rows   t tokens   l layers   h hidden size   d d_inner   n d_state   k d_conv   r dt_rank
    s slots  v vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from falcon_mamba_app.errors import CheckpointError

Family = Literal["falcon_mamba", "mamba"]
FAMILIES: dict[str, Family] = {
    "FalconMambaForCausalLM": "falcon_mamba",
    "MambaForCausalLM": "mamba",
}
DEFAULT_MIXER_NORM_EPS = 1e-6  # if not stated, as in the published 7B
# The largest useful vocabulary. Ids are sent as fp32, which is exact up to 2²⁴.
MAX_DIMENSION = 2**20
MAX_DIMENSIONS = {"num_hidden_layers": 2**12, "vocab_size": 2**24, "conv_kernel": 2**8}
SSM_STATE_BYTES = 4  # per number, always fp32
BLOCK_4BIT = 64  # numbers
KV_BYTES = 2  # per number of an attention model's cache in bf16


@dataclass(frozen=True, slots=True)
class StateShapes:
    """conv: (l, k−1, d) in the weights' dtype.  ssm: (l, n, d) fp32."""

    conv: tuple[int, int, int]
    ssm: tuple[int, int, int]

    def of_slots(self, num_slots: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of num_slots states: conv (l, s, k−1, d) and ssm (l, s, n, d)."""
        layers, *conv = self.conv
        _, *ssm = self.ssm
        return (layers, num_slots, *conv), (layers, num_slots, *ssm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The dimensions of the modules. The letters are those of the glossary above."""

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
    def from_json(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The dimensions in a config.json, read by transformers' rules; importing transformers for
        this would take seconds.

        d_inner is `intermediate_size` if config.json has it, not `expand`: the published 7B says
        expand 16, with an intermediate size of twice the hidden size. Raises CheckpointError for
        another family or activation, and for an impossible dimension.
        """
        family: Any = values.get("model_type")
        if family not in FAMILIES.values():
            raise CheckpointError(
                f"the model's type is {family!r}; this app runs Mamba-1 models: "
                + ", ".join(FAMILIES.values())
            )
        if _switch(values, "rescale_prenorm_residual", False):
            raise CheckpointError(
                "rescale_prenorm_residual is true, by which transformers scales the weights anew at"
                " every load; set it to false to run them as the file holds them"
            )
        hidden_size = _dimension(values, "hidden_size", 768)
        expanded = int(_number(values, "expand", 2) * hidden_size)
        rank = -(-hidden_size // 16)
        is_auto = values.get("time_step_rank", "auto") == "auto"
        eps = _number(values, "mixer_rms_eps", DEFAULT_MIXER_NORM_EPS)
        return cls(
            family=family,
            num_layers=_dimension(values, "num_hidden_layers", 32),
            hidden_size=hidden_size,
            d_inner=_dimension(values, "intermediate_size", expanded),
            d_state=_dimension(values, "state_size", 16),
            d_conv=_dimension(values, "conv_kernel", 4),
            dt_rank=rank if is_auto else _dimension(values, "time_step_rank", rank),
            vocab_size=_dimension(values, "vocab_size", 50_280),
            norm_eps=_number(values, "layer_norm_epsilon", 1e-5),
            mixer_norm_eps=eps if family == "falcon_mamba" else None,
            use_bias=_switch(values, "use_bias", False),
            use_conv_bias=_switch(values, "use_conv_bias", True),
            residual_in_fp32=_switch(values, "residual_in_fp32", True),
            tie_word_embeddings=_switch(values, "tie_word_embeddings", True),
            hidden_act=values.get("hidden_act", "silu"),
        )

    def num_parameters(self) -> int:
        """All weights; a tied head counts once."""
        h, d, n, k = self.hidden_size, self.d_inner, self.d_state, self.d_conv
        vectors = d * k + d + d * n + d + h  # conv1d, dt_proj.bias, A_log, D, norm
        biases = self.use_bias * (2 * d + h) + self.use_conv_bias * d
        layer = self._matrix_parameters_per_layer() + vectors + biases
        tables = self._table_parameters() * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + tables + h

    def bytes_in_8bit(self, dtype_bytes: int) -> int:
        """The bytes of all weights, with every matrix in 8 bits and a scale of 4 bytes a row."""
        h, d, n, r = self.hidden_size, self.d_inner, self.d_state, self.dt_rank
        num_tables = 1 if self.tie_word_embeddings else 2
        tables = num_tables * self._table_parameters()
        matrices = self.num_layers * self._matrix_parameters_per_layer() + tables
        rows = self.num_layers * (2 * d + r + 2 * n + d + h) + num_tables * self.vocab_size
        return (self.num_parameters() - matrices) * dtype_bytes + matrices + 4 * rows

    def bytes_in_4bit(self, dtype_bytes: int, *, is_double: bool) -> int:
        """The bytes of all weights, with the layers' matrices in 4 bits. A block of 64 numbers has
        a magnitude of 4 bytes. Double quantisation: of 1 byte, and 4 more bytes per 256 blocks.
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

    @property
    def state_shapes(self) -> StateShapes:
        """The shapes of one sequence's state, channels innermost."""
        layers, d = self.num_layers, self.d_inner
        return StateShapes(conv=(layers, self.d_conv - 1, d), ssm=(layers, self.d_state, d))

    def state_bytes(self, conv_dtype_bytes: int) -> int:
        """The bytes of one sequence's state, whatever its length."""
        shapes = self.state_shapes
        return prod(shapes.conv) * conv_dtype_bytes + prod(shapes.ssm) * SSM_STATE_BYTES

    def kv_bytes_per_token(self) -> int:
        """The bytes that an attention model of this size would add to its cache per token.

        A Mamba layer corresponds to half a transformer block. So this counts l/2 blocks with K and
        V of h/4 numbers each (8 of 32 heads, grouped) in bf16: 131,072 bytes for the 7B, exactly as
        in Llama-3.1-8B.
        """
        return 2 * (self.num_layers // 2) * (self.hidden_size // 4) * KV_BYTES

    def bytes_read_per_step(self, dtype_bytes: int) -> int:
        """The bytes of weights that one decode step reads, whatever its rows: all but the embedding
        table, of which it gathers single rows. A tied table is also the head, so it is read.
        """
        gathered_only = 0 if self.tie_word_embeddings else self._table_parameters()
        return (self.num_parameters() - gathered_only) * dtype_bytes

    def bytes_moved_per_step(self, num_rows: int, dtype_bytes: int) -> int:
        """The memory traffic of a decode step: the weights once, each row's state in and out."""
        return self.bytes_read_per_step(dtype_bytes) + 2 * num_rows * self.state_bytes(dtype_bytes)


# The last argument is transformers' default for a missing field.
def _dimension(values: Mapping[str, Any], key: str, default: int) -> int:
    value, limit = values.get(key, default), MAX_DIMENSIONS.get(key, MAX_DIMENSION)
    if type(value) is not int or not 1 <= value <= limit:
        raise CheckpointError(
            f"{key} is {value!r:.60}; allowed are whole numbers from 1 to {limit}"
        )
    return value


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if type(value) not in (int, float) or not 0 < value <= MAX_DIMENSION:
        raise CheckpointError(
            f"{key} is {value!r:.60}; allowed are numbers above 0, up to {MAX_DIMENSION}"
        )
    return float(value)


def _switch(values: Mapping[str, Any], key: str, default: bool) -> bool:
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"{key} is {value!r:.60}; allowed are true and false")
    return value
