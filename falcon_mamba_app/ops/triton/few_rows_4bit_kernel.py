"""The kernel of `few_rows_4bit`: a matrix in 4 bits, decoded where the matrix units read it.

Triton's own product moves a decoded tile through shared memory, and that bounds it: 2 rows take as
long as 16. In Gluon the lanes decode what they load for the units. What these get are code values,
rounded once to bf16; the magnitude of a block is multiplied to the sum over its 64 inputs, in fp32.
Only x goes through shared memory. The order of a product's inputs does not matter, as long as x is
read in the same order.
"""

# mypy: disable-error-code="assignment,misc"
# Gluon's tuples of tensors grow where they are made.

from __future__ import annotations

from typing import Any

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
except ImportError:
    gluon = None
    few_rows_4bit_kernel: Any = None

if gluon is not None:
    from falcon_mamba_app.ops.triton.decode_4bit import (
        absmax_layout,
        decoded,
        for_units,
        table_of,
        words_layout,
        x_layout,
    )
    from falcon_mamba_app.ops.triton.gluon_parts import load_ahead, start_next, wait_for_inputs

    @gluon.jit
    def _with_block(totals, table, words, scale, x, WARPS: gl.constexpr):
        """The totals (o, rows) of some rows each, and the products of a block."""
        products: gl.constexpr = totals[0].type.layout
        ROWS: gl.constexpr = totals[0].shape[1]
        of_x: gl.constexpr = gl.DotOperandLayout(1, products, 8)
        weight = decoded(table, words, products)
        scale = gl.convert_layout(scale, gl.SliceLayout(1, products), assert_trivial=True)
        found = ()
        for i in gl.static_range(len(totals)):
            values = x.slice(i * ROWS, ROWS, dim=0).load(x_layout(ROWS, WARPS))
            values = gl.permute(for_units(values, ROWS), [1, 0])
            values = gl.convert_layout(values, of_x, assert_trivial=True)
            sums = mma_v2(weight, values, gl.zeros_like(totals[0]))
            found = found + (totals[i] + sums * scale[:, None],)
        return found

    @gluon.jit
    def _keep_order():
        """The assembler moves loads down to where their registers are free; not past this."""
        gl.inline_asm_elementwise(
            "bar.warp.sync 0xffffffff; mov.u32 $0, 0;",
            "=r",
            [],
            dtype=gl.int32,
            is_pure=False,
            pack=1,
        )

    @gluon.jit
    def _by_block(values):
        """(o, 4) → four (o,)"""
        even, odd = gl.split(gl.reshape(values, [values.shape[0], 2, 2]))
        first, third = gl.split(even)
        second, fourth = gl.split(odd)
        return first, second, third, fourth

    @gluon.jit
    def _taps(weight_ptr, bias_ptr, channels, d: gl.constexpr):
        """The convolution's weights (o,) for the oldest input first, and its bias; z's outputs get
        those of x.
        """
        taps = ()
        for j in gl.static_range(4):
            taps = taps + (gl.load(weight_ptr + j * d + channels % d).to(gl.float32),)
        bias = gl.zeros_like(taps[0])
        if bias_ptr is not None:
            bias = gl.load(bias_ptr + channels % d).to(gl.float32)
        return taps, bias

    @gluon.jit
    def _convolve(x, taps, bias, windows, mask, d: gl.constexpr):
        """`conv_step` of x (o, rows), in x's dtype."""
        first = gl.load(windows, mask=mask, other=0.0)
        second = gl.load(windows + d, mask=mask, other=0.0)
        third = gl.load(windows + 2 * d, mask=mask, other=0.0)
        y = bias[:, None] + x.to(gl.float32) * taps[3][:, None]
        y += first.to(gl.float32) * taps[0][:, None] + second.to(gl.float32) * taps[1][:, None]
        y += third.to(gl.float32) * taps[2][:, None]
        # Each number of the windows has been read by the lane that writes in its place.
        gl.store(windows, second, mask=mask)
        gl.store(windows + d, third, mask=mask)
        gl.store(windows + 2 * d, x, mask=mask)
        root = gl.rsqrt(1.0 + gl.exp2(y * -1.4426950408889634))  # silu, as in `math`
        return (y * (root * root)).to(x.dtype)

    @gluon.jit
    def _with_tile(
        totals,
        table,
        words,
        absmax,
        tile,
        words_ptrs,
        absmax_ptrs,
        BLOCKS: gl.constexpr,
        WARPS: gl.constexpr,
    ):
        """The totals and the products of BLOCKS blocks; where there are pointers, each block of
        words is replaced by the one that they name as soon as it is used.
        """
        next_words, next_absmax = (), ()
        for j in gl.static_range(BLOCKS // 4):
            scales = _by_block(absmax[j])
            for k in gl.static_range(4):
                x = tile.slice((4 * j + k) * 64, 64, dim=1)
                totals = _with_block(totals, table, words[4 * j + k], scales[k], x, WARPS)
                if words_ptrs is not None:
                    _keep_order()
                    place = words_ptrs + (4 * j + k) * 8
                    next_words = next_words + (gl.load(place, eviction_policy="evict_first"),)
            if words_ptrs is not None:
                place = absmax_ptrs + 4 * j
                next_absmax = next_absmax + (gl.load(place, eviction_policy="evict_first"),)
        return totals, next_words, next_absmax

    @gluon.jit(do_not_specialize=["num_rows"])
    def few_rows_4bit_kernel(
        x_ptr,
        words_ptr,
        absmax_ptr,
        code_ptr,
        y_ptr,
        conv_weight_ptr,
        conv_bias_ptr,
        conv_states_ptr,
        slots_ptr,
        num_rows,
        x_stride,
        num_outputs: gl.constexpr,
        num_inputs: gl.constexpr,
        NUM_ADDENDS: gl.constexpr,
        ROWS: gl.constexpr,
        OUTPUTS: gl.constexpr,
        BLOCKS: gl.constexpr,
        STAGES: gl.constexpr,
        WARPS: gl.constexpr,
        HAS_PDL: gl.constexpr,
    ):
        """One tile of outputs of one addend, which is the product over its share of the inputs.
        With the weights of a convolution the first half of the outputs is convolved.
        """
        start_next(HAS_PDL)
        products: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1], [16, 8])
        of_words: gl.constexpr = words_layout(OUTPUTS, WARPS)
        of_absmax: gl.constexpr = absmax_layout(OUTPUTS, WARPS)
        INPUTS: gl.constexpr = BLOCKS * 64
        PART: gl.constexpr = 16  # of the rows, for which the units' sums are held
        LANES: gl.constexpr = min(INPUTS // 8, 32)
        copied: gl.constexpr = gl.BlockedLayout([1, 8], [32 // LANES, LANES], [WARPS, 1], [1, 0])
        length: gl.constexpr = num_inputs // 64 // NUM_ADDENDS  # in blocks
        addend, first_output = gl.program_id(1), gl.program_id(0) * OUTPUTS

        # Past the last output the last one is read again: a mask would prevent wide loads.
        outputs = first_output + gl.arange(0, OUTPUTS, layout=gl.SliceLayout(1, of_words))
        outputs = gl.minimum(outputs, num_outputs - 1)
        words = gl.arange(0, 8, layout=gl.SliceLayout(0, of_words))
        words_ptr += addend * (length * 8)
        words_ptrs = words_ptr + outputs[:, None] * (num_inputs // 8) + words[None, :]
        # BLOCKS blocks are loading at a time, the first ones while the previous kernel ends.
        words = ()
        for j in gl.static_range(BLOCKS):
            words = words + (gl.load(words_ptrs + j * 8, eviction_policy="evict_first"),)
        outputs = first_output + gl.arange(0, OUTPUTS, layout=gl.SliceLayout(1, of_absmax))
        outputs = gl.minimum(outputs, num_outputs - 1)
        blocks = gl.arange(0, 4, layout=gl.SliceLayout(0, of_absmax))
        absmax_ptr += addend * length
        absmax_ptrs = absmax_ptr + outputs[:, None] * (num_inputs // 64) + blocks[None, :]
        absmax = ()
        for j in gl.static_range(BLOCKS // 4):
            absmax = absmax + (gl.load(absmax_ptrs + j * 4, eviction_policy="evict_first"),)
        table = table_of(code_ptr, WARPS)

        rows = gl.arange(0, ROWS, layout=gl.SliceLayout(1, copied))
        inputs = gl.arange(0, INPUTS, layout=gl.SliceLayout(0, copied))
        x_ptr += addend * (length * 64)
        x_ptrs = x_ptr + rows[:, None] * x_stride + inputs[None, :]
        is_row = (rows < num_rows)[:, None]
        swizzled: gl.constexpr = gl.SwizzledSharedLayout(8, 1, 8, order=[1, 0])
        tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, ROWS, INPUTS], swizzled)
        outputs = first_output + gl.arange(0, OUTPUTS, layout=gl.SliceLayout(1, products))
        rows = gl.arange(0, PART, layout=gl.SliceLayout(0, products))
        has_output = (outputs < num_outputs)[:, None]
        d: gl.constexpr = num_outputs // 2
        if conv_weight_ptr is not None:
            taps, conv_bias = _taps(conv_weight_ptr, conv_bias_ptr, outputs, d)
        wait_for_inputs(HAS_PDL)
        for i in gl.static_range(STAGES - 1):
            load_ahead(tiles.index(i), x_ptrs + i * INPUTS, mask=is_row & (i * BLOCKS < length))
            async_copy.commit_group()
        totals = ()
        for _ in gl.static_range(ROWS // PART):
            totals = totals + (gl.zeros([OUTPUTS, PART], gl.float32, layout=products),)
        for i in range(length // BLOCKS - 1):
            async_copy.wait_group(STAGES - 2)
            ahead = (i + STAGES - 1) * BLOCKS
            place = tiles.index((i + STAGES - 1) % STAGES)
            load_ahead(place, x_ptrs + ahead * 64, mask=is_row & (ahead < length))
            async_copy.commit_group()
            tile, ahead = tiles.index(i % STAGES), (i + 1) * BLOCKS
            totals, words, absmax = _with_tile(
                totals, table, words, absmax, tile, words_ptrs + ahead * 8, absmax_ptrs + ahead,
                BLOCKS, WARPS,
            )  # fmt: skip
        async_copy.wait_group(0)
        tile = tiles.index((length // BLOCKS - 1) % STAGES)
        totals, _, _ = _with_tile(totals, table, words, absmax, tile, None, None, BLOCKS, WARPS)
        for i in gl.static_range(ROWS // PART):
            has_row, y = rows < num_rows, totals[i].to(y_ptr.dtype.element_ty)
            if conv_weight_ptr is not None:
                slots = gl.load(slots_ptr + rows, mask=has_row, other=0)
                windows = conv_states_ptr + (slots * (3 * d))[None, :] + outputs[:, None]
                mask = has_row[None, :] & (outputs < d)[:, None]
                if first_output < d:
                    y = _convolve(y, taps, conv_bias, windows, mask, d)
            cells = (addend * num_rows + rows)[None, :] * num_outputs + outputs[:, None]
            gl.store(y_ptr + cells, y, mask=has_row[None, :] & has_output)
            rows += PART
