"""Replies held to a form: whether all are valid, and what a form costs a step.

    python -m benchmarks.forms [--forms 2000] [--batch 1 32] [--steps 200] [--save NAME]

Speed: on a GPU the real 7B shape with random weights in bf16 and a vocabulary of its size,
elsewhere the bundled model. Steps whose rows all write JSON by a schema and steps of the same rows
without a form take turns, so that both meet the same machine. Validity: random schemas, patterns
and choices over the bundled model, 32 at a time at temperature 1.5, checked by jsonschema and
Python.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer

from benchmarks.lib.forms import is_held, random_form
from benchmarks.lib.models import bundled_model, random_7b
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.engine import sequence
from falcon_mamba_app.engine.build import build_engine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Ended, Sampled
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import JsonForm, SamplingParams
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.vocabulary import Vocabulary

FIRST_PLAIN_ID = 4  # of the bundled tokenizer; before it are its special tokens
EOS = 2
ROWS_AT_ONCE, MAX_TOKENS = 32, 1_500
BLOCKS = 10  # of steps, in turn with and without a form
SCHEMA = {
    "type": "array",
    "minItems": 1_000_000,  # longer than any measurement
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "mood": {"enum": ["good", "bad", "unknown"]},
            "born": {"type": "string", "format": "date"},
            "size": {"type": "number", "minimum": 0, "maximum": 1_000},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{3,9}$"}},
        },
        "required": ["name", "mood", "born", "size"],
        "additionalProperties": False,
    },
}


class WideVocabulary(Vocabulary):
    """The bundled tokenizer's tokens, and behind them pairs of them up to a larger model's size."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        super().__init__(tokenizer)
        num_own = tokenizer.get_vocab_size()
        own = [super(WideVocabulary, self).token_bytes(i) for i in range(num_own)]
        self._texts = [b"" if i < FIRST_PLAIN_ID else own[i] for i in range(num_own)]
        num_plain = num_own - FIRST_PLAIN_ID
        for i in range(vocab_size - num_own):
            first, second = (FIRST_PLAIN_ID + i * step % num_plain for step in (7_919, 104_729))
            self._texts.append(own[first] + own[second])

    def visible_bytes(self, token_id: int) -> bytes:
        return self._texts[token_id]

    def token_bytes(self, token_id: int) -> bytes:
        return self._texts[token_id]


def grammars_for(model: FalconMamba) -> Grammars:
    """Forms for a model whose tokens are those of the bundled tokenizer, and more."""
    vocab_size = model.config.vocab_size
    tokenizer = Tokenizer.from_file(str(ASSETS / "nano" / "tokenizer.json"))
    vocabulary = WideVocabulary(tokenizer, vocab_size)
    return Grammars(vocabulary, vocab_size=vocab_size, eos_token_ids=[EOS])


def engine_over(model: FalconMamba, *, max_running: int) -> Engine:
    return build_engine(
        model,
        eos_token_ids=frozenset({EOS}),
        max_running=max_running,
        max_prefill_tokens=2048,
        max_snapshot_bytes=2**30,
    )


def filled(model: FalconMamba, num_rows: int, grammars: Grammars | None) -> Engine:
    """An engine whose rows all decode, held to the schema where there are grammars."""
    engine = engine_over(model, max_running=num_rows)
    for seq_id in range(num_rows):
        sampling = SamplingParams(
            temperature=0.7, top_p=0.9, ignore_eos=grammars is None, max_new_tokens=1_000_000
        )
        seq = sequence.Sequence(
            seq_id=seq_id, prompt_token_ids=[20 + seq_id], sampling=sampling, seed=seq_id
        )
        if grammars is not None:
            seq.matcher = grammars.matcher(JsonForm(json.dumps(SCHEMA)))
        engine.add(seq)
    decoding: set[int] = set()
    while len(decoding) < num_rows:
        decoding |= {event.seq_id for event in engine.step() if isinstance(event, Sampled)}
    return engine


def block_s(engine: Engine, num_rows: int, steps: int) -> list[float]:
    """Seconds of each of some steps."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        events = engine.step()
        times.append(time.perf_counter() - start)
        assert sum(isinstance(event, Sampled) for event in events) == num_rows, events
    return times


def measure_speed(model: FalconMamba, num_rows: int, *, steps: int) -> dict[str, Any]:
    """Median step times of rows with and without a form, and of the pairs of blocks their ratio."""
    grammars = grammars_for(model)
    free, held = filled(model, num_rows, None), filled(model, num_rows, grammars)
    times: tuple[list[float], list[float]] = ([], [])
    ratios = []
    for _ in range(BLOCKS):
        pair = [block_s(engine, num_rows, max(1, steps // BLOCKS)) for engine in (free, held)]
        for all_of_them, block in zip(times, pair, strict=True):
            all_of_them += block
        ratios.append(statistics.median(pair[0]) / statistics.median(pair[1]))
    return {
        "rows": num_rows,
        "step_ms": 1_000 * statistics.median(times[0]),
        "held_step_ms": 1_000 * statistics.median(times[1]),
        "speed": statistics.median(ratios),
    }


def measure_validity(model: FalconMamba, num_forms: int) -> dict[str, int]:
    """How many replies came to their end, and how many of these have their form."""
    grammars = grammars_for(model)
    vocabulary, forms = (
        grammars.vocabulary,
        [random_form(random.Random(i)) for i in range(num_forms)],
    )
    counts = {"forms": num_forms, "ended": 0, "valid": 0, "tokens": 0}
    for first in range(0, num_forms, ROWS_AT_ONCE):
        engine, seqs = engine_over(model, max_running=ROWS_AT_ONCE), []
        for i, form in enumerate(forms[first : first + ROWS_AT_ONCE]):
            sampling = SamplingParams(temperature=1.5, max_new_tokens=MAX_TOKENS)
            seq = sequence.Sequence(
                seq_id=i, prompt_token_ids=[300 + i], sampling=sampling, seed=first + i
            )
            seq.matcher = grammars.matcher(form)
            seqs.append(seq)
            engine.add(seq)
        ended = _ended(engine)
        for form, seq in zip(forms[first:], seqs, strict=False):
            counts["tokens"] += len(seq.output_token_ids)
            if seq.seq_id in ended:
                counts["ended"] += 1
                counts["valid"] += is_held(form, vocabulary.decode(seq.output_token_ids[:-1]))
    return counts


def _ended(engine: Engine) -> set[int]:
    """The sequences that ended with their form, after all have come to an end."""
    ended: set[int] = set()
    while engine.has_work:
        events: Iterable[Any] = engine.step()
        ended |= {e.seq_id for e in events if isinstance(e, Ended) and e.reason == "stop"}
    return ended


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", type=int, default=2_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, "auto")
    bundled = bundled_model(ops, device, torch.float32)
    model = random_7b(ops, device, torch.bfloat16) if device.type == "cuda" else bundled
    table = Table("rows", "step ms", "step ms with a form", "speed with a form")
    rows = [measure_speed(model, num_rows, steps=options.steps) for num_rows in options.batch]
    for row in rows:
        cells = (f"{row[name]:.3f}" for name in ("step_ms", "held_step_ms", "speed"))
        table.add(str(row["rows"]), *cells)
    validity = measure_validity(bundled, options.forms)
    table.add(
        f"{validity['forms']} forms",
        f"{validity['tokens']} tokens",
        "",
        f"{validity['valid']} of {validity['ended']} ended replies valid",
    )
    result = {"benchmark": "forms", "rows": rows, "validity": validity}
    finish("Forms of replies", about("forms", device, ops), table, result, options.save)


if __name__ == "__main__":
    main()
