"""Compile every kernel that 7B needs for a card that is not there, and print what each takes.

    python -m tests.support.compile_for_card 90 232448 none
    python -m tests.support.compile_for_card 90 232448 none nf4 int8

The model runs on tensors without memory, in each of the forms that are named, and each launch is
compiled for compute capability 9.0 and 232,448 bytes of shared memory instead: so what is compiled
is what that card would be asked to run, and nothing else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

META = torch.device("meta")
ROWS, PROMPTS = (1, 8, 32, 64), ((1, 5), (9, 300), (1, 2048))


def pretend_to_have(capability: int, shared_bytes: int) -> None:
    """A card of this capability, as far as our modules and Triton's compiler look."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    class Card:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int = 0) -> int:
            return 0

        def get_active_torch_device(self) -> torch.device:
            return META

    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    major, minor = divmod(capability, 10)
    found = SimpleNamespace(major=major, minor=minor, shared_memory_per_block_optin=shared_bytes)
    cuda.current_device = lambda: 0
    cuda.get_device_properties = lambda device: found
    driver.set_active(Card())
    assert not triton.knobs.runtime.interpret


def record_launches() -> dict[str, Any]:
    """Compiled kernels by name and shape, filled while the model runs."""
    from triton.runtime.jit import JITFunction

    compiled: dict[str, Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled[f"{self.fn.__name__} {kernel.hash[:8]}"] = kernel
        return kernel

    JITFunction.run = compile_only
    return compiled


def run_model(dtype: torch.dtype, form: str) -> None:
    """One layer of 7B: decode steps, prompts, and both in one pass."""
    from benchmarks.lib.models import FALCON_MAMBA_7B
    from falcon_mamba_app.model.batch import Batch
    from falcon_mamba_app.model.falcon_mamba import FalconMamba
    from falcon_mamba_app.model.in_8bit import put_in_8bit
    from falcon_mamba_app.ops.reference.sampling import Column
    from falcon_mamba_app.ops.triton.ops import TRITON

    config = replace(FALCON_MAMBA_7B, num_layers=1)
    with META:
        model = FalconMamba(config, TRITON).to(dtype)
        if form == "int8":
            put_in_8bit(model, dtype=dtype)
        elif form != "none":
            put_in_4bit(model, dtype, is_double=form.endswith("double"))
        model.prepare()
        conv = torch.empty(1, 65, config.d_conv - 1, config.d_inner, dtype=dtype)
        ssm = torch.empty(1, 65, config.d_state, config.d_inner)
        is_eos, last_tokens = torch.empty(config.vocab_size, dtype=torch.bool), integers(2, 65)
    for rows in ROWS:
        inputs, params = (
            torch.empty(3, rows, device=META),
            torch.empty(rows, len(Column), device=META),
        )
        token_ids, slots = TRITON.next_inputs(inputs, last_tokens)
        hidden = model(Batch(token_ids, slots), conv, ssm)
        sampled = TRITON.sample(model.step_logits(hidden), params)
        TRITON.remember_tokens(
            sampled, inputs, live_slots=slots, is_eos=is_eos, last_tokens=last_tokens
        )
    for prompts, tokens in PROMPTS:
        batch = Batch(integers(tokens), integers(prompts), integers(prompts + 1))
        model.prompt_logits(model(batch, conv, ssm)[-1:])


def put_in_4bit(model: torch.nn.Module, dtype: torch.dtype, *, is_double: bool) -> None:
    """As benchmarks put it there, without numbers."""
    from falcon_mamba_app.model.linear import Linear
    from falcon_mamba_app.ops.reference.weight_4bit import NESTED_BLOCK, NestedAbsmax, Weight4bit

    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and ".mixer." in name:
            outputs, inputs = module.weight.shape
            blocks = outputs * inputs // 64
            scales = torch.empty(256), torch.empty(blocks // NESTED_BLOCK), torch.empty(())
            weight = Weight4bit(
                packed=torch.empty(blocks * 32, dtype=torch.uint8),
                absmax=torch.empty(blocks, dtype=torch.uint8 if is_double else torch.float32),
                code=torch.empty(16),
                shape=(outputs, inputs),
                blocksize=64,
                kind="nf4",
                compute_dtype=dtype,
                nested=NestedAbsmax(*scales) if is_double else None,
            )
            model.set_submodule(name, module.in_4bit(weight, module.bias))


def integers(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.int64, device=META)


def takes(kernel: Any) -> dict[str, int]:
    """Shared bytes, threads, and what ptxas gave it: registers and bytes of spilled ones."""
    registers, stack = given(kernel.asm["cubin"])
    return {
        "shared_bytes": kernel.metadata.shared,
        "threads": kernel.metadata.num_warps * 32,
        "registers": registers,
        "stack_bytes": stack,
    }


@cache
def given(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and the bytes of its stack."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", shown)
    assert found is not None, shown
    registers, stack = found.groups()
    return int(registers), int(stack)


def main() -> None:
    capability, shared_bytes = map(int, sys.argv[1:3])
    pretend_to_have(capability, shared_bytes)
    compiled = record_launches()
    found = {}
    for form in sys.argv[3:]:
        with torch.inference_mode():
            run_model(torch.bfloat16 if capability >= 80 else torch.float16, form)
        found[form] = {name: takes(kernel) for name, kernel in compiled.items()}
        compiled.clear()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
