"""How kernels in Gluon read a matrix in 4 bits: which lane has which numbers, and its decoding.

A lane loads 16 neighbouring numbers of two outputs, which is where the matrix units expect them,
and looks up both numbers of a byte at once, in a table that is in shared memory once per lane.
"""

from __future__ import annotations

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
except ImportError:
    gluon = None


def _filling(warps: int) -> str:
    """PTX that fills the table: for each of the 256 bytes a word with both code values, the first
    one in the lower half. It is there once per lane, so that no two lanes read the same bank.
    """
    threads = 32 * warps
    fill = "\n".join(
        f"""
        ld.global.nc.f32 first, [from + {i * threads // 128 * 4}];
        cvt.rn.bf16x2.f32 pair, second, first;
        st.shared.v4.b32 [at + {i * threads * 16}], {{pair, pair, pair, pair}};
        """
        for i in range(2048 // threads)
    )
    return f"""
        .shared .align 16 .b32 pairs_of_codes[8192];
        {{
        .reg .u32 thread, part, at; .reg .u64 from; .reg .f32 first, second; .reg .b32 pair;
        mov.u32 thread, %tid.x;
        shr.u32 part, thread, 3;
        and.b32 part, part, 15;
        mad.wide.u32 from, part, 4, $1;
        ld.global.nc.f32 second, [from];
        shr.u32 part, thread, 7;
        mad.wide.u32 from, part, 4, $1;
        mov.u32 at, pairs_of_codes;
        mad.lo.u32 at, thread, 16, at;
        {fill}
        bar.sync 0;
        mov.u32 part, %laneid;
        mov.u32 at, pairs_of_codes;
        mad.lo.u32 $0, part, 4, at;
        }}
        """


if gluon is not None:
    FILL_BY_4, FILL_BY_8 = gl.constexpr(_filling(4)), gl.constexpr(_filling(8))

    @gluon.constexpr_function
    def _bases(size, base):
        """The bases that double from `base` until they span `size` of them."""
        found = []
        while size > 1:
            found.append(base)
            base, size = [2 * part for part in base], size // 2
        return found

    @gluon.constexpr_function
    def words_layout(OUTPUTS, WARPS):
        """(o, 8) words of a block: lane 4·g + t of a warp has words 2·t and 2·t + 1 of outputs g
        and g + 8.
        """
        return gl.DistributedLinearLayout(
            [[0, 1], [8, 0], *_bases(OUTPUTS // WARPS // 16, [16 * WARPS, 0])],
            [[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]],
            _bases(WARPS, [16, 0]),
            [],
            [OUTPUTS, 8],
        )

    @gluon.constexpr_function
    def absmax_layout(OUTPUTS, WARPS):
        """(o, 4), of four blocks: a lane has those of its outputs."""
        return gl.DistributedLinearLayout(
            [[0, 1], [0, 2], [8, 0], *_bases(OUTPUTS // WARPS // 16, [16 * WARPS, 0])],
            [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]],
            _bases(WARPS, [16, 0]),
            [],
            [OUTPUTS, 4],
        )

    @gluon.constexpr_function
    def x_layout(ROWS, WARPS):
        """(rows, 64): lane 4·g + t of every warp has inputs 16·t to 16·t + 15 of row g."""
        return gl.DistributedLinearLayout(
            [*_bases(16, [0, 1]), *_bases(ROWS // 8, [8, 0])],
            [[0, 16], [0, 32], [1, 0], [2, 0], [4, 0]],
            [[0, 0]] * (WARPS.bit_length() - 1),
            [],
            [ROWS, 64],
        )

    @gluon.jit
    def table_of(code_ptr, WARPS: gl.constexpr):
        FILL: gl.constexpr = FILL_BY_8 if WARPS == 8 else FILL_BY_4
        return gl.inline_asm_elementwise(
            FILL, "=r,l", [code_ptr.to(gl.int64)], dtype=gl.int32, is_pure=False, pack=1
        )

    @gluon.jit
    def decoded(table, words, products: gl.constexpr):
        """(o, 8) words → (o, 64) code values for the matrix units."""
        v0, v1, v2, v3, v4, v5, v6, v7 = gl.inline_asm_elementwise(
            """{
            .reg .b32 at, pair;
            prmt.b32 at, $8, 0, 0x4440;
            mad.lo.u32 at, at, 128, $9;
            ld.shared.b32 pair, [at];
            mov.b32 {$0, $1}, pair;
            prmt.b32 at, $8, 0, 0x4441;
            mad.lo.u32 at, at, 128, $9;
            ld.shared.b32 pair, [at];
            mov.b32 {$2, $3}, pair;
            prmt.b32 at, $8, 0, 0x4442;
            mad.lo.u32 at, at, 128, $9;
            ld.shared.b32 pair, [at];
            mov.b32 {$4, $5}, pair;
            prmt.b32 at, $8, 0, 0x4443;
            mad.lo.u32 at, at, 128, $9;
            ld.shared.b32 pair, [at];
            mov.b32 {$6, $7}, pair;
            }""",
            "=&h,=&h,=&h,=&h,=&h,=&h,=&h,=&h,r,r",
            [words, table],
            dtype=(
                gl.bfloat16, gl.bfloat16, gl.bfloat16, gl.bfloat16,
                gl.bfloat16, gl.bfloat16, gl.bfloat16, gl.bfloat16,
            ),
            is_pure=True,
            pack=1,
        )  # fmt: skip
        even = gl.join(gl.join(v0, v4), gl.join(v2, v6))
        odd = gl.join(gl.join(v1, v5), gl.join(v3, v7))
        values = gl.reshape(gl.join(even, odd), [words.shape[0], 64])
        values = for_units(values, words.shape[0])
        return gl.convert_layout(values, gl.DotOperandLayout(0, products, 8), assert_trivial=True)

    @gluon.jit
    def for_units(values, OUTER: gl.constexpr):
        """64 inputs of each row. The matrix units multiply 16 of a row at a time, two and two of a
        lane: here these are four neighbours.
        """
        values = gl.reshape(values, [OUTER, 4, 4, 2, 2])
        return gl.reshape(gl.permute(values, [0, 3, 1, 2, 4]), [OUTER, 64])
