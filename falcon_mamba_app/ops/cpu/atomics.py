"""Memory that several threads read and write, as functions for numba's kernels; and calls of a
compiled kernel by its address.

Every operation is sequentially consistent.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from falcon_mamba_app.ops.cpu.kernels import intrinsic
from falcon_mamba_app.ops.cpu.llvm import LONG, pointer_to

ORDER = "seq_cst"
# What a processor offers to a thread that looks again and again.
PAUSES = (("x86", "llvm.x86.sse2.pause", ()), ("aarch64", "llvm.aarch64.hint", (1,)))


@intrinsic
def atomic_load(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(pointer_to(builder, args[0], LONG), ORDER, 8)

    return types.int64(address), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], pointer_to(builder, args[0], LONG), ORDER, 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _changed(operation: str) -> Any:
    @intrinsic
    def changed(typingctx, address, value):
        def codegen(context, builder, signature, args):
            place = pointer_to(builder, args[0], LONG)
            return builder.atomic_rmw(operation, place, args[1], ORDER)

        return types.int64(types.int64, types.int64), codegen

    return changed


# Each returns what was there before.
atomic_add, atomic_or, atomic_and, atomic_exchange = map(_changed, ("add", "or", "and", "xchg"))


@intrinsic
def pause(typingctx):
    """Tell the processor that this thread is waiting."""

    def codegen(context, builder, signature, args):
        triple = context.codegen().magic_tuple()[0].replace("arm64", "aarch64")
        for processor, name, values in PAUSES:
            if triple.startswith(processor):
                kinds = [ir.IntType(32)] * len(values)
                function = builder.module.declare_intrinsic(
                    name, fnty=ir.FunctionType(ir.VoidType(), kinds)
                )
                builder.call(function, [kind(v) for kind, v in zip(kinds, values, strict=True)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call(typingctx, function, arguments, low, high):
    """Call the kernel at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [LONG, LONG, LONG])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def address_of_kernel(kernel: Any) -> int:
    """Of a kernel of three integers that returns nothing, compiled if need be. It is valid as long
    as the kernel lives.
    """
    signature = (types.int64,) * 3
    kernel.compile(signature)
    result = kernel.overloads[signature]
    name = result.fndesc.llvm_cfunc_wrapper_name
    address: int = result.library.get_pointer_to_function(name)
    return address
