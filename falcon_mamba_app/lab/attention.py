"""What the cache of an attention model takes: keys and values of every token, in every layer.

2 × layers × key-value heads × head size × bytes of a number, for each token. A layer with a sliding
window keeps the tokens of its window only. The shapes are those of each model's published
configuration (config.json at the hub).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_TOKENS = 1_000_000  # to the end of every plot


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionModel:
    """The shape of a cache. `windowed_layers` of the `layers` see only the last `window` tokens."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    bytes_per_number: float = 2  # 16 bits; half a byte is a cache in 4 bits
    windowed_layers: int = 0
    window: int = 0

    @property
    def bytes_per_token(self) -> float:
        """What one more token takes, while no window is full."""
        return self.layers * self._bytes_per_layer

    def cache_bytes(self, num_tokens: int) -> float:
        """The whole cache of one sequence."""
        kept = min(num_tokens, self.window) if self.windowed_layers else 0
        full = self.layers - self.windowed_layers
        return self._bytes_per_layer * (full * num_tokens + self.windowed_layers * kept)

    def corners(self, num_tokens: int = MAX_TOKENS) -> list[tuple[int, float]]:
        """Tokens and bytes from 0 to `num_tokens`; between two of them the line is straight."""
        bends = {self.window} if self.windowed_layers and self.window < num_tokens else set()
        return [(tokens, self.cache_bytes(tokens)) for tokens in sorted({0, *bends, num_tokens})]

    @property
    def _bytes_per_layer(self) -> float:
        return 2 * self.kv_heads * self.head_dim * self.bytes_per_number


QWEN_2_5_7B = AttentionModel(name="Qwen2.5 7B", layers=28, kv_heads=4, head_dim=128)
LLAMA_3_1_8B = AttentionModel(name="Llama 3.1 8B", layers=32, kv_heads=8, head_dim=128)
LLAMA_2_7B = AttentionModel(name="Llama 2 7B", layers=32, kv_heads=32, head_dim=128)
MISTRAL_7B = AttentionModel(name="Mistral 7B v0.3", layers=32, kv_heads=8, head_dim=128)
MISTRAL_7B_WINDOW = AttentionModel(
    name="Mistral 7B v0.1", layers=32, kv_heads=8, head_dim=128, windowed_layers=32, window=4_096
)
GEMMA_2_9B = AttentionModel(
    name="Gemma 2 9B", layers=42, kv_heads=8, head_dim=256, windowed_layers=21, window=4_096
)
GEMMA_3_12B = AttentionModel(
    name="Gemma 3 12B", layers=48, kv_heads=8, head_dim=256, windowed_layers=40, window=1_024
)
KNOWN_MODELS = (
    LLAMA_3_1_8B,
    MISTRAL_7B,
    MISTRAL_7B_WINDOW,
    GEMMA_2_9B,
    GEMMA_3_12B,
    QWEN_2_5_7B,
    LLAMA_2_7B,
)
