"""A model in this process: text ⇄ token ids, asyncio ⇄ the engine's thread.

It knows no HTTP and no page. `build` composes a service from the settings; `startup` loads the
model and tells how far it is; `prompts` and `encoding` make ids of prompts, `service` hands them to
the engine, `stream` makes a reply's events of what comes back, and `counters` counts.
"""
