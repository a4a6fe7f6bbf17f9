"""What its system denies a process: memory. A home that cannot be written is tests/app's."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from falcon_mamba_app.engine.failures import after_error
from falcon_mamba_app.errors import Overloaded, is_lack_of_memory
from falcon_mamba_app.protocol import Text
from falcon_mamba_app.service.local import room
from falcon_mamba_app.service.local.encoding import Encoding
from tests.support.engine_fixtures import make_sequence

ROOT = Path(__file__).parents[2]
LITTLE_BYTES = 400 * 2**20  # Python starts in it, torch does not
LACKS = [
    MemoryError(),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    RuntimeError("can't start new thread"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("Cannot allocate memory (os error 12)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
]


@pytest.mark.parametrize("error", LACKS, ids=repr)
def test_a_lack_of_memory_is_known_in_whatever_words(error):
    assert is_lack_of_memory(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "no file"), RuntimeError("shapes"), ValueError("out of memory")]
)
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_lack_of_memory(error)


def test_what_the_allocator_of_the_cpu_refuses_is_a_lack_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_lack_of_memory(caught.value)


def test_a_reply_that_finds_no_memory_on_a_cpu_is_told_so():
    told = after_error(
        make_sequence([1, 2, 3]), RuntimeError("DefaultCPUAllocator: can't allocate memory")
    )
    assert isinstance(told.error, Overloaded) and "ran out of memory" in str(told.error)


def test_a_start_in_too_little_memory_ends_with_one_sentence():
    """`ulimit -v`: it ended in a traceback of 43 lines."""
    result = subprocess.run(
        [sys.executable, "app.py", "--model", "nano", "--device", "cpu", "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LITTLE_BYTES, LITTLE_BYTES)),
        timeout=60,
    )
    assert result.returncode == 2, result.stderr
    assert "the system gave no more memory" in result.stderr and "ulimit -v" in result.stderr
    assert "Traceback" not in result.stderr


POOR = """
import resource
from tokenizers import Tokenizer
from falcon_mamba_app.errors import Overloaded
from falcon_mamba_app.service.local.room import bytes_left, refuse_without_room

tokenizer = Tokenizer.from_file("assets/nano/tokenizer.json")
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 24 * 2**20
refuse_without_room()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert 0 < bytes_left() <= 24 * 2**20
try:
    refuse_without_room()
except Overloaded as error:
    print(error)
"""


def test_with_little_memory_left_a_long_text_is_refused_before_the_tokenizer_ends_the_process():
    """24 MiB under `ulimit -v`: the tokenizer's library aborts on a failed allocation."""
    result = subprocess.run(
        [sys.executable, "-c", POOR], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "MiB of memory more" in result.stdout and "ulimit -v" in result.stdout


@pytest.mark.parametrize("characters", [3_000, 100_000, 1_000_000])
async def test_only_long_texts_look_for_room(monkeypatch, characters):
    monkeypatch.setattr(room, "bytes_left", lambda: 24 * 2**20)
    encoding = Encoding(None, max_tokens=10, vocab_size=10)
    assert await encoding._where_it_fits(Text("short"), lambda: "read") == "read"
    with pytest.raises(Overloaded, match="24 MiB"):
        await encoding._where_it_fits(Text("x" * characters), lambda: "read")
    monkeypatch.setattr(room, "bytes_left", lambda: None)  # nothing is limited
    assert await encoding._where_it_fits(Text("x" * characters), lambda: "read") == "read"
    encoding.close()
