"""How tokens and their log-probabilities are told: in OpenAI's shapes, by texts or by ids.

It knows tokens and JSON values, no events and no HTTP.
"""

from __future__ import annotations

from typing import Any

from falcon_mamba_app.protocol import TokenLogprob

Json = dict[str, Any]


def chat_logprob(token: TokenLogprob, *, with_top: bool, by_id: bool = False) -> Json:
    """One token of a chat's reply; `by_id` names it as vLLM's return_tokens_as_token_ids does."""
    name = _id_name(token) if by_id else token.token
    shape: Json = {"token": name, "logprob": token.logprob, "bytes": list(token.token_bytes)}
    if with_top:
        top = [chat_logprob(other, with_top=False, by_id=by_id) for other in token.top]
        shape["top_logprobs"] = top
    return shape


def completion_logprobs(
    tokens: tuple[TokenLogprob, ...], offsets: list[int], num_top: int, *, by_id: bool = False
) -> Json:
    """Tokens of a completion with `num_top` alternatives each."""
    return {
        "tokens": [_name(token, by_id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_top(token, num_top, by_id) for token in tokens],
        "text_offset": offsets,
    }


def _id_name(token: TokenLogprob) -> str:
    assert token.token_id is not None, "ids were asked of a server that does not tell them"
    return f"token_id:{token.token_id}"


def _name(token: TokenLogprob, by_id: bool) -> str:
    """The token's text, or OpenAI's "bytes:\\xe2\\x80" where its bytes alone are no text."""
    if by_id:
        return _id_name(token)
    try:
        token.token_bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.token_bytes)
    return token.token


def _top(token: TokenLogprob, num_top: int, by_id: bool) -> dict[str, float | None] | None:
    """Alternatives by name, the token itself among them; None for the first of a prompt."""
    if token.logprob is None:
        return None
    top: dict[str, float | None] = {_name(token, by_id): token.logprob}
    for other in token.top[:num_top]:
        top.setdefault(_name(other, by_id), other.logprob)
    return top
