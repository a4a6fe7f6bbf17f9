"""What a response begins from: the ids of what came before where they are known, else its text."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from falcon_mamba_app.api.responses.bodies import CountBody, ResponseBody
from falcon_mamba_app.api.responses.items import Item
from falcon_mamba_app.api.responses.record import CAN_GO_ON, Record
from falcon_mamba_app.api.responses.shelf import Owner, messages_of
from falcon_mamba_app.errors import Conflict, InvalidRequest, NotFound, PromptTooLong
from falcon_mamba_app.library import Claim, ConversationRecord
from falcon_mamba_app.protocol import (
    Continuation,
    Conversation,
    Message,
    ModelInfo,
    Prompt,
    Tokenizer,
)


class UnknownPrevious(InvalidRequest):
    """The response to go on from is not there, or is another owner's."""

    code = "previous_response_not_found"


class ConversationLocked(Conflict):
    """Another response of the conversation is being written."""

    code = "conversation_locked"


@dataclass(frozen=True, slots=True)
class Before:
    """What a response goes on from; nothing, where all is None."""

    conversation_id: str | None = None
    parent_id: str | None = None
    record: Record | None = None


async def before(owner: Owner, body: ResponseBody | CountBody) -> Before:
    """What came before. Raises InvalidRequest, and NotFound for a conversation."""
    library = owner.shelf.library
    if body.previous_response_id is not None:
        return await _after_response(owner, body.previous_response_id)
    if body.conversation is None:
        return Before()
    conversation = await find_conversation(owner, body.conversation)
    head_id = conversation.head_id
    if head_id is None:
        return Before(conversation.id)
    head = await library.message(owner.name, head_id)
    record = await owner.shelf.get(owner.name, head_id) if head.role == "assistant" else None
    return Before(conversation.id, head_id, record)


async def find_conversation(owner: Owner, conversation_id: str) -> ConversationRecord:
    """The owner's conversation. Raises NotFound in OpenAI's words."""
    try:
        return await owner.shelf.library.get(owner.name, conversation_id)
    except NotFound:
        raise NotFound(f"Conversation with id '{conversation_id[:80]}' not found.") from None


async def claimed(owner: Owner, conversation_id: str | None) -> Claim | None:
    """The right to write the next response of a conversation. Raises ConversationLocked."""
    if conversation_id is None:
        return None
    found = await find_conversation(owner, conversation_id)
    try:
        return await owner.shelf.library.claims.take(owner.name, found.id)
    except Conflict:
        raise ConversationLocked(
            "another response of this conversation is being written; wait for its end"
        ) from None


async def let_go(owner: Owner, claim: Claim | None) -> None:
    """The response is over."""
    if claim is not None:
        await owner.shelf.library.claims.let_go(claim)


async def _after_response(owner: Owner, response_id: str) -> Before:
    param = "previous_response_id"
    try:
        record = await owner.shelf.get(owner.name, response_id)
    except NotFound:
        raise UnknownPrevious(
            f"Previous response with id '{response_id[:80]}' not found.", param=param
        ) from None
    if record.status not in CAN_GO_ON:
        raise InvalidRequest(
            f"the response {response_id} is {record.status}; only one that has ended with words"
            " of its own can go on",
            param=param,
        )
    return Before(record.conversation_id, response_id, record)


def book_under(body: ResponseBody, earlier: Before) -> str | list[str] | None:
    """The books that the response stands on: the one before says which. Raises InvalidRequest."""
    record = earlier.record
    book = record.asked.get("book") if record is not None else None
    if earlier.parent_id is not None and body.book not in (None, book):
        raise InvalidRequest(
            "what came before does not stand on this book; begin without it, or leave book out",
            param="book",
        )
    return body.book or book


async def prompt_after(
    owner: Owner,
    earlier: Before,
    items: list[Item],
    instructions: str | None,
    *,
    model: ModelInfo,
) -> Prompt:
    """The prompt: by the ids of what came before, where the instructions are still the same."""
    new = [item.message for item in items]
    if earlier.parent_id is None:
        return Conversation([*_system(instructions), *new])
    record = earlier.record
    if (
        model.can_continue
        and record is not None
        and record.packed_ids is not None
        and record.asked.get("instructions") == instructions
    ):
        return Continuation(record.packed_ids, Conversation(new))
    return Conversation(await whole(owner, earlier, items, instructions))


async def whole(
    owner: Owner, earlier: Before, items: list[Item], instructions: str | None
) -> list[Message]:
    """All messages, each with its own ids where the model wrote it."""
    library = owner.shelf.library
    path: list[Message] = []
    if earlier.parent_id is not None and earlier.conversation_id is not None:
        found = await library.path(owner.name, earlier.conversation_id, earlier.parent_id)
        path = messages_of(found)
        if instructions is None:
            conversation = await library.get(owner.name, earlier.conversation_id)
            # A page's conversation has one system prompt; of a response it is each request's own.
            if not conversation.extra.get("is_responses"):
                instructions = conversation.system_prompt or None
    return [*_system(instructions), *path, *(item.message for item in items)]


async def fitting(messages: list[Message], tokenizer: Tokenizer | None) -> Conversation:
    """The messages without the oldest ones that do not fit. Raises PromptTooLong if none fits."""
    if tokenizer is None:
        raise PromptTooLong("the conversation is too long for the server behind --backend-url")
    kept = [message for message in messages[:1] if message.role == "system"]
    others = messages[len(kept) :]

    async def fits(num_dropped: int) -> bool:
        try:
            await asyncio.to_thread(tokenizer.encode, Conversation([*kept, *others[num_dropped:]]))
        except PromptTooLong:
            return False
        return True

    low, high = 1, len(others) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if await fits(middle) else (middle + 1, high)
    return Conversation([*kept, *others[low:]])


def _system(instructions: str | None) -> list[Message]:
    return [Message("system", instructions)] if instructions else []
