"""Text to token ids and back.

It knows no tensor, no state and no HTTP. To ids: `chat` encodes every kind of prompt, after
`checks`, with `template` (the checkpoint's), `turns` and `turn_ends` (where turns begin and end),
`markup` (its special tokens), `slices` and `borders` (texts of any length, read only as far as
needed) and `id_builder`; `plain_text` encodes texts without a template. `reply_log` and
`plain_prompts` keep the ids of a session's texts; `shared_start` finds equal beginnings of prompts.
To text: `vocabulary` holds the bytes of each token, `detokenizer` converts ids to text, and
`stop_strings` ends it. `tokens` is both directions for callers. `grammars` says which tokens may
come next in a reply that is held to a form; `form_limits` bounds forms.
"""
