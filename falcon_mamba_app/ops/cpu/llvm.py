"""Steps on LLVM's vectors, from which `vectors` makes what numba's kernels call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

BYTE, SHORT, INT, LONG, FLOAT = (
    ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
)  # fmt: skip
# A product and its sum round once. The order of sums is as written.
CONTRACT = ("contract",)


def plus_pair_products(context: Any, builder: Any, total: Any, a: Any, b: Any) -> Any:
    """16 int32 + 32 products of int16, added two by two."""
    if "+avx512vnni" in context.codegen().magic_tuple()[2]:  # both in one instruction
        words = total.type
        function = builder.module.declare_intrinsic(
            "llvm.x86.avx512.vpdpwssd.512", fnty=ir.FunctionType(words, [words] * 3)
        )
        return builder.call(function, [total, *(builder.bitcast(x, words) for x in (a, b))])
    return builder.add(total, _pair_products(context, builder, a, b))


def _pair_products(context: Any, builder: Any, a: Any, b: Any) -> Any:
    features = context.codegen().magic_tuple()[2]
    for feature, name, width in (
        ("+avx512bw", "llvm.x86.avx512.pmaddw.d.512", 32),
        ("+avx2", "llvm.x86.avx2.pmadd.wd", 16),
        ("+sse2", "llvm.x86.sse2.pmadd.wd", 8),
    ):
        if feature in features:
            return _by_instruction(builder, name, width, a, b)
    low, high = (
        builder.mul(
            *(builder.sext(part(builder, x, first, 16), ir.VectorType(INT, 16)) for x in (a, b))
        )
        for first in (0, 16)
    )
    return builder.add(low, high)


def widened_half(context: Any, builder: Any, bits: Any) -> Any:
    """The 16 bits of a float16 as fp32."""
    if _widens_halves(context):
        return builder.fpext(builder.bitcast(bits, ir.HalfType()), FLOAT)
    # LLVM would call a function that numba does not have. The exponents differ by 112; infinity's
    # and NaN's is all ones.
    bits = builder.zext(bits, INT)
    sign = builder.shl(builder.and_(bits, INT(0x8000)), INT(16))
    rest = builder.shl(builder.and_(bits, INT(0x7FFF)), INT(13))
    scaled = builder.fmul(builder.bitcast(rest, FLOAT), FLOAT(2.0**112))
    is_finite = builder.icmp_unsigned("<", rest, INT(0x7C00 << 13))
    endless = builder.or_(rest, INT(0x7F800000))
    magnitude = builder.select(is_finite, builder.bitcast(scaled, INT), endless)
    return builder.bitcast(builder.or_(magnitude, sign), FLOAT)


def splat_of_half(context: Any, builder: Any, bits: Any, vector: Any) -> Any:
    """`widened_half` in every place of a vector. It is put there first: LLVM widens a single one
    beside whatever a register holds, and so may wait for a sum that has nothing to do with it.
    """
    if not _widens_halves(context):
        return splat(builder, widened_half(context, builder, bits), vector)
    halves = splat(builder, bits, ir.VectorType(SHORT, vector.count))
    halves = builder.bitcast(halves, ir.VectorType(ir.HalfType(), vector.count))
    return builder.fpext(halves, vector)


def _widens_halves(context: Any) -> bool:
    triple, _, features = context.codegen().magic_tuple()
    return "+f16c" in features or triple.startswith(("aarch64", "arm64"))


def _by_instruction(builder: Any, name: str, width: int, a: Any, b: Any) -> Any:
    """32 products by an instruction that multiplies `width` numbers."""
    inputs, output = ir.VectorType(SHORT, width), ir.VectorType(INT, width // 2)
    function = builder.module.declare_intrinsic(
        name, fnty=ir.FunctionType(output, [inputs, inputs])
    )
    parts = [
        builder.call(function, [part(builder, x, first, width) for x in (a, b)])
        for first in range(0, 32, width)
    ]
    while len(parts) > 1:
        joined = places(range(2 * parts[0].type.count))
        parts = [
            builder.shuffle_vector(x, y, joined)
            for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def part(builder: Any, vector: Any, first: int, count: int) -> Any:
    if count == vector.type.count:
        return vector
    return builder.shuffle_vector(vector, vector, places(range(first, first + count)))


def sum_of(builder: Any, vector: Any) -> Any:
    """Of all elements, by halves."""
    while (count := vector.type.count) > 1:
        halves = (part(builder, vector, first, count // 2) for first in (0, count // 2))
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, INT(0))


def fused(builder: Any, total: Any, a: Any, b: Any) -> Any:
    return builder.fadd(total, builder.fmul(a, b, flags=CONTRACT), flags=CONTRACT)


def splat(builder: Any, number: Any, vector: Any) -> Any:
    if isinstance(vector.element, ir.IntType) and number.type.width > vector.element.width:
        number = builder.trunc(number, vector.element)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, INT(0))
    return builder.shuffle_vector(first, undefined, places([0] * vector.count))


def halves(builder: Any, first: Any, second: Any, vector: Any) -> Any:
    if first is second:
        return splat(builder, first, vector)
    half_of_it = ir.VectorType(vector.element, vector.count // 2)
    parts = (splat(builder, number, half_of_it) for number in (first, second))
    return builder.shuffle_vector(*parts, places(range(vector.count)))


def places(numbers: Iterable[int]) -> Any:
    """The places of a shuffle."""
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(INT, len(numbers)), numbers)


def row_address(builder: Any, address: Any, row: int, stride: Any) -> Any:
    return builder.add(address, builder.mul(stride, LONG(row)))


def load_at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(pointer_to(builder, address, kind), align=1)


def pointer_to(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())
