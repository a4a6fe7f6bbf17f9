"""What one update of the page costs the server, by the length of the conversation.

    python -m benchmarks.page [--updates 300]

A reply grows by one word an update behind conversations of 0 to 400 messages, through Gradio's own
way from a handler's yield to the bytes of the diff. Prints a table, and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import gradio as gr
import orjson
from gradio.state_holder import SessionState

from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import Accepted, Message, ServiceStats, TextDelta
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from falcon_mamba_app.ui.conversation.reply import Reply
from falcon_mamba_app.ui.conversation.sessions import Session, Sessions
from falcon_mamba_app.ui.conversation.tree import Tree
from falcon_mamba_app.ui.page import build_page
from falcon_mamba_app.ui.view.messages import shown_conversation
from falcon_mamba_app.ui.view.panel import Figures, shown_panel
from falcon_mamba_app.ui.view.updates import Update, reply_status

MESSAGE = "A message of a usual length, with some `code` and a list of three things in it. " * 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over all updates, CPU of this process."""

    num_messages: int
    text_ms: float  # an update of text and status
    panel_ms: float  # the same with the side panel, due three times a second
    diff_bytes: float


async def measure(
    page: gr.Blocks, stats: ServiceStats, num_messages: int, num_updates: int
) -> Cost:
    """Feed updates of a growing reply through postprocessing and diffing."""
    send = next(fn for fn in page.fns.values() if fn.name == "send")
    roles = ("user", "assistant")
    session = Session("benchmark", 0.0)
    session.tree = Tree(Message(roles[i % 2], MESSAGE) for i in range(num_messages))  # type: ignore[arg-type]
    reply = Reply(meter=ReplyMeter(started_s=0.0))
    reply.apply(Accepted(1_000, 900), now_s=0.0)
    costs: dict[bool, list[float]] = {False: [], True: []}
    sizes = []
    state = SessionState(page)
    for step in range(1, num_updates + 1):
        reply.apply(TextDelta(" word", step), now_s=step / 12)
        with_panel = step % 4 == 0
        started = time.process_time()
        update = Update(
            transcript=shown_conversation(session) if step == 1 else gr.skip(),
            growing=reply.text,
            status=reply_status(reply),
            panel=shown_panel(Figures.of(stats, reply)) if with_panel else gr.skip(),
        )
        data = await page.postprocess_data(send, list(update), state)
        page.handle_streaming_diffs(send, data, "session", "run", final=False)
        sizes.append(len(orjson.dumps(data)) if step > 1 else 0)
        costs[with_panel].append(1_000 * (time.process_time() - started))
    return Cost(
        num_messages,
        statistics.median(costs[False][1:]),
        statistics.median(costs[True]),
        statistics.median(sizes[1:]),
    )


async def measure_all(num_updates: int) -> list[Cost]:
    """The costs of the page over the bundled model, at several lengths of a conversation."""
    service = build_local(ModelSettings(model="nano", device="cpu"), EngineSettings())
    await service.start()
    try:
        page, _ = build_page(service, Sessions(service.forget))
        costs = []
        for num_messages in (0, 20, 100, 400):
            costs.append(await measure(page, service.stats(), num_messages, num_updates))
            cost = costs[-1]
            figures = f"{cost.text_ms:9.2f} {cost.panel_ms:15.2f} {cost.diff_bytes:12.0f}"
            print(f"{cost.num_messages:8} {figures}")
        return costs
    finally:
        await service.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300)
    num_updates = parser.parse_args().updates
    print("messages   text ms   with panel ms   bytes sent")
    costs = asyncio.run(measure_all(num_updates))
    by_length = {cost.num_messages: round(cost.text_ms, 2) for cost in costs}
    print(json.dumps({"benchmark": "page", "cpu_ms_per_update": by_length}))


if __name__ == "__main__":
    main()
