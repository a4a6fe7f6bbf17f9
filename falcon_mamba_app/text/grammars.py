"""Compiles a reply's form to a matcher, which says after each token which tokens may come next.

llguidance parses and matches; it never looks a schema's remote reference up. A grammar is parsed
lazily, so it costs milliseconds to take. All of its work is bounded by counts, never by a clock, so
that the same form is taken on every machine.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from llguidance import (
    LLMatcher,
    LLParserLimits,
    LLTokenizer,
    TokenizerWrapper,
    regex_to_lark,
)
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ChoiceForm, Form, GrammarForm, JsonForm, RegexForm
from falcon_mamba_app.text.form_limits import refuse_too_large
from falcon_mamba_app.text.vocabulary import Vocabulary

# Without optional white space: a model that is unsure may write it without end.
JSON_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# What one mask may cost: 50,000 steps of the lexer take 4 ms, 40,000 items of the parser 2 ms.
LIMITS = LLParserLimits(
    max_items_in_row=2_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=50_000,
    step_max_items=40_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
GBNF = re.compile(r"^\s*[A-Za-z][\w-]*\s*::=", re.MULTILINE)  # a rule as only GBNF writes it
NUM_KEPT = 32  # compiled grammars of the newest forms
NUM_TRIED = 8  # tokens by which a grammar is tried before it is taken
REASONS = {
    "NoExtension": "no text has this form",
    "NoExtensionBias": "no text has this form",
    "ParserTooComplex": "it is too complicated at this place",
    "LexerTooComplex": "it is too complicated at this place",
}
# A pattern is matched as a whole, so anchors at its ends say nothing more.
ANCHORS = re.compile(r"^\^|(?<!\\)((?:\\\\)*)\$$")


class Matcher:
    """Follows one reply. Neither method raises anything but InvalidRequest."""

    def __init__(self, state: LLMatcher, form: Form) -> None:
        self._state, self.form = state, form

    def allowed(self) -> bytes:
        """A bit for each token that may come next, the lowest bit of each byte first.

        After the whole form only ends of text are allowed.
        """
        mask = self._state.compute_bitmask()
        self._refuse_fault()
        return mask

    def advance(self, token_id: int) -> None:
        """The reply has gone on with an allowed token."""
        self._state.consume_token(token_id)
        self._refuse_fault()

    def _refuse_fault(self) -> None:
        if self._state.is_error():
            raise _refusal(self.form, _in_words(self._state.get_error()))


class Grammars:
    """Matchers for one model's tokens. Safe to call from threads."""

    def __init__(
        self, vocabulary: Vocabulary, *, vocab_size: int, eos_token_ids: Collection[int]
    ) -> None:
        """`vocab_size` is the model's. `eos_token_ids` may end a reply."""
        self.vocabulary, self._vocab_size = vocabulary, vocab_size
        self._eos_token_ids = sorted(i for i in eos_token_ids if i < vocab_size)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Form, LLMatcher] = OrderedDict()

    def matcher(self, form: Form) -> Matcher:
        """A matcher at the reply's beginning. Raises InvalidRequest for a form that is no valid
        one, is too large, or matches no text.
        """
        if not self._eos_token_ids:
            raise InvalidRequest(
                "this model has no token that ends a text, so no reply can be held to a form",
                param=param_of(form),
            )
        with self._lock:
            if form not in self._compiled:
                self._compiled[form] = self._compile(form)
            self._compiled.move_to_end(form)
            while len(self._compiled) > NUM_KEPT:
                self._compiled.popitem(last=False)
            return Matcher(self._compiled[form].deep_copy(), form)

    def _compile(self, form: Form) -> LLMatcher:
        refuse_too_large(form)
        self._tokenizer = self._tokenizer or self._make_tokenizer()
        try:
            compiled = LLMatcher(self._tokenizer, _grammar(form), log_level=0, limits=LIMITS)
        except ValueError as error:
            raise _refusal(form, _in_words(str(error))) from None
        if compiled.is_error():
            raise _refusal(form, _in_words(compiled.get_error()))
        self._try(Matcher(compiled.deep_copy(), form))
        return compiled

    def _try(self, matcher: Matcher) -> None:
        """Write a few tokens: a form that is too complicated mostly shows it at once."""
        for _ in range(NUM_TRIED):
            allowed = matcher.allowed()
            place = next((place for place, byte in enumerate(allowed) if byte), None)
            if place is None:
                raise _refusal(matcher.form, "no text has this form")
            token_id = 8 * place + (allowed[place] & -allowed[place]).bit_length() - 1
            if token_id in self._eos_token_ids:
                return
            matcher.advance(token_id)

    def _make_tokenizer(self) -> LLTokenizer:
        return LLTokenizer(
            TokenizerWrapper(_Tokens(self.vocabulary, self._vocab_size, self._eos_token_ids)),
            n_vocab=self._vocab_size,
            eos_token=self._eos_token_ids,
        )


class _Tokens:
    """The tokens as llguidance asks for them. Tokens that show nothing are never allowed."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, vocab_size: int, eos_token_ids: list[int]) -> None:
        ids = range(vocab_size)
        self.tokens = [vocabulary.token_bytes(token_id) for token_id in ids]
        invisible = {token_id for token_id in ids if not vocabulary.visible_bytes(token_id)}
        self.special_token_ids = sorted(invisible | set(eos_token_ids))
        self.eos_token_id = eos_token_ids[0]
        self._vocabulary = vocabulary

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.encode(text.decode("utf-8", "replace"))


def param_of(form: Form) -> str:
    """The field of a request that names the form."""
    if isinstance(form, GrammarForm):
        return form.param
    return "response_format" if isinstance(form, JsonForm) else "structured_outputs"


def _grammar(form: Form) -> str:
    """The form as llguidance reads it. May raise ValueError."""
    match form:
        case JsonForm():
            options: Any = {**JSON_OPTIONS, "lenient": form.is_lenient}
            return LLMatcher.grammar_from_json_schema(form.schema, overrides=options)
        case RegexForm():
            pattern = ANCHORS.sub(r"\1", form.pattern)
            # \d and \w are ASCII, as in JSON Schema: what else they hold differs by dialect.
            lark = f"start: /{regex_to_lark(pattern, use_ascii='dw')}/"
            return LLMatcher.grammar_from_lark(lark if pattern else 'start: ""')
        case ChoiceForm():
            choices = " | ".join(map(_quoted, form.choices))
            return LLMatcher.grammar_from_lark(f"start: {choices}")
        case GrammarForm():
            grammar = form.grammar
            return LLMatcher.grammar_from_lark(_lark(grammar) if GBNF.search(grammar) else grammar)


def _lark(grammar: str) -> str:
    """A grammar in GBNF as Lark writes it. Raises ValueError."""
    try:
        lark: str = gbnf_to_lark(grammar)
    except (GbnfToLarkError, RecursionError) as error:
        raise ValueError(str(error) or "its rules lie too deep within each other") from error
    return lark


def _quoted(choice: str) -> str:
    return json.dumps(choice, ensure_ascii=False)


def _in_words(reason: str) -> str:
    """llguidance's words for a fault, on one line, without its parser's state."""
    line = " ".join(reason.partition("\n<state>")[0].replace("<non-verbose/>", "").split())
    return REASONS.get(line, line)[:300]


def _refusal(form: Form, reason: str) -> InvalidRequest:
    kind = {
        JsonForm: "JSON Schema",
        RegexForm: "pattern",
        ChoiceForm: "list of choices",
        GrammarForm: "grammar",
    }[type(form)]
    return InvalidRequest(f"no reply can be held to this {kind}: {reason}", param=param_of(form))
