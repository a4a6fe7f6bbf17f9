"""llama.cpp as a peer: in a process of its own, over the same GGUF file.

It is called through its library's C functions, so any build does: a folder that holds `libllama`
and `libggml`, such as `bin` of one's own build, or `bins/linux-x64` of the package that
`npm pack @node-llama-cpp/linux-x64` fetches. All parameters are the library's own choice, but for
the number of threads and the length of the context. The structures of parameters grow from version
to version; here they are opaque, larger than any, and only their first field is set.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_PROMPT = 2048  # the library's own limit of a batch
CONTEXT = 2 * MAX_PROMPT
ROOT = Path(__file__).parents[2]


class _Parameters(ctypes.Structure):
    # Of a context the first field is its length.
    _fields_ = (("first", ctypes.c_uint32), ("others", ctypes.c_uint8 * 2_044))


class _Batch(ctypes.Structure):
    _fields_ = (("num_tokens", ctypes.c_int32), ("pointers", ctypes.c_void_p * 6))


class NoLibrary(Exception):
    """The folder holds no llama.cpp."""


def _library(folder: Path, name: str) -> ctypes.CDLL:
    """lib<name>.so, or the like with a version or another ending; not lib<name>-other."""
    for path in sorted(folder.glob(f"lib{name}.*")):
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    raise NoLibrary(f"{folder} holds no lib{name}: give the folder of llama.cpp's libraries")


class Reader:
    """One file and one context, in this process."""

    def __init__(self, folder: Path, file: Path, num_threads: int) -> None:
        _library(folder, "ggml-base")
        backends = _library(folder, "ggml")
        self._library = _library(folder, "llama")
        self._declare()
        backends.ggml_backend_load_all_from_path(str(folder).encode())
        self._library.llama_backend_init()
        parameters = self._library.llama_model_default_params()
        self._model = self._library.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise NoLibrary(f"llama.cpp does not load {file.name}; its reason is above")
        parameters = self._library.llama_context_default_params()
        parameters.first = CONTEXT
        self._context = self._library.llama_init_from_model(self._model, parameters)
        self._num_threads = num_threads
        vocabulary = self._library.llama_model_get_vocab(self._model)
        self._num_tokens: int = self._library.llama_vocab_n_tokens(vocabulary)

    def _declare(self) -> None:
        address, number, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
        for name, result, arguments in (
            ("llama_model_default_params", _Parameters, ()),
            ("llama_context_default_params", _Parameters, ()),
            ("llama_model_load_from_file", address, (text, _Parameters)),
            ("llama_init_from_model", address, (address, _Parameters)),
            ("llama_set_n_threads", None, (address, number, number)),
            ("llama_model_get_vocab", address, (address,)),
            ("llama_vocab_n_tokens", number, (address,)),
            ("llama_batch_get_one", _Batch, (address, number)),
            ("llama_decode", number, (address, _Batch)),
            ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), (address, number)),
            ("llama_get_memory", address, (address,)),
            ("llama_memory_clear", None, (address, ctypes.c_bool)),
            ("llama_print_system_info", text, ()),
        ):
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments

    @property
    def about(self) -> str:
        """The instructions that it uses here."""
        found: bytes = self._library.llama_print_system_info()
        return found.decode()

    def forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def use(self, num_threads: int) -> None:
        self._library.llama_set_n_threads(self._context, num_threads, num_threads)

    def feed(self, token_ids: list[int]) -> int:
        """Read on; returns the first choice for what follows."""
        numbers = (ctypes.c_int32 * len(token_ids))(*token_ids)
        batch = self._library.llama_batch_get_one(numbers, len(token_ids))
        status = self._library.llama_decode(self._context, batch)
        assert status == 0, f"llama_decode: {status} for {len(token_ids)} tokens"
        logits = self._library.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._num_tokens,)).argmax())

    # ---- What the other process asks for; each begins with nothing read ----

    def choices(self, token_ids: list[int]) -> list[int]:
        self.forget()
        # Its threads wait for each other by looking, for ever where other work has the cores.
        self.use(1)
        return [self.feed([token_id]) for token_id in token_ids]

    def read_s(self, token_ids: list[int]) -> float:
        self.forget()
        self.use(self._num_threads)
        began = time.perf_counter()
        self.feed(token_ids)
        return time.perf_counter() - began

    def write_s(self, num_tokens: int) -> float:
        self.forget()
        self.use(self._num_threads)
        token_id = self.feed([1, 2])
        began = time.perf_counter()
        for _ in range(num_tokens):
            token_id = self.feed([token_id])
        return time.perf_counter() - began


class LlamaCpp:
    """The peer; between two questions its process sleeps."""

    def __init__(self, folder: Path, file: Path, num_threads: int) -> None:
        """Raises NoLibrary."""
        command = [sys.executable, "-m", "benchmarks.lib.llama_cpp", str(folder.resolve())]
        command += [str(file.resolve()), str(num_threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.about: str = self._answer()

    def choices(self, token_ids: list[int]) -> list[int]:
        """The first choice after each of the tokens."""
        found: list[int] = self._ask("choices", token_ids)
        return found

    def read_s(self, token_ids: list[int]) -> float:
        """Seconds to read a prompt, up to its first choice."""
        found: float = self._ask("read_s", token_ids)
        return found

    def write_s(self, num_tokens: int) -> float:
        """Seconds to write so many tokens, the likeliest ones."""
        found: float = self._ask("write_s", num_tokens)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, what: str, of: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, of]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = json.loads(line) if line else {"why": "llama.cpp ended; its reason is above"}
        if isinstance(found, dict):
            self.close()
            raise NoLibrary(found["why"])
        return found


def _answers(folder: Path, file: Path, num_threads: int) -> Iterator[Any]:
    """First what it is, then one answer for each line of the input."""
    try:
        reader = Reader(folder, file, num_threads)
    except (NoLibrary, OSError, AttributeError) as error:
        yield {"why": str(error)}
        return
    yield reader.about
    for line in sys.stdin:
        what, of = json.loads(line)
        yield getattr(reader, what)(of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("num_threads", type=int)
    options = parser.parse_args()
    for answer in _answers(options.folder, options.file, options.num_threads):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
