"""Text to token ids and back.

It knows no tensor, no state and no HTTP. Inwards: `chat` encodes every kind of prompt, by
`template` (the checkpoint's), `markup` (its special tokens), `slices` and `borders` (texts of any
length, no further than needed) and `id_builder`; `reply_log` and `plain_prompts` keep the ids that
a session's text had, `shared_start` finds where prompts begin alike. Outwards: `vocabulary` is the
bytes of each token, `detokenizer` makes text of ids, and `stop_strings` ends it.
"""
