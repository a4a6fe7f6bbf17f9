"""Numbers that stand in a table of 16, named by four bits each, for `code_kernels`.

A table has 32 places, the 16 numbers twice, so one instruction of AVX-512 looks up 32 numbers and
needs no mask. Elsewhere a byte of each number is looked up at a time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from falcon_mamba_app.ops.cpu.kernels import intrinsic
from falcon_mamba_app.ops.cpu.llvm import BYTE, INT, SHORT, load_at, part, places
from falcon_mamba_app.ops.cpu.vectors import NUMBERS

SIXTEEN = ir.VectorType(BYTE, 16)
LOOK_UPS = (("+ssse3", "llvm.x86.ssse3.pshuf.b.128"), ("+neon", "llvm.aarch64.neon.tbl1.v16i8"))


@intrinsic
def table_at(typingctx, address):
    """The 32 int16 at an address."""

    def codegen(context, builder, signature, args):
        return load_at(builder, args[0], NUMBERS.llvm)

    return NUMBERS(address), codegen


@intrinsic
def coded(typingctx, table, address):
    """The numbers that the 16 bytes at an address name, the upper half of each byte first."""

    def codegen(context, builder, signature, args):
        stored = load_at(builder, args[1], SIXTEEN)
        features = context.codegen().magic_tuple()[2]
        if "+avx512bw" in features:
            return _by_one_instruction(builder, args[0], stored)
        for feature, name in LOOK_UPS:
            if feature in features:
                function = builder.module.declare_intrinsic(
                    name, fnty=ir.FunctionType(SIXTEEN, [SIXTEEN] * 2)
                )
                return _by_bytes(builder, args[0], stored, function)
        return _by_comparing(builder, args[0], stored)

    return NUMBERS(table, address), codegen


def _by_one_instruction(builder: Any, table: Any, stored: Any) -> Any:
    words = ir.VectorType(INT, 16)
    wide = builder.zext(stored, words)
    # Of a place's 16 bits the instruction reads five, and the table repeats after 16.
    first = builder.lshr(wide, ir.Constant(words, [4] * 16))
    second = builder.shl(wide, ir.Constant(words, [16] * 16))
    both = builder.bitcast(builder.or_(first, second), NUMBERS.llvm)
    function = builder.module.declare_intrinsic(
        "llvm.x86.avx512.permvar.hi.512", fnty=ir.FunctionType(NUMBERS.llvm, [NUMBERS.llvm] * 2)
    )
    return builder.call(function, [table, both])


def _halves_of_bytes(builder: Any, stored: Any) -> Any:
    """32 bytes of at most 15."""
    first = builder.lshr(stored, ir.Constant(SIXTEEN, [4] * 16))
    second = builder.and_(stored, ir.Constant(SIXTEEN, [15] * 16))
    return builder.shuffle_vector(first, second, places(i // 2 + i % 2 * 16 for i in range(32)))


def _by_bytes(builder: Any, table: Any, stored: Any, function: Any) -> Any:
    named = _halves_of_bytes(builder, stored)
    sixteen = part(builder, table, 0, 16)
    low = builder.trunc(sixteen, SIXTEEN)
    high = builder.trunc(builder.lshr(sixteen, ir.Constant(sixteen.type, [8] * 16)), SIXTEEN)
    found = []
    for of_each in (low, high):
        parts = [
            builder.call(function, [of_each, part(builder, named, first, 16)]) for first in (0, 16)
        ]
        joined = builder.shuffle_vector(*parts, places(range(32)))
        found.append(builder.zext(joined, NUMBERS.llvm))
    shifted = builder.shl(found[1], ir.Constant(NUMBERS.llvm, [8] * 32))
    return builder.or_(found[0], shifted)


def _by_comparing(builder: Any, table: Any, stored: Any) -> Any:
    named = builder.zext(_halves_of_bytes(builder, stored), NUMBERS.llvm)
    found = ir.Constant(NUMBERS.llvm, None)
    for i in range(16):
        number = builder.shuffle_vector(table, table, places([i] * 32))
        is_it = builder.icmp_unsigned("==", named, ir.Constant(NUMBERS.llvm, [SHORT(i)] * 32))
        found = builder.select(is_it, number, found)
    return found
