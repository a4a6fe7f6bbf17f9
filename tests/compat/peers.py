"""Runs what applies of a peer's own test suite against a running server of this app.

    python -m tests.compat.peers vllm PATH http://127.0.0.1:7860 [-- options of pytest]
    python -m tests.compat.peers llama.cpp PATH http://127.0.0.1:8080

PATH is the peer's source, of which nothing is kept here: a checkout, or an unpacked sdist. The
server has to know the names of models that the suite asks for; without them the script says with
which --served-model-name to start it. It prints what it leaves out and why, and what passed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx

PLUGINS = Path(__file__).parent
MAX_REASON = 160  # characters of why a case failed


@dataclass(frozen=True, slots=True)
class Suite:
    """Which of a peer's tests are run, and which are not. `helpers` is its module that starts
    servers, `stand_ins` are packages that the tests import and do not need. `other_models` are
    parameters of tests that hold a text of the peer's own model, or a count of its tokens, which
    are not compared in tests that have the first of them; `prefix` stands before paths that the
    peer has without it.
    """

    folder: str
    files: tuple[str, ...]
    models: tuple[str, ...]
    left_out: Mapping[str, str]  # why, by a part of a test's id
    stand_ins: tuple[str, ...] = ()
    helpers: str = ""
    fixtures: tuple[str, ...] = ()  # modules with what its tests take beside a server
    other_models: tuple[str, ...] = ()
    prefix: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


SUITES = {
    "vllm": Suite(
        folder=".",
        files=(
            "tests/entrypoints/openai/chat_completion/test_chat.py",
            "tests/entrypoints/openai/chat_completion/test_chat_completion.py",
            "tests/entrypoints/openai/chat_completion/test_chat_echo.py",
            "tests/entrypoints/openai/chat_completion/test_chat_logit_bias_validation.py",
            "tests/entrypoints/openai/completion/test_completion.py",
        ),
        models=(
            *("HuggingFaceH4/zephyr-7b-beta", "Qwen/Qwen3-0.6B", "Qwen/Qwen2-1.5B-Instruct"),
            "Qwen/Qwen2.5-1.5B-Instruct",
        ),
        left_out={
            "lora": "adapters of vLLM's own",
            "beam_search": "this app has no beam search",
            "invocations": "SageMaker's path",
            "prompt_embeds": "prompts that are tensors",
            "logprob_token_ids": "an extension of vLLM's",
            "kv_transfer": "states between vLLM's own copies",
            "per_request_metrics": "figures under names of vLLM's own",
            "completion_request_": "vLLM's own classes, not over HTTP",
            "null_top_logprobs": "vLLM's own classes, not over HTTP",
        },
        stand_ins=("vllm",),
        helpers="tests.utils",
        fixtures=("tests.entrypoints.conftest",),
    ),
    "llama.cpp": Suite(
        folder="tools/server/tests",
        files=("unit/test_chat_completion.py",),
        models=("llama-test-model", "gpt-3.5-turbo", "gpt-4o-mini", "gpt-3.5-turbo-instruct"),
        left_out={
            "timings": "figures under a name of llama.cpp's own",
            "verbose": "a dump of llama.cpp's own state",
            "progress": "this app tells it in comments of the stream",
            "slot": "slots with numbers",
            "context_size": "a server of 512 tokens",
            "apply_template": "llama.cpp's own endpoint; /tokenize tells the ids",
        },
        stand_ins=("wget",),
        other_models=(
            *("n_prompt", "n_predicted", "re_content", "finish_reason", "model", "chat_template"),
        ),
        prefix="/v1",
        environment={"DEBUG_EXTERNAL": "1"},
    ),
}


def missing_models(suite: Suite, url: str) -> list[str]:
    """The names of the suite's models that the server does not know."""
    with httpx.Client(base_url=url, timeout=60) as http:
        return [m for m in suite.models if http.get(f"/v1/models/{m}").status_code != 200]


