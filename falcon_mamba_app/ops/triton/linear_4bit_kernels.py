"""The kernels of `linear_4bit`, whose docstring says how they decode.

Their first arguments are the same: the tensors of bitsandbytes' storage. The last three of these
belong to double quantisation, and are None without it. Unless noted, a block is 64 numbers: 8 words
of 32 bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from falcon_mamba_app.ops.triton.overlap import start_next, wait_for_inputs

# PTX runs on NVIDIA's GPUs only; elsewhere the code values are looked up in memory.
_HAS_PTX = tl.constexpr(torch.cuda.is_available() and torch.version.hip is None)


@triton.jit
def row_kernel(
    x_ptr,
    packed_ptr,
    absmax_ptr,
    code_ptr,
    nested_code_ptr,
    nested_scale_ptr,
    offset_ptr,
    y_ptr,
    num_inputs: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROUNDS: tl.constexpr,
    GROUP: tl.constexpr,
    IS_EXACT: tl.constexpr,
):
    """ROUNDS · OUTPUTS rows of the matrix; their inputs are spread over the program's lanes. A lane
    keeps its part of x in registers. It sums the 8 products of a word, then GROUP words, which are
    a block or a part of one.
    """
    start_next()
    BLOCKS: tl.constexpr = num_inputs // 64
    WORDS: tl.constexpr = num_inputs // 8
    GROUPS: tl.constexpr = WORDS // GROUP
    outputs = tl.program_id(0).to(tl.int64) * (OUTPUTS * ROUNDS) + tl.arange(0, OUTPUTS)
    packed_ptrs = packed_ptr + outputs[:, None] * WORDS + tl.arange(0, WORDS)[None, :]
    blocks = outputs[:, None] * BLOCKS + (tl.arange(0, GROUPS) // (8 // GROUP))[None, :]
    # The first weights load while the previous kernel ends.
    next_words = tl.load(packed_ptrs, eviction_policy="evict_first")
    next_absmax = absmax_of(absmax_ptr, blocks, nested_code_ptr, nested_scale_ptr, offset_ptr)
    table = table_of(code_ptr, packed_ptrs) if IS_EXACT else _pairs_table(code_ptr)
    wait_for_inputs()
    x = tl.load(x_ptr + tl.arange(0, num_inputs)).to(tl.float32)
    even, odd = tl.split(x.reshape(WORDS, 2, 2, 2))
    x04, x26 = tl.split(even)
    x15, x37 = tl.split(odd)
    x0, x4 = tl.split(x04)
    x1, x5 = tl.split(x15)
    x2, x6 = tl.split(x26)
    x3, x7 = tl.split(x37)
    for i in tl.range(0, ROUNDS):
        words, absmax = next_words, next_absmax
        ahead = tl.minimum(i + 1, ROUNDS - 1) * OUTPUTS
        next_words = tl.load(packed_ptrs + ahead * WORDS, eviction_policy="evict_first")
        next_absmax = absmax_of(
            absmax_ptr, blocks + ahead * BLOCKS, nested_code_ptr, nested_scale_ptr, offset_ptr
        )
        v0, v1 = _pair(table, words, 0, IS_EXACT)
        sums = v0 * x0[None, :] + v1 * x1[None, :]
        v2, v3 = _pair(table, words, 1, IS_EXACT)
        sums += v2 * x2[None, :]
        sums += v3 * x3[None, :]
        v4, v5 = _pair(table, words, 2, IS_EXACT)
        sums += v4 * x4[None, :]
        sums += v5 * x5[None, :]
        v6, v7 = _pair(table, words, 3, IS_EXACT)
        sums += v6 * x6[None, :]
        sums += v7 * x7[None, :]
        sums = tl.sum(sums.reshape(OUTPUTS, GROUPS, GROUP), axis=2) * absmax
        tl.store(y_ptr + outputs + i * OUTPUTS, tl.sum(sums, axis=1))


@triton.jit(do_not_specialize=["num_rows"])
def rows_kernel(
    x_ptr,
    packed_ptr,
    absmax_ptr,
    code_ptr,
    nested_code_ptr,
    nested_scale_ptr,
    offset_ptr,
    y_ptr,
    num_rows,
    x_stride,
    num_outputs: tl.constexpr,
    num_inputs: tl.constexpr,
    NUM_ADDENDS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCKS: tl.constexpr,
    STAGES: tl.constexpr,
    IS_FP32: tl.constexpr,
):
    """One tile of outputs of one addend, which is the product over its share of the inputs."""
    start_next()
    WORDS: tl.constexpr = BLOCKS * 8
    blocks_of_row: tl.constexpr = num_inputs // 64
    length: tl.constexpr = blocks_of_row // NUM_ADDENDS
    addend = tl.program_id(1)
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    rows, inputs = tl.arange(0, ROWS), addend * length * 64 + tl.arange(0, BLOCKS * 64)
    has_output, has_row = outputs < num_outputs, rows < num_rows
    # Past the last output the last one is read again: a mask would prevent wide copies.
    firsts = tl.minimum(outputs, num_outputs - 1).to(tl.int64) * blocks_of_row + addend * length
    packed_ptrs = packed_ptr + firsts[:, None] * 8 + tl.arange(0, WORDS)[None, :]
    blocks = firsts[:, None] + tl.arange(0, BLOCKS)[None, :]
    x_ptrs = x_ptr + rows[None, :] * x_stride + inputs[:, None]
    table = table_of(code_ptr, packed_ptrs)
    total = tl.zeros((OUTPUTS, ROWS), tl.float32)
    wait_for_inputs()
    for start in tl.range(0, length, BLOCKS, num_stages=STAGES):
        words = tl.load(packed_ptrs + start * 8, eviction_policy="evict_first")
        absmax = absmax_of(
            absmax_ptr, blocks + start, nested_code_ptr, nested_scale_ptr, offset_ptr
        )
        x = tl.load(x_ptrs + start * 64, mask=has_row[None, :], other=0.0)
        values = unpacked(table, words).reshape(OUTPUTS, BLOCKS, 64) * absmax[:, :, None]
        values = values.reshape(OUTPUTS, BLOCKS * 64)
        weight = values.to(x.dtype)
        total = tl.dot(weight, x, total)
        if IS_FP32:  # the rounding errors of the weights; x has none
            total = tl.dot((values - weight.to(tl.float32)).to(x.dtype), x, total)
    cells = (addend * num_rows + rows)[None, :].to(tl.int64) * num_outputs + outputs[:, None]
    tl.store(y_ptr + cells, total, mask=has_row[None, :] & has_output[:, None])


@triton.jit
def dequantize_kernel(
    packed_ptr,
    absmax_ptr,
    code_ptr,
    nested_code_ptr,
    nested_scale_ptr,
    offset_ptr,
    y_ptr,
    num_words,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Dequantise blocks of any size in words; WORDS and num_words are multiples of that size."""
    first = tl.program_id(0).to(tl.int64) * WORDS
    words_left = (num_words - first).to(tl.int32)
    offsets = tl.arange(0, WORDS)
    packed_ptrs = packed_ptr + first + offsets
    words = tl.load(packed_ptrs, mask=offsets < words_left, eviction_policy="evict_first")
    # Past the end the last block's magnitude is read again, so that no kernel needs a mask.
    last = words_left // BLOCK - 1
    blocks = first // BLOCK + tl.minimum(tl.arange(0, WORDS // BLOCK), last)
    absmax = absmax_of(absmax_ptr, blocks, nested_code_ptr, nested_scale_ptr, offset_ptr)
    table = table_of(code_ptr, packed_ptrs)
    values = unpacked(table, words).reshape(WORDS // BLOCK, BLOCK * 8) * absmax[:, None]
    places = tl.arange(0, WORDS * 8)
    tl.store(y_ptr + first * 8 + places, values.reshape(WORDS * 8), mask=places < words_left * 8)


@triton.jit
def unpacked(table, words):
    """(o, w) words → (o, w, 2, 2, 2) code values in the order of the numbers."""
    v04 = tl.join(_lookup(table, words, 4), _lookup(table, words, 20))
    v26 = tl.join(_lookup(table, words, 12), _lookup(table, words, 28))
    v15 = tl.join(_lookup(table, words, 0), _lookup(table, words, 16))
    v37 = tl.join(_lookup(table, words, 8), _lookup(table, words, 24))
    return tl.join(tl.join(v04, v26), tl.join(v15, v37))


@triton.jit
def absmax_of(absmax_ptr, blocks, nested_code_ptr, nested_scale_ptr, offset_ptr):
    """The blocks' largest magnitudes, fp32."""
    absmax = tl.load(absmax_ptr + blocks)
    if nested_code_ptr is not None:
        scale = tl.load(nested_scale_ptr + blocks // 256)
        absmax = tl.load(nested_code_ptr + absmax.to(tl.int32)) * scale + tl.load(offset_ptr)
    return absmax


@triton.jit
def table_of(code_ptr, like):
    """The table of `_lookup`: a tensor shaped as `like`, in which lane i holds code value i % 16 in
    one register; or the address of the code values.
    """
    if _HAS_PTX:
        code = tl.inline_asm_elementwise(
            """{
            .reg .u32 lane; .reg .u64 address;
            mov.u32 lane, %laneid;
            and.b32 lane, lane, 15;
            mad.wide.u32 address, lane, 4, $2;
            ld.global.nc.b32 $0, [address];
            }""",
            "=r,r,l",
            [tl.zeros(like.shape, tl.int32), code_ptr.to(tl.int64)],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        code = code_ptr
    return code


@triton.jit
def _lookup(table, words, SHIFT: tl.constexpr):
    """The code value of four bits of each word."""
    if _HAS_PTX:
        value = tl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, $2, 0x1f, 0xffffffff;",
            "=r,r,r",
            [table, words >> SHIFT],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        value = tl.load(table + ((words >> SHIFT) & 15))
    return value


@triton.jit
def _pairs_table(code_ptr):
    """The table of `_pair` for bf16: one word for each of the 256 bytes, with both code values. It
    is in shared memory once per lane, so that no two lanes read the same bank.

    The upper half of a word is the first value, the lower half the second. The first value is
    rounded so that the whole word, read as fp32, is as near to it as bf16 allows.
    """
    if _HAS_PTX:
        table = tl.inline_asm_elementwise(
            """
            .shared .align 16 .b32 code_pairs[8192];
            {
            .reg .u32 i, threads, table, to, lane, first, second;
            .reg .u64 from;
            .reg .pred is_zero, is_left;
            mov.u32 table, code_pairs;
            mov.u32 i, %tid.x;
            mov.u32 threads, %ntid.x;
            FILL:
            shr.u32 first, i, 7;
            mad.wide.u32 from, first, 4, $1;
            ld.global.nc.b32 first, [from];
            bfe.u32 second, i, 3, 4;
            mad.wide.u32 from, second, 4, $1;
            ld.global.nc.b32 second, [from];
            add.u32 second, second, 0x8000;
            shr.u32 second, second, 16;
            add.u32 to, first, first;
            setp.eq.u32 is_zero, to, 0;
            sub.u32 first, first, second;
            add.u32 first, first, 0x8000;
            and.b32 first, first, 0xffff0000;
            selp.b32 first, 0, first, is_zero;
            or.b32 first, first, second;
            mad.lo.u32 to, i, 16, table;
            st.shared.v4.b32 [to], {first, first, first, first};
            add.u32 i, i, threads;
            setp.lt.u32 is_left, i, 2048;
            @is_left bra FILL;
            bar.sync 0;
            mov.u32 lane, %laneid;
            mad.lo.u32 $0, lane, 4, table;
            }
            """,
            "=r,l",
            [code_ptr.to(tl.int64)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    else:
        table = code_ptr
    return table


@triton.jit
def _pair(table, words, BYTE: tl.constexpr, IS_EXACT: tl.constexpr):
    """The code values of a byte's two numbers, exact or as stored by `_pairs_table`."""
    if IS_EXACT or not _HAS_PTX:
        first, second = _lookup(table, words, BYTE * 8 + 4), _lookup(table, words, BYTE * 8)
    else:
        first, second = tl.inline_asm_elementwise(
            """{
            .reg .u32 at;
            prmt.b32 at, $2, 0, $3;
            mad.lo.u32 at, at, 128, $4;
            ld.shared.b32 $0, [at];
            shl.b32 $1, $0, 16;
            }""",
            "=&r,=r,r,r,r",
            [words, 0x4440 + BYTE, table],
            dtype=(tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    return first, second
