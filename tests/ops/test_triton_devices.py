"""Every kernel, compiled at 7B's shapes for cards that are not here, fits them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from falcon_mamba_app.ops.triton.tiles import Tile, fitting

ROOT = Path(__file__).parents[2]
REGISTERS_OF_A_BLOCK, MAX_STACK_BYTES = 65_536, 64
# Bytes that one program can have (CUDA programming guide, technical specifications): a T4; an A100;
# a 4090 and an L4, which have as much as a 3090 and an A10 and are asked for the same; an H100.
SHARED_BYTES = {75: 65_536, 80: 166_912, 89: 101_376, 90: 232_448}
EVERYWHERE = {
    "_add_rms_norm_kernel",
    "_conv_prefill_kernel",
    "_conv_step_kernel",
    "_draw_kernel",
    "_next_inputs_kernel",
    "_remember_tokens_kernel",
    "_in_proj_row_kernel",
    "_maxima_kernel",
    "_projected_scan_step_kernel",
    "_rms_norm_kernel",
    "row_times_matrix_kernel",
    "_scan_prefill_kernel",
    "_scan_step_kernel",
    "_split_rms_norm_kernel",
    "histogram_kernel",
    "cutoff_kernel",
    "later_filters_kernel",
}
WITH_MATRIX_UNITS = {"_in_proj_rows_kernel", "rows_times_matrix_kernel"}

FOR_8_BITS = {"_rows_kernel"}
FOR_4_BITS = {"dequantize_kernel", "row_kernel", "rows_kernel", "few_rows_4bit_kernel"}
BYTES_OF_PAIRS = 32_768  # of the table for one row or a few, which the compiler's figure leaves out


# What each card is tested with beside weights as they are; 4 bits at the least memory without and
# with matrix units.
FORMS_OF_4_BITS = [(75, "nf4 double"), (89, "nf4 double"), (89, "nf4"), (90, "nf4")]
CARDS_OF_8_BITS = [75, 89, 90]

Kernels = dict[str, dict[str, int]]  # what each takes of the card, by name


class Compiler:
    """Compiles for a card in a process of its own: all forms at once, since most of the kernels are
    the same, and to start costs seconds.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._found: dict[int, dict[str, Kernels]] = {}

    def kernels(self, capability: int, form: str = "none") -> Kernels:
        if capability not in self._found:
            forms = [form for card, form in FORMS_OF_4_BITS if card == capability]
            forms += ["int8"] * (capability in CARDS_OF_8_BITS)
            self._found[capability] = self.compile(capability, "none", *forms)
        return self._found[capability][form]

    def compile(self, capability: int, *forms: str) -> dict[str, Kernels]:
        inherited = {
            name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"
        }
        card = str(capability), str(SHARED_BYTES[capability])
        finished = subprocess.run(
            [sys.executable, "-m", "tests.support.compile_for_card", *card, *forms],
            cwd=ROOT,
            env=inherited | {"TRITON_CACHE_DIR": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        found: dict[str, Kernels] = json.loads(finished.stdout)
        return found


@pytest.fixture(scope="module")
def compiler(tmp_path_factory) -> Compiler:
    return Compiler(Path(tmp_path_factory.mktemp("triton")))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", SHARED_BYTES)
def test_every_kernel_compiles_for_the_card_and_fits_it(compiler, capability):
    shared_bytes = SHARED_BYTES[capability]
    kernels = compiler.kernels(capability)
    names = {name.split()[0] for name in kernels}
    assert names == EVERYWHERE | (WITH_MATRIX_UNITS if capability >= 80 else set())
    tiles = [takes for name, takes in kernels.items() if "rows_times_matrix" in name]
    # Less is taken where the compiler sees no way to have tiles on their way to the matrix units.
    assert all(takes["shared_bytes"] >= 32_768 for takes in tiles)
    assert not tiles or max(takes["shared_bytes"] for takes in tiles) > shared_bytes // 2
    for name, takes in kernels.items():
        assert takes["shared_bytes"] <= shared_bytes, name
        assert takes["threads"] * takes["registers"] <= REGISTERS_OF_A_BLOCK, name
        # Numbers that find no register go through memory: a few may, a tile may not.
        assert takes["stack_bytes"] <= MAX_STACK_BYTES, name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("capability", "form"), FORMS_OF_4_BITS)
def test_every_kernel_for_4_bits_compiles_for_the_card_and_fits_it(compiler, capability, form):
    kernels = compiler.kernels(capability, form)
    ours = {name: takes for name, takes in kernels.items() if name.split()[0] in FOR_4_BITS}
    expected = {"dequantize_kernel", "row_kernel"}
    if capability >= 80:
        expected |= {"rows_kernel"} | ({"few_rows_4bit_kernel"} if form == "nf4" else set())
    assert {name.split()[0] for name in ours} == expected
    for name, takes in ours.items():
        has_table = name.startswith(("row_", "few_rows_4bit"))
        shared_bytes = takes["shared_bytes"] + (BYTES_OF_PAIRS if has_table else 0)
        assert shared_bytes <= SHARED_BYTES[capability], name
        assert takes["threads"] * takes["registers"] <= REGISTERS_OF_A_BLOCK, name
        assert takes["stack_bytes"] <= MAX_STACK_BYTES, name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", CARDS_OF_8_BITS)
def test_every_kernel_for_8_bits_compiles_for_the_card_and_fits_it(compiler, capability):
    kernels = compiler.kernels(capability, "int8")
    tiles = {*WITH_MATRIX_UNITS, "few_rows_kernel"} if capability >= 80 else set()
    assert {name.split()[0] for name in kernels} == EVERYWHERE | FOR_8_BITS | tiles
    for name, takes in kernels.items():
        assert takes["shared_bytes"] <= SHARED_BYTES[capability], name
        assert takes["threads"] * takes["registers"] <= REGISTERS_OF_A_BLOCK, name
        assert takes["stack_bytes"] <= MAX_STACK_BYTES, name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_start_finds_every_kernel_compiled(compiler):
    """The first may be that of another test."""
    first = compiler.kernels(90)
    files = {path: path.stat().st_mtime_ns for path in compiler.cache.rglob("*.cubin")}
    assert files
    assert compiler.compile(90, "none") == {"none": first}
    assert {path: path.stat().st_mtime_ns for path in compiler.cache.rglob("*.cubin")} == files


@pytest.mark.parametrize("shared_bytes", [101_376, 166_912, 232_448])
@pytest.mark.parametrize("rows", [16, 64])
def test_a_tile_gives_up_stages_then_inputs_where_memory_is_short(shared_bytes, rows):
    wanted = Tile(outputs=128, inputs=128, stages=3, warps=8)
    tile = fitting(
        wanted, rows=rows, length=4096, weight_bytes=2, value_bytes=2, shared_bytes=shared_bytes
    )
    assert (tile.stages + 1) * (tile.outputs + rows) * tile.inputs * 2 <= shared_bytes
    assert tile.stages >= 3 and tile.outputs == 128
    assert (tile == wanted) == (shared_bytes == 232_448 or (rows, shared_bytes) == (16, 166_912))
