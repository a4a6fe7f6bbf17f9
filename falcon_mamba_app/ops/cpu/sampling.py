"""The choice of the next token, compiled: `sampling.sample` without a sort, 30 times faster.

The edges of top_k and top_p are found by halving the interval of possible bit patterns. A larger
positive float has larger bits, so thirty passes over the row find the edge exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import (
    BFLOAT16,
    FLOAT32,
    INT64,
    LOG2_E,
    ONE,
    OPTIONS,
    REORDERED,
    ZERO,
    exp2,
    pointer,
    row_values,
)
from falcon_mamba_app.ops.reference.sampling import LEAST_LOGIT, NO_TOKEN, Column

_NO_TOKEN = np.int64(NO_TOKEN)
LARGEST, INFINITE = np.finfo(np.float32).max, np.float32(np.inf)
HALF_BITS = 16  # of half a word of a mask
ALL_ALLOWED = 0xFFFF
# The likeliest token's probability counts as 1 here; no other is larger.
BITS_OF_ONE = 0x3F800000
BITS_OF_INFINITY = 0x7F800000

NUM_COLUMNS = len(Column)
TEMPERATURE, TOP_K, TOP_P, MIN_P = map(
    int, (Column.TEMPERATURE, Column.TOP_K, Column.TOP_P, Column.MIN_P)
)
TOP_N_SIGMA, TYPICAL_P = int(Column.TOP_N_SIGMA), int(Column.TYPICAL_P)
XTC_PROBABILITY, XTC_THRESHOLD = int(Column.XTC_PROBABILITY), int(Column.XTC_THRESHOLD)
XTC_UNIFORM, UNIFORM = int(Column.XTC_UNIFORM), int(Column.UNIFORM)


def sample(logits: Tensor, params: Tensor) -> Tensor:
    """`Ops.sample`."""
    assert logits.is_contiguous() and params.is_contiguous(), (logits.stride(), params.stride())
    b, v = logits.shape
    token_ids = torch.empty(b, dtype=torch.int64)
    _sample(logits.data_ptr(), params.data_ptr(), b, v, token_ids.data_ptr())
    return token_ids


def allow_only(logits: Tensor, allowed: Tensor) -> None:
    """`Ops.allow_only`."""
    assert logits.is_contiguous() and allowed.is_contiguous(), (logits.stride(), allowed.stride())
    b, v = logits.shape
    _allow_only(logits.data_ptr(), allowed.data_ptr(), b, v, allowed.shape[1])


@compiled(OPTIONS)
def _allow_only(logits, allowed, b, v, num_words):
    for row in range(b):
        values = row_values(logits, row, v, FLOAT32)
        halves = row_values(allowed, row, 2 * num_words, BFLOAT16)  # 16 bits of any meaning
        for first in range(0, v, HALF_BITS):
            bits = np.int64(halves[first // HALF_BITS])
            if bits != ALL_ALLOWED:
                for place in range(min(HALF_BITS, v - first)):
                    if not (bits >> place) & 1:
                        values[first + place] -= INFINITE


@compiled(OPTIONS)
def _sample(logits, params, b, v, token_ids):
    out, probs = pointer(token_ids, INT64), np.empty(v, np.float32)
    for row in range(b):
        values = row_values(logits, row, v, FLOAT32)
        options = row_values(params, row, NUM_COLUMNS, FLOAT32)
        best = _argmax(values, v)
        temperature = options[TEMPERATURE]
        if values[best] < -LARGEST or _holds_what_is_no_number(values, v):
            out[row] = _NO_TOKEN
            continue
        if temperature == 0:
            out[row] = best
            continue
        for i in range(v):
            probs[i] = exp2((values[i] - values[best]) * LOG2_E / temperature)
        _drop_unlikely(probs, options[TOP_K], options[TOP_P], options[MIN_P])
        if options[TOP_N_SIGMA] > 0:
            _drop_far_below_the_best(probs, values, values[best], options[TOP_N_SIGMA])
        if options[TYPICAL_P] < ONE:
            _drop_untypical(probs, values, values[best], temperature, options[TYPICAL_P])
        if options[XTC_UNIFORM] < options[XTC_PROBABILITY]:
            _drop_top_choices(probs, options[XTC_THRESHOLD])
        out[row] = _draw(probs, options[UNIFORM])


@compiled(OPTIONS)
def _argmax(values, v):
    best = 0
    for i in range(1, v):
        if values[i] > values[best]:
            best = i
    return best


@compiled(OPTIONS)
def _holds_what_is_no_number(values, v):
    """Whether a value is NaN or +infinity; counted without a branch, 2 µs for 65,024 values."""
    count = np.int32(0)
    for i in range(v):
        count += np.int32(not values[i] <= LARGEST)
    return count > 0


@compiled(OPTIONS)
def _drop_unlikely(probs, top_k, top_p, min_p):
    bits = probs.view(np.int32)
    if top_k > 0:
        _zero_below(probs, bits, _top_k_edge(bits, min(np.int64(top_k), probs.size)))
    if top_p < ONE:
        _zero_below(probs, bits, _top_p_edge(probs, bits, top_p * _sum_above(probs, bits, -1)))
    if min_p > 0:
        for i in range(probs.size):
            probs[i] = ZERO if probs[i] < min_p else probs[i]


@compiled(OPTIONS)
def _zero_below(probs, bits, edge):
    for i in range(probs.size):
        probs[i] = ZERO if bits[i] < edge else probs[i]


@compiled(OPTIONS)
def _top_k_edge(bits, k):
    """The largest pattern that k values or more reach."""
    low, high = np.int32(0), np.int32(BITS_OF_ONE + 1)
    while high - low > 1:
        middle = np.int32((low + high) // 2)
        count = np.int32(0)
        for i in range(bits.size):
            count += np.int32(bits[i] >= middle)
        if count >= k:
            low = middle
        else:
            high = middle
    return low


@compiled(OPTIONS)
def _top_p_edge(probs, bits, needed):
    """The smallest pattern above which the values have less than the needed mass."""
    low, high = np.int32(-1), np.int32(BITS_OF_ONE)
    while high - low > 1:
        middle = np.int32((low + high) // 2)
        if _sum_above(probs, bits, middle) < needed:
            high = middle
        else:
            low = middle
    return high


@compiled(REORDERED)
def _sum_above(probs, bits, edge):
    total = ZERO
    for i in range(probs.size):
        total += probs[i] if bits[i] > edge else ZERO
    return total


@compiled(OPTIONS)
def _drop_far_below_the_best(probs, values, best, top_n_sigma):
    count, total, squares = 0, 0.0, 0.0
    for i in range(probs.size):
        if values[i] > LEAST_LOGIT / 2:
            below = np.float64(best - values[i])
            count += 1
            total += below
            squares += below * below
    variance = squares / count - (total / count) ** 2
    farthest = np.float32(top_n_sigma * np.sqrt(max(variance, 0.0)))
    for i in range(probs.size):
        probs[i] = ZERO if best - values[i] > farthest else probs[i]


@compiled(OPTIONS)
def _drop_untypical(probs, values, best, temperature, typical_p):
    """Surprise and entropy are both measured relative to the best token's surprise."""
    mass, surprise = 0.0, 0.0
    for i in range(probs.size):
        if probs[i] > ZERO:
            mass += probs[i]
            surprise += probs[i] * ((best - values[i]) / temperature)
    entropy = np.float32(surprise / mass)
    distances = np.empty(probs.size, np.float32)
    for i in range(probs.size):
        distance = np.abs((best - values[i]) / temperature - entropy)
        distances[i] = distance if probs[i] > ZERO else np.float32(np.inf)
    bits = distances.view(np.int32)
    needed = typical_p * _sum_to(probs, bits, np.int32(BITS_OF_INFINITY))
    low, high = np.int32(-1), np.int32(BITS_OF_INFINITY)
    while high - low > 1:
        middle = np.int32((low + high) // 2)
        if _sum_to(probs, bits, middle) < needed:
            low = middle
        else:
            high = middle
    for i in range(probs.size):
        probs[i] = ZERO if bits[i] > high else probs[i]


@compiled(REORDERED)
def _sum_to(probs, bits, edge):
    total = ZERO
    for i in range(probs.size):
        total += probs[i] if bits[i] <= edge else ZERO
    return total


@compiled(OPTIONS)
def _drop_top_choices(probs, threshold):
    total = 0.0
    for i in range(probs.size):
        total += probs[i]
    share, least = np.float32(threshold * np.float32(total)), np.float32(np.inf)
    for i in range(probs.size):
        if probs[i] >= share and ZERO < probs[i] < least:
            least = probs[i]
    for i in range(probs.size):
        probs[i] = ZERO if probs[i] > least else probs[i]


@compiled(OPTIONS)
def _draw(probs, number):
    """The first token whose cumulative mass exceeds that share of the total."""
    total = 0.0
    for i in range(probs.size):
        total += probs[i]
    # The product can round up to the total: then take the last token with any probability.
    target, mass, last = np.float32(number * np.float32(total)), 0.0, 0
    for i in range(probs.size):
        if probs[i] > ZERO:
            mass += probs[i]
            last = i
            if np.float32(mass) > target:
                break
    return last
