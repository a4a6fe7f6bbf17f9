"""A model in this process: text ⇄ token ids, asyncio ⇄ the engine's thread.

It knows no HTTP and no page. `build` composes a service from the settings. `startup` loads the
model and reports its progress. `prompts` and `encoding` convert prompts to ids, `room` says how
much memory that may take, `refusals` knows the limits, `matching` compiles the forms of replies.
`service` hands all of it to the engine, `stream` converts the engine's events to a reply's, and
`counters` counts, with `reading_speed`.

Idle states: `kept_states` finds them in memory and in a store, on threads of `background`, with
`break_even` to say when a fetch pays and `codec` for their bytes. `looking` reads one, and
`inspecting` measures what it holds.
"""
