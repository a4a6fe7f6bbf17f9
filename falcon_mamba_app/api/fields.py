"""Removes fields without effect from a body before it is checked.

Clients of OpenAI's API send more than their users asked for: nulls, explicit defaults, hints for
other servers. A value without effect passes, in every field, known or not. A value that asks for a
feature which this server lacks is refused; the error has the field's full path, the sent value and
the allowed ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.errors import InvalidRequest, NotSupported

MAX_SHOWN = 80  # characters of the user's own words in a sentence about them

# A field's values without effect; a type stands for all of its values.
Table = Mapping[str, tuple[object, ...]]

ANY_TEXT, ANY_BOOL, ANY_OBJECT, ANY_LIST = (str,), (bool,), (dict,), (list,)
ANY_NUMBER = (int, float)

# Fields of OpenAI's API: features that this server lacks, and hints that change no reply.
OPENAI_FIELDS: Table = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": ANY_BOOL,
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": ANY_OBJECT,  # a guess that may speed a reply up
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "moderation": (),
    "suffix": ("",),
    "service_tier": ANY_TEXT,
    "prompt_cache_retention": ANY_TEXT,
    "prompt_cache_options": ANY_OBJECT,
}
# Fields of vLLM, llama.cpp, TGI, Ollama and their clients.
LOCAL_FIELDS: Table = {
    "id_slot": ANY_NUMBER,
    "keep_alive": (str, int, float),
    "request_id": ANY_TEXT,
    "priority": (0,),
    "spaces_between_special_tokens": ANY_BOOL,
    "include_stop_str_in_output": (False,),
    "detokenize": (True,),
    "truncate_prompt_tokens": (-1,),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "add_special_tokens": ANY_BOOL,
    "chat_template_kwargs": ({},),
    "chat_template": ("",),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "include_reasoning": ANY_BOOL,
    "separate_reasoning": ANY_BOOL,
    "think": (False,),
    "n_keep": (0, -1),
    "n_probs": (0,),
    "min_keep": (0,),
    "repeat_last_n": (-1,),
    "penalize_nl": (False,),
    "t_max_predict_ms": (0,),
    "tfs_z": (1, 1.0),
    "mirostat": (0,),
    "mirostat_tau": ANY_NUMBER,
    "mirostat_eta": ANY_NUMBER,
    "dynatemp_range": (0, 0.0),
    "dynatemp_exponent": ANY_NUMBER,
    "dry_multiplier": (0, 0.0),
    "dry_base": ANY_NUMBER,
    "dry_allowed_length": ANY_NUMBER,
    "dry_penalty_last_n": ANY_NUMBER,
    "dry_sequence_breakers": ANY_LIST,
    "logprobs_mode": ("raw_logprobs",),
}
MESSAGE_FIELDS: Table = {
    "name": ANY_TEXT,
    "tool_calls": ([],),
    "tool_call_id": ("",),
    "function_call": (),
    "refusal": ("",),
    "audio": (),
    "annotations": ANY_LIST,
    "reasoning": ANY_TEXT,  # no template shows a model its earlier thoughts
    "reasoning_content": ANY_TEXT,
    "reasoning_details": ANY_LIST,
    "cache_control": ANY_OBJECT,
    "prefix": (False,),
}
PART_FIELDS: Table = {
    "annotations": ANY_LIST,
    "cache_control": ANY_OBJECT,
    "prompt_cache_breakpoint": (bool, dict),
}
REASONS = {
    "suffix": "the model reads from left to right and cannot write towards a text that follows",
    "tools": "functions are called at /v1/chat/completions and /v1/messages only",
    "chat_template": "no program of a caller's is run; chat_template_kwargs is read",
    "reasoning_effort": "the model does not reason before it answers",
    "audio": "the model reads and writes text",
    "modalities": "the model reads and writes text",
}
TYPE_NAMES: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
}


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Removes fields without effect from an object. `own` are the names that are read later."""

    table: Table
    own: Collection[str]

    def clean(self, value: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Raises NotSupported for a field of the table with another value, InvalidRequest for an
        unknown one that asks for something.
        """
        kept = {}
        for name, entry in value.items():
            if entry is None:
                continue
            if name in self.own:
                kept[name] = entry
            elif name in self.table:
                self._refuse_unless_neutral(name, entry, path)
            elif not _is_empty(entry):
                raise unknown_field(path + name, self.own)
        return kept

    def _refuse_unless_neutral(self, name: str, value: Any, path: str) -> None:
        neutral = self.table[name]
        if any(_is_same(value, allowed) for allowed in neutral):
            return
        allowed = " or ".join(TYPE_NAMES[a] if isinstance(a, type) else shown(a) for a in neutral)
        reason = f", since {REASONS[name]}" if name in REASONS else ""
        raise NotSupported(
            f"{path}{name} is {shown(value)}, which this server does not support{reason};"
            f" leave it out{f' or send {allowed}' if allowed else ''}",
            param=path + name,
        )


# What names of kinds of content mean, in OpenAI's API, Anthropic's and other servers'.
OTHER_CONTENT = (
    *(("image", "images"), ("audio", "sound"), ("video", "video"), ("screenshot", "images")),
    *(("file", "files"), ("document", "files"), ("container", "files")),
)
BY_BOOK = ". The words of a file can be sent as text, or be read once as a book (POST /v1/books)"


def unknown_field(path: str, known: Collection[str]) -> InvalidRequest:
    """The refusal of an unknown field, with the name that was probably meant."""
    # Imported here, because only mistakes need it.
    from difflib import get_close_matches

    place = path if len(path) <= MAX_SHOWN else path[:MAX_SHOWN] + "…"
    near = get_close_matches(place.rpartition(".")[2], known, n=1)
    hint = f"did you mean {near[0]}?" if near else "leave it out"
    return InvalidRequest(f"unknown field {place}; {hint}", param=place)


def no_text(kind: Any, where: str, reads: str) -> NotSupported:
    """The refusal of content of another kind than text; `reads` is what is read there."""
    name = kind if isinstance(kind, str) else ""
    what = next((told for word, told in OTHER_CONTENT if word in name), "")
    return NotSupported(
        f"{where} is {shown(kind)}; the model reads text{f', and no {what}' if what else ''}:"
        f" send {reads}{BY_BOOK if what == 'files' else ''}",
        param=where,
    )


def shown(value: Any) -> str:
    """The beginning of a value as JSON, for a sentence about it."""
    if isinstance(value, dict | list) and len(value) > MAX_SHOWN:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    text = json.dumps(value[:MAX_SHOWN] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _is_same(value: object, neutral: object) -> bool:
    """Equal and of one type: 1 is not True. A type is the same as all of its values."""
    return type(value) is neutral or (type(value) is type(neutral) and value == neutral)


def _is_empty(value: object) -> bool:
    """Whether an unknown field has no effect: false, "", [] or {}; 0 may be a meant value."""
    return value is False or (isinstance(value, str | list | dict) and not value)
