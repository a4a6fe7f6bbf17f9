"""Vectors as values in numba's kernels, for products of small whole numbers.

numba multiplies 32-bit integers as 64-bit ones, and LLVM then finds no vector instruction for a sum
of products. So the steps of such a sum are given here in LLVM's own vectors. `Numbers` are 32 int16
side by side; `Totals` are, for each row of activations, 16 int32 or 16 or 8 fp32. LLVM divides them
into whatever the processor has. Only the product itself names an instruction, and only on x86.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core.datamodel import models

from falcon_mamba_app.ops.cpu.kernels import intrinsic, round_to_bfloat16
from falcon_mamba_app.ops.cpu.llvm import (
    BYTE,
    FLOAT,
    INT,
    LONG,
    SHORT,
    fused,
    halves,
    load_at,
    places,
    plus_pair_products,
    pointer_to,
    row_address,
    splat,
    splat_of_half,
    sum_of,
)

ELEMENTS = {"int16": SHORT, "int32": INT, "float32": FLOAT}


class Vector(types.Type):
    def __init__(self, element: str, count: int) -> None:
        self.llvm = ir.VectorType(ELEMENTS[element], count)
        super().__init__(name=f"{count} {element}")


class Totals(types.Type):
    """A vector for each of `num_rows` rows."""

    def __init__(self, vector: Vector, num_rows: int) -> None:
        self.vector, self.num_rows = vector, num_rows
        self.llvm = ir.ArrayType(vector.llvm, num_rows)
        super().__init__(name=f"{num_rows} x {vector.name}")


@extending.register_model(Vector)
@extending.register_model(Totals)
class _AsItIs(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.llvm)


NUMBERS, INTS, FLOATS, EIGHT = (
    Vector("int16", 32), Vector("int32", 16), Vector("float32", 16), Vector("float32", 8)
)  # fmt: skip


# ---- 32 numbers ----


def _widened(address_bits: int, extend: str) -> Any:
    @intrinsic
    def widened(typingctx, address):
        def codegen(context, builder, signature, args):
            stored = load_at(builder, args[0], ir.VectorType(BYTE, address_bits // 8))
            return getattr(builder, extend)(stored, NUMBERS.llvm)

        return NUMBERS(address), codegen

    return widened


signed_bytes = _widened(256, "sext")  # 32 int8 at an address
unsigned_bytes = _widened(256, "zext")  # 32 uint8


@intrinsic
def nibbles(typingctx, address):
    """The low halves of 16 bytes, then their high halves."""

    def codegen(context, builder, signature, args):
        stored = load_at(builder, args[0], ir.VectorType(BYTE, 16))
        low = builder.and_(stored, ir.Constant(stored.type, [15] * 16))
        high = builder.lshr(stored, ir.Constant(stored.type, [4] * 16))
        joined = builder.shuffle_vector(low, high, places(range(32)))
        return builder.zext(joined, NUMBERS.llvm)

    return NUMBERS(address), codegen


@intrinsic
def bits(typingctx, numbers, first, mask):
    """numbers >> first & mask."""

    def codegen(context, builder, signature, args):
        shifted = builder.lshr(args[0], splat(builder, args[1], NUMBERS.llvm))
        return builder.and_(shifted, splat(builder, args[2], NUMBERS.llvm))

    return numbers(numbers, first, mask), codegen


@intrinsic
def plus_times(typingctx, numbers, others, factor):
    """numbers + others·factor."""

    def codegen(context, builder, signature, args):
        product = builder.mul(args[1], splat(builder, args[2], NUMBERS.llvm))
        return builder.add(args[0], product)

    return numbers(numbers, others, factor), codegen


@intrinsic
def minus(typingctx, numbers, number):
    def codegen(context, builder, signature, args):
        return builder.sub(args[0], splat(builder, args[1], NUMBERS.llvm))

    return numbers(numbers, number), codegen


@intrinsic
def times(typingctx, numbers, first, second):
    """The first 16 numbers times one number, the others times another."""

    def codegen(context, builder, signature, args):
        factors = halves(builder, args[1], args[2], NUMBERS.llvm)
        return builder.mul(args[0], factors)

    return numbers(numbers, first, second), codegen


@intrinsic
def put(typingctx, address, numbers, first, second, minimum, kind):
    """Store numbers·factor − minimum as 32 values, with one factor for each half."""

    def codegen(context, builder, signature, args):
        wide = ir.VectorType(FLOAT, 32)
        values = builder.sitofp(args[1], wide)
        values = builder.fmul(values, halves(builder, args[2], args[3], wide))
        values = builder.fsub(values, splat(builder, args[4], wide))
        if not isinstance(kind, types.Float):
            values = round_to_bfloat16(builder, values)
        builder.store(values, pointer_to(builder, args[0], values.type), align=1)
        return context.get_dummy_value()

    return types.void(address, numbers, first, second, minimum, kind), codegen


# ---- Totals of rows ----


def _zeros(vector: Vector) -> Any:
    @intrinsic
    def zeros(typingctx, rows):
        totals = Totals(vector, rows.count)
        return totals(rows), lambda context, builder, signature, args: ir.Constant(
            totals.llvm, None
        )

    return zeros


# Of as many rows as a tuple has elements.
int_zeros, float_zeros, eight_zeros = _zeros(INTS), _zeros(FLOATS), _zeros(EIGHT)


@intrinsic
def plus(typingctx, totals, others):
    """The sums of two totals."""

    def codegen(context, builder, signature, args):
        return _each(
            builder,
            totals,
            args[0],
            lambda row, total: builder.add(total, builder.extract_value(args[1], row)),
        )

    return totals(totals, others), codegen


@intrinsic
def add_products(typingctx, totals, numbers, address, stride):
    """Each row's 16 sums + numbers times the 32 int16 at its address."""

    def codegen(context, builder, signature, args):
        def added(row, total):
            values = load_at(builder, row_address(builder, args[2], row, args[3]), NUMBERS.llvm)
            return plus_pair_products(context, builder, total, args[1], values)

        return _each(builder, totals, args[0], added)

    return totals(totals, numbers, address, stride), codegen