def command(suite: Suite, extra: Sequence[str]) -> list[str]:
    """How pytest is started in the peer's folder."""
    unwanted = " or ".join(re.sub(r"\W", "_", name) for name in suite.left_out)
    return [
        *(sys.executable, "-m", "pytest", "--noconftest", "-p", "peer_plugin", "-c", os.devnull),
        *(option for name in suite.fixtures for option in ("-p", name)),
        *("--rootdir", ".", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "-q", "-rfE"),
        *("--tb=line", "-k", f"not ({unwanted})", *suite.files, *extra),
    ]


def environment(suite: Suite, url: str) -> dict[str, str]:
    """The variables that the plugin and the suite read."""
    return {
        **os.environ,
        **suite.environment,
        "PYTHONPATH": str(PLUGINS),
        "PEER_URL": url,
        "PEER_STAND_INS": ",".join(suite.stand_ins),
        "PEER_HELPERS": suite.helpers,
        "PEER_PREFIX": suite.prefix,
        "PEER_OTHER_MODELS": ",".join(suite.other_models),
        "PORT": str(urlsplit(url).port or 80),
    }


def run(
    suite: Suite, source: Path, url: str, extra: Sequence[str] = (), save: Path | None = None
) -> int:
    """The exit status of the suite; 2 where it cannot be run. The counts go to `save`."""
    folder = source / suite.folder
    absent = [name for name in suite.files if not (folder / name).is_file()]
    if absent:
        print(f"error: {folder} has no {absent[0]}; is it another version of the peer's source?")
        return 2
    if unknown := missing_models(suite, url):
        print(f"error: start the server with --served-model-name {','.join(suite.models)}")
        print(f"       {unknown[0]} is not known to it")
        return 2
    for name, reason in suite.left_out.items():
        print(f"left out: {name}: {reason}")
    with TemporaryDirectory() as place:
        counts = Path(place) / "counts.json"
        variables = {**environment(suite, url), "PEER_COUNTS": str(counts)}
        ran = subprocess.run(command(suite, extra), cwd=folder, env=variables)
        if save is not None and counts.is_file():
            save.write_text(told(suite, json.loads(counts.read_text())))
    return ran.returncode


def told(suite: Suite, counts: Mapping[str, Mapping[str, str]]) -> str:
    """The counts as a page: file by file, then what failed and what was left out, and why."""
    lines = ["| file | cases | passed | failed | left out |", "|---|---:|---:|---:|---:|"]
    for file in suite.files:
        nums = [sum(case.startswith(file) for case in cases) for cases in counts.values()]
        lines.append(f"| {file} | {sum(nums)} | " + " | ".join(map(str, nums)) + " |")
    lines += ["", "Failed:", ""]
    for case, reason in counts["failed"].items():
        name = re.sub(r"^.*/(?=\w+\.py::)", "", case)
        lines.append(f"- `{name}`: {_in_a_line(reason)}")
    lines += ["", "Left out:", ""]
    for name, reason in suite.left_out.items():
        pattern = re.sub(r"\W", "_", name)
        lines.append(
            f"- {sum(pattern in case.lower() for case in counts['left out'])} of {name}: {reason}"
        )
    if suite.other_models:
        names = ", ".join(suite.other_models)
        lines += ["", f"Not compared, as they are another model's: {names}."]
    return "\n".join(lines) + "\n"


def _in_a_line(reason: str) -> str:
    """The end of a crash's first line: what was expected, without the place in the file."""
    words = re.sub(r"^\S+:\d+: ", "", reason)
    return words if len(words) <= MAX_REASON else words[:MAX_REASON] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("peer", choices=sorted(SUITES))
    parser.add_argument("source", type=Path)
    parser.add_argument("url")
    parser.add_argument("extra", nargs="*", help="options of pytest, after --")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the counts there")
    options = parser.parse_args(arguments)
    suite, url = SUITES[options.peer], options.url.rstrip("/")
    return run(suite, options.source, url, options.extra, options.save)


if __name__ == "__main__":
    sys.exit(main())
