"""The vocabulary that every layer shares, and the one service that the page and the API talk to.

Requests go down, typed events come up. This module knows no text processing, no tensors and no
HTTP; it imports nothing but the standard library and the errors, so that the page and the API can
be imported without torch. The kinds of a prompt are from `prompts`, the events from `events`, the
forms of a reply from `forms`, what a look into a state finds from `inspection`.

Order of the events of one request:

    Waiting*  Accepted  PrefillProgress*  PromptScored?  TextDelta*  Finished

The last event is always `Finished`, or an error from `errors` is raised.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.events import Accepted as Accepted
from falcon_mamba_app.events import Finished as Finished
from falcon_mamba_app.events import FinishReason as FinishReason
from falcon_mamba_app.events import GenerationEvent as GenerationEvent
from falcon_mamba_app.events import PrefillProgress as PrefillProgress
from falcon_mamba_app.events import PromptScored as PromptScored
from falcon_mamba_app.events import TextDelta as TextDelta
from falcon_mamba_app.events import TokenLogprob as TokenLogprob
from falcon_mamba_app.events import Waiting as Waiting
from falcon_mamba_app.forms import ChoiceForm as ChoiceForm
from falcon_mamba_app.forms import Form as Form
from falcon_mamba_app.forms import GrammarForm as GrammarForm
from falcon_mamba_app.forms import JsonForm as JsonForm
from falcon_mamba_app.forms import RegexForm as RegexForm
from falcon_mamba_app.inspection import StateInspection as StateInspection
from falcon_mamba_app.inspection import StateLook as StateLook
from falcon_mamba_app.prompts import Continuation as Continuation
from falcon_mamba_app.prompts import Conversation as Conversation
from falcon_mamba_app.prompts import Message as Message
from falcon_mamba_app.prompts import Prompt as Prompt
from falcon_mamba_app.prompts import Text as Text
from falcon_mamba_app.prompts import TokenIds as TokenIds
from falcon_mamba_app.prompts import Tokenizer as Tokenizer
from falcon_mamba_app.ranges import check_integer, check_range

ServiceStatus = Literal["loading", "ready", "failed"]

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1_000
MAX_LOGPROBS = 20
BACKGROUND_WEIGHT = 1e-6  # of work behind everybody's; requests of people have 0.01 and more
MAX_TOKENS_NAMED = 1_024  # in logit_bias and in stop_token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose the next token, and when to stop. Raises InvalidRequest for what is not
    allowed.

    Order of application: penalties on the logits, temperature, then top_k, top_p, min_p,
    top_n_sigma, typical_p and XTC, each on what those before it left, then one draw.
    """

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 keeps every token
    top_p: float = 1.0
    min_p: float = 0.0  # relative to the most likely token's probability
    top_n_sigma: float = 0.0  # standard deviations of the logits below the best; 0 keeps all
    typical_p: float = 1.0  # the mass kept, of the tokens with the most typical surprise
    # How often all tokens of at least the threshold are dropped but the least likely of them.
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    # Divides (or multiplies) the logits of tokens in prompt or reply; CTRL, 1909.05858.
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0  # subtracted once from tokens already in the reply
    frequency_penalty: float = 0.0  # subtracted per occurrence in the reply
    seed: int | None = None  # None draws a fresh one
    stop: tuple[str, ...] = ()  # the reply ends before the first of these
    max_new_tokens: int = 512
    ignore_eos: bool = False
    min_tokens: int = 0  # before these no end of text and none of the stop_token_ids is chosen
    stop_token_ids: tuple[int, ...] = ()  # the reply ends at the first of these, unseen
    logit_bias: tuple[tuple[int, float], ...] = ()  # added to the logits of tokens
    skip_special_tokens: bool = True  # in the reply's text; its end is never shown
    logprobs: int | None = None  # alternatives told beside each chosen token; None: nothing told

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0.0, 10.0)
        check_integer("top_k", self.top_k, 0, 2**31 - 1)
        check_range("top_p", self.top_p, 0.0, 1.0, low_is_open=True)
        check_range("min_p", self.min_p, 0.0, 1.0)
        check_range("top_n_sigma", self.top_n_sigma, 0.0, 100.0)
        check_range("typical_p", self.typical_p, 0.0, 1.0, low_is_open=True)
        check_range("xtc_probability", self.xtc_probability, 0.0, 1.0)
        check_range("xtc_threshold", self.xtc_threshold, 0.0, 1.0)
        check_range("repetition_penalty", self.repetition_penalty, 0.01, 10.0)
        check_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_integer("max_new_tokens", self.max_new_tokens, 0, 2**31 - 1)
        if self.seed is not None:
            check_integer("seed", self.seed, -(2**63), 2**63 - 1)
        check_integer("min_tokens", self.min_tokens, 0, self.max_new_tokens)
        for token_id in self.stop_token_ids:
            check_integer("stop_token_ids", token_id, 0, 2**31 - 1)
        for token_id, bias in self.logit_bias:
            check_integer("logit_bias", token_id, 0, 2**31 - 1)
            check_range(f"logit_bias of {token_id}", bias, -100.0, 100.0)
        for name, entries in (
            ("stop_token_ids", self.stop_token_ids),
            ("logit_bias", self.logit_bias),
        ):
            if len(entries) > MAX_TOKENS_NAMED:
                raise InvalidRequest(
                    f"{name} has {len(entries)} entries; allowed are {MAX_TOKENS_NAMED}", param=name
                )
        if self.logprobs is not None:
            check_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        are_strings = all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_LENGTH for s in self.stop)
        if len(self.stop) > MAX_STOP_STRINGS or not are_strings:
            raise InvalidRequest(
                f"stop takes up to {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_LENGTH} characters",
                param="stop",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One reply to be written.

    `session_id` names the conversation whose state is carried; None carries nothing. It is a
    secret: whoever knows it can continue the conversation. `score_prompt` asks for the
    log-probabilities of the prompt's tokens, with that many alternatives each; `tells_ids` for the
    token ids of prompt and reply.

    `reuse_id`, a secret too, names a group of requests that share states, found by tokens alone.
    `begins_from` names a book, which is only begun from. One that `only_reads` gets no reply.

    `form` holds the reply to a form: then nothing else can be written, and the reply ends where the
    form does, also before `min_tokens`.

    With `keeps_state` the session's state may outlive the process, where there is a store for that.
    A request that `is_aside` begins with the session's states and leaves it as it was: it saves
    none, and its ids are not those of the conversation.
    Owners share the service evenly; a request of weight 4 takes a quarter of a share.
    """

    prompt: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    session_id: str | None = None
    keeps_state: bool = False
    is_aside: bool = False
    reuse_id: str | None = None
    begins_from: str | None = None
    only_reads: bool = False
    score_prompt: int | None = None
    tells_ids: bool = False
    form: Form | None = None
    owner: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        is_of_a_kind = isinstance(self.prompt, (Conversation, Continuation, Text, TokenIds))
        assert is_of_a_kind, f"a prompt is no {type(self.prompt).__name__}"
        if self.form is not None and self.sampling.ignore_eos:
            raise InvalidRequest(
                "a reply that is held to a form ends with it; leave out ignore_eos",
                param="ignore_eos",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is loaded. None means "not known", as for a model behind --backend-url."""

    id: str
    has_chat_template: bool  # one that can chat
    cannot_chat: str | None = None  # why it has none, in a sentence
    aliases: tuple[str, ...] = ()  # other names that mean it
    can_continue: bool = False  # whether it takes a Continuation; else the whole conversation
    is_bundled: bool = False
    family: str | None = None  # "falcon_mamba" or "mamba"
    num_parameters: int | None = None
    weights_bytes: int | None = None
    dtype: str | None = None
    device: str | None = None  # for people: "NVIDIA H100 80GB HBM3" or "CPU, 2 threads"
    kernels: str | None = None
    quantization: str | None = None
    state_bytes: int | None = None  # of one sequence, whatever its length
    kv_bytes_per_token: int | None = None  # what an attention model of this size would add
    trained_context_tokens: int | None = None
    max_prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    default_sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStats:
    """A snapshot of the service; None means "not known". Counters only grow.

    Rates are over the last few seconds, all sequences together; `reading_tokens_per_s` is of the
    prompts that were read last, however long ago. `gpu_memory_bytes`: this process's.
    """

    status: ServiceStatus
    detail: str = ""  # what is being loaded, or why the service failed
    load_progress: float | None = None  # 0…1 while loading
    model: ModelInfo | None = None
    running: int | None = None
    waiting: int | None = None
    max_running: int | None = None
    snapshots: int | None = None
    snapshot_bytes: int | None = None
    max_snapshot_bytes: int | None = None
    requests_total: int | None = None
    prompt_tokens_total: int | None = None
    reused_tokens_total: int | None = None
    completion_tokens_total: int | None = None
    draft_tokens_total: int | None = None  # looked up in what was said before
    accepted_tokens_total: int | None = None  # of them, verified
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    reading_tokens_per_s: float | None = None
    process_memory_bytes: int | None = None
    peak_process_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None


class GenerationService(Protocol):
    """All that page and API know of generation. One contract test runs over each implementation."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where another server tokenises."""
        ...

    async def start(self) -> None:
        """Load the model. Returns when ready to serve; a FalconMambaError says it never will be."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """The events of one reply. Closing the generator cancels the request and frees its slot
        within a step.

        Raises, at the first step of the iteration or later: InvalidRequest, Overloaded, NotReady,
        EngineFailure, BackendError. Nothing that one request does wrong is seen by another.
        """
        ...

    async def export_state(self, session_id: str, token_ids: Sequence[int] | None = None) -> bytes:
        """The session's newest state and the tokens it has read, as one safetensors file; with
        `token_ids` the one that has read the longest beginning of them. Raises NotFound.
        """
        ...

    async def import_state(self, session_id: str, data: bytes) -> int:
        """Give the session a state that `export_state` wrote; returns how many tokens it has read.

        Raises InvalidRequest for a file that is not ours, is damaged, or is of another model.
        """
        ...

    async def publish_state(self, session_id: str) -> int:
        """Write the session's newest state for other processes, now; its tokens, 0 without one."""
        ...

    async def pin_state(self, session_id: str, token_ids: Sequence[int]) -> int:
        """Keep the state that has read the longest beginning of these ids, where states outlive
        the process, whatever else goes; returns how many it has read, 0 if none is kept.
        """
        ...

    async def unpin_state(self, session_id: str, token_ids: Sequence[int]) -> None:
        """Let that state go with its age again."""
        ...

    async def sketch(self, session_id: str) -> str | None:
        """The picture of the session's state as it is now: rows of cells, as
        `engine/states/sketch.py` writes them; the same state has the same picture. None where
        there is no state, or no way to see it.
        """
        ...

    async def inspect_state(self, session_id: str, look: StateLook) -> StateInspection:
        """What the session's newest state holds. The turns are read again for it, on copies and
        behind everybody's replies. Raises NotFound, NotSupported, and Overloaded during another.
        """
        ...

    def forget(self, session_id: str) -> Future[bool]:
        """Drop the session's states and ids; for "caller." the stored states of every session named
        "caller.…". Returns at once and never raises: the future tells whether there was such a
        session, or holds why it could not be dropped.
        """
        ...

    def stats(self) -> ServiceStats:
        """A snapshot; cheap enough to ask four times a second per visitor."""
        ...

    async def close(self) -> None:
        """Stop generating and release the device. Open streams end with EngineFailure."""
        ...


def sampling_field_names() -> tuple[str, ...]:
    """The names of all sampling parameters, in the order of their declaration."""
    return tuple(f.name for f in fields(SamplingParams))