@intrinsic
def add_scaled(typingctx, totals, sums, address, stride, factor):
    """totals + sums times the fp32 at each row's address times the factor, which is in FLOATS."""

    def codegen(context, builder, signature, args):
        def added(row, total):
            scale = load_at(builder, row_address(builder, args[2], row, args[3]), FLOAT)
            scale = builder.fmul(splat(builder, scale, FLOATS.llvm), args[4])
            values = builder.sitofp(builder.extract_value(args[1], row), FLOATS.llvm)
            return fused(builder, total, values, scale)

        return _each(builder, totals, args[0], added)

    return totals(totals, sums, address, stride, factor), codegen


@intrinsic
def add_eight(typingctx, totals, word, factor, address, stride):
    """totals + the word's eight bytes times the factor, which is in EIGHT, times the 8 fp32 at each
    row's address.
    """

    def codegen(context, builder, signature, args):
        eight = builder.uitofp(builder.bitcast(args[1], ir.VectorType(BYTE, 8)), EIGHT.llvm)
        eight = builder.fmul(eight, args[2])

        def added(row, total):
            values = load_at(builder, row_address(builder, args[3], row, args[4]), EIGHT.llvm)
            return fused(builder, total, eight, values)

        return _each(builder, totals, args[0], added)

    return totals(totals, word, factor, address, stride), codegen


def _halves(vector: Vector) -> Any:
    @intrinsic
    def halves_of(typingctx, address):
        def codegen(context, builder, signature, args):
            return splat_of_half(context, builder, load_at(builder, args[0], SHORT), vector.llvm)

        return vector(address), codegen

    return halves_of


# The float16 at an address, as fp32 in every place.
half_floats, half_eight = _halves(FLOATS), _halves(EIGHT)


@intrinsic
def all_floats(typingctx, value):
    """An fp32 in every place of FLOATS."""

    def codegen(context, builder, signature, args):
        return splat(builder, args[0], FLOATS.llvm)

    return FLOATS(types.float32), codegen


@intrinsic
def put_sums(typingctx, address, totals):
    """Store the sum of each row's vector: one fp32 a row."""

    def codegen(context, builder, signature, args):
        for row in range(totals.num_rows):
            total = sum_of(builder, builder.extract_value(args[1], row))
            place = row_address(builder, args[0], row, LONG(4))
            builder.store(total, pointer_to(builder, place, FLOAT))
        return context.get_dummy_value()

    return types.void(address, totals), codegen


def _each(builder: Any, totals: Totals, value: Any, change: Any) -> Any:
    """The totals with each row's vector changed."""
    for row in range(totals.num_rows):
        value = builder.insert_value(value, change(row, builder.extract_value(value, row)), row)
    return value
