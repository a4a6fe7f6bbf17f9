"""The comparison with llama.cpp, where llama.cpp is not: its figures, and what it says."""

import dataclasses

import pytest

from benchmarks import llama_cpp
from benchmarks.lib.llama_cpp import LlamaCpp, NoLibrary, _library
from falcon_mamba_app.checkpoint.gguf.write import write_gguf
from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER


def test_a_file_is_compared_with_another_program_s_reading_of_it(tmp_path):
    """A second reader of ours stands for the other program."""
    path = tmp_path / "nano.gguf"
    write_gguf(BUNDLED_FOLDER, path, "F32")
    ours, effort = llama_cpp.Ours(path), llama_cpp.Effort(rounds=1, prompt=4, written=2)
    row = llama_cpp.compare("bundled, F32", ours, ours, effort, [50, 60, 70])
    assert (row.same, row.tokens) == (1.0, 3)
    assert min(row.write_tokens_per_s, row.write_ratio, row.read_ratio) > 0
    slow = dataclasses.replace(row, same=0.9, write_ratio=1.5, read_ratio=1.2)
    below = ["bundled, F32: the same first choices: 0.900, not 0.995"]
    assert llama_cpp.shortfalls([slow]) == below
    assert "100.0% of 3" in llama_cpp.show([row]).lines[-1]


def test_a_folder_without_llama_cpp_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(NoLibrary, match="holds no libggml-base: give the folder of llama.cpp's"):
        LlamaCpp(tmp_path, tmp_path / "file.gguf", 1)


def test_the_library_is_taken_for_itself_and_not_for_a_part_of_it(tmp_path):
    """libggml-base is not libggml; a version may stand before the ending."""
    for name in ("libggml-base.so", "libggml-cpu-haswell.so", "libllama-common.so"):
        (tmp_path / name).touch()
    with pytest.raises(NoLibrary, match="no libggml:"):
        _library(tmp_path, "ggml")
    (tmp_path / "libggml.v0.5.0.so").write_bytes(b"")
    with pytest.raises(OSError, match=r"libggml.v0.5.0.so"):
        _library(tmp_path, "ggml")
