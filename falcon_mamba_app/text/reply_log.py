"""The ids of generated replies, kept beside their sessions.

A reply that is sent back as text may be tokenised into other ids than the model wrote; the state
that has read the model's ids would then be of no use. Here the ids wait until their conversation
comes back. It does not know templates; it compares ids by hash and leaves texts to the caller.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """`text_ends[i]` is how many characters of the reply are complete after `token_ids[i]`."""

    prompt_digest: bytes
    token_ids: array[int]
    text_ends: array[int]


class PromptDigest:
    """A hash of ids that can be extended, so that every turn's prompt costs only its own ids."""

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.extend(token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        self._hash.update(array("Q", token_ids).tobytes())

    def value(self) -> bytes:
        return self._hash.digest()


class ReplyLog:
    """Replies by session and prompt, within limits; what was not used for longest goes first.

    Safe to call from several threads.
    """

    def __init__(self, *, max_sessions: int = 4_096, max_tokens: int = 4_000_000) -> None:
        self._max_sessions, self._max_tokens = max_sessions, max_tokens
        self._sessions: OrderedDict[str, list[RecordedReply]] = OrderedDict()
        self._num_tokens = 0
        self._lock = threading.Lock()

    @property
    def num_tokens(self) -> int:
        """Of all recorded replies."""
        return self._num_tokens

    def record(
        self,
        session_id: str,
        prompt_ids: Sequence[int],
        reply_ids: Sequence[int],
        text_ends: Sequence[int],
    ) -> None:
        """Keep what the model wrote after exactly these prompt ids."""
        assert len(reply_ids) == len(text_ends), f"{len(reply_ids)=} {len(text_ends)=}"
        if not reply_ids:
            return
        digest = PromptDigest(prompt_ids).value()
        reply = RecordedReply(digest, array("I", reply_ids), array("I", text_ends))
        with self._lock:
            self._sessions.setdefault(session_id, []).append(reply)
            self._sessions.move_to_end(session_id)
            self._num_tokens += len(reply_ids)
            self._evict()

    def find(self, session_id: str, prompt_digest: bytes) -> list[RecordedReply]:
        """The session's replies to that prompt, newest first: one for each retry."""
        with self._lock:
            replies = self._sessions.get(session_id)
            if replies is None:
                return []
            self._sessions.move_to_end(session_id)
            return [reply for reply in reversed(replies) if reply.prompt_digest == prompt_digest]

    def export(self, session_id: str) -> list[dict[str, Any]]:
        """The session's replies as JSON data, oldest first."""
        with self._lock:
            return [
                {
                    "prompt_digest": reply.prompt_digest.hex(),
                    "token_ids": reply.token_ids.tolist(),
                    "text_ends": reply.text_ends.tolist(),
                }
                for reply in self._sessions.get(session_id, [])
            ]

    def restore(self, session_id: str, replies: Any) -> None:
        """Take in what `export` gave, in place of what is known of the session.

        Raises InvalidRequest where the data is not of that form.
        """
        try:
            restored = [
                RecordedReply(
                    bytes.fromhex(reply["prompt_digest"]),
                    array("I", reply["token_ids"]),
                    array("I", reply["text_ends"]),
                )
                for reply in replies
            ]
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise InvalidRequest(f"the recorded replies are damaged: {error!r}") from None
        if any(len(reply.token_ids) != len(reply.text_ends) for reply in restored):
            raise InvalidRequest("the recorded replies are damaged: their lengths differ")
        self.forget(session_id)
        with self._lock:
            self._sessions[session_id] = restored
            self._num_tokens += sum(len(reply.token_ids) for reply in restored)
            self._evict()

    def forget(self, session_id: str) -> None:
        """Drop the session's replies; an unknown session is no error."""
        with self._lock:
            for reply in self._sessions.pop(session_id, []):
                self._num_tokens -= len(reply.token_ids)

    def _evict(self) -> None:
        """Whole sessions first; of the last one left, its oldest replies."""
        while len(self._sessions) > self._max_sessions or (
            self._num_tokens > self._max_tokens and len(self._sessions) > 1
        ):
            _, replies = self._sessions.popitem(last=False)
            self._num_tokens -= sum(len(reply.token_ids) for reply in replies)
        while self._num_tokens > self._max_tokens:
            (replies,) = self._sessions.values()
            self._num_tokens -= len(replies.pop(0).token_ids)
            if not replies:
                self._sessions.clear()
