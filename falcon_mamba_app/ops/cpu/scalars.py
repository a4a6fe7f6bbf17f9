"""Single numbers at an address or as their bits, for numba's kernels beside `vectors`."""

from __future__ import annotations

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from falcon_mamba_app.ops.cpu.kernels import intrinsic
from falcon_mamba_app.ops.cpu.llvm import (
    BYTE,
    FLOAT,
    INT,
    LONG,
    SHORT,
    load_at,
    pointer_to,
    widened_half,
)


@intrinsic
def half(typingctx, address):
    """The float16 at an address, as fp32."""

    def codegen(context, builder, signature, args):
        return widened_half(context, builder, load_at(builder, args[0], SHORT))

    return types.float32(address), codegen


@intrinsic
def word(typingctx, address):
    """The four bytes at an address."""

    def codegen(context, builder, signature, args):
        return builder.zext(load_at(builder, args[0], INT), LONG)

    return types.uint64(address), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for a cache line. Any address may be given, also one of nothing."""

    def codegen(context, builder, signature, args):
        place = pointer_to(builder, args[0], BYTE)
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT, INT, INT])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, INT(0), INT(3), INT(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(address), codegen


@intrinsic
def magnitude_bits(typingctx, value):
    """The bits of an fp32 without its sign. They are in the order of the magnitudes, and NaN's and
    infinity's are the largest.
    """

    def codegen(context, builder, signature, args):
        return builder.and_(builder.bitcast(args[0], INT), INT(0x7FFFFFFF))

    return types.int32(value), codegen


@intrinsic
def from_bits(typingctx, bits):
    """The fp32 of 32 bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], FLOAT)

    return types.float32(bits), codegen


@intrinsic
def low_bits(typingctx, value):
    """The low 16 bits of an fp32: the whole number that was added to ROUNDER."""

    def codegen(context, builder, signature, args):
        return builder.trunc(builder.bitcast(args[0], INT), SHORT)

    return types.uint16(value), codegen
