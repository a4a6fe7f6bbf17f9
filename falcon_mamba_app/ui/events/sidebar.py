"""The list of kept conversations: shown, searched, opened, named, pinned, archived, deleted.

Every question names its owner, and the library answers with theirs alone. Where nothing is kept the
list says so, and the page goes on with one conversation.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError, NotFound
from falcon_mamba_app.library import ConversationRecord
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.conversation.shelf import title_of
from falcon_mamba_app.ui.events.arrival import Arrival
from falcon_mamba_app.ui.events.chat_and_document import Updates, claim, page_of, streams
from falcon_mamba_app.ui.events.everything import Everything
from falcon_mamba_app.ui.events.questions import Answer, answers, asked_of
from falcon_mamba_app.ui.events.titles import Titles
from falcon_mamba_app.ui.view.updates import Update, status_html

SHOWN = 200  # conversations in the list; a search finds the others
FOUND = 50
MAX_WORDS_CHARS = 200
MAX_TITLE_CHARS = 120


class Sidebar:
    """`look` asks for the list, `amend` changes an entry of it, `open` shows a conversation."""

    def __init__(
        self, sessions: Sessions, arrival: Arrival, titles: Titles, everything: Everything
    ) -> None:
        self.sessions, self._arrival, self._titles = sessions, arrival, titles
        self._everything = everything

    @answers
    async def look(self, data: gr.EventData, request: gr.Request) -> Answer:
        """The list, or what a search finds."""
        return await self._shown(request, asked_of(data))

    @answers
    async def amend(self, data: gr.EventData, request: gr.Request) -> Answer:
        """Rename, pin, archive or delete an entry; the list as it is then."""
        asked = asked_of(data)
        kept, owner = self.sessions.kept, self.sessions.kept.owner_of(request)
        entry, text = asked.get("id"), asked.get("text")
        if asked.get("op") == "delete everything":
            return await self._delete_everything(request)
        if owner is None or not isinstance(entry, str):
            return await self._shown(request, asked)
        try:
            match asked.get("op"):
                case "rename" if isinstance(text, str) and text.strip():
                    await kept.rename(owner, entry, " ".join(text.split())[:MAX_TITLE_CHARS])
                case "pin" | "unpin" as op:
                    await kept.pin(owner, entry, op == "pin")
                case "archive" | "unarchive" as op:
                    await kept.archive(owner, entry, op == "archive")
                case "move" if isinstance(text, str):
                    await kept.move(owner, entry, " ".join(text.split())[:MAX_TITLE_CHARS])
                case "title":
                    await self._give_title(owner, request)
                case "delete":
                    with suppress(NotFound):  # by another page, or by the API
                        await kept.delete(owner, entry)
        except FalconMambaError as error:
            return {**await self._shown(request, asked), "problem": sentence_for(error)}
        return await self._shown(request, asked)

    async def _delete_everything(self, request: gr.Request) -> Answer:
        """`isGone` lets the browser delete its part, and open the page anew."""
        try:
            await self._everything.delete(request)
        except FalconMambaError as error:
            return {**await self._shown(request, {}), "problem": sentence_for(error)}
        return {**await self._shown(request, {}), "isGone": True}

    async def _give_title(self, owner: str, request: gr.Request) -> None:
        """Ask the model, unless somebody has named the conversation."""
        session = self.sessions.shown_by(page_of(request))
        if session is None or not self.sessions.has_kept(session.id, owner):
            return
        if not self._titles.is_wanted(session):
            return
        first_words = title_of(session.tree.roots[0].message.content)
        title = await self._titles.title_for(session)
        record = await self.sessions.kept.record(owner, session.id)
        if title is not None and record.title == first_words:
            await self.sessions.kept.rename(owner, session.id, title)

    @streams
    def open(self, data: gr.EventData, request: gr.Request) -> Updates:
        """Show a kept conversation on this page, and the reply being written in it."""
        return self._open(str(asked_of(data).get("id")), request)

    async def _open(self, conversation_id: str, request: gr.Request) -> Updates:
        page, owner = page_of(request), self.sessions.kept.owner_of(request)
        self.sessions.known(page)
        await self.sessions.fetch(conversation_id, owner)
        if not self.sessions.is_open_to(conversation_id, owner):
            gone = "This conversation is no longer kept here"
            yield Update(status=status_html(gone, phase="failed"))
            return
        session, _ = self.sessions.resume(page, conversation_id, owner)
        claim(self.sessions, session, request)
        async for update in self._arrival.changed_to(page, session):
            yield update

    async def _shown(self, request: gr.Request, asked: Answer) -> Answer:
        words = asked.get("words")
        words = words if isinstance(words, str) else ""
        kept, owner = self.sessions.kept, self.sessions.kept.owner_of(request)
        session = self.sessions.shown_by(page_of(request))
        if session is not None:
            claim(self.sessions, session, request)
        shown: Answer = {"notice": kept.notice, "isKept": owner is not None}
        shown |= {"current": session.id if session else "", "words": words, "items": []}
        if owner is None:
            return shown
        try:
            if words.strip():
                hits = await kept.search(owner, words[:MAX_WORDS_CHARS], limit=FOUND)
                items = [{**_item(hit.conversation), "excerpt": hit.excerpt} for hit in hits]
            else:
                for is_archived in (False, True):
                    page = await kept.list(owner, limit=SHOWN, is_archived=is_archived)
                    shown["items"] += [_item(record) for record in page.conversations]
                items = shown["items"]
            tokens = await kept.context_tokens(owner, [item["id"] for item in items])
        except FalconMambaError as error:
            return {**shown, "problem": sentence_for(error)}
        shown["untitled"] = session is not None and self._titles.is_wanted(session)
        writing = self.sessions.writing()
        shown["items"] = [
            {**item, "tokens": tokens.get(item["id"]), "busy": item["id"] in writing}
            for item in items
        ]
        return shown


def _item(record: ConversationRecord) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": record.id,
        "title": record.title or "Untitled",
        "messages": record.num_messages,
        "at": round(record.updated_s),
    }
    flags = {"pinned": record.is_pinned, "archived": record.is_archived}
    return (
        item
        | {name: True for name, is_on in flags.items() if is_on}
        | ({"folder": record.folder} if record.folder else {})
    )
