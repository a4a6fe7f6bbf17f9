"""The conversations of the page, their owners, and the replies being written.

It knows no component. `sessions` holds the conversations of all pages under signed `session_ids`;
`session` is one, with its `tree` of messages or its `document`. `begin_turn` starts a reply, `turn`
is a reply in progress for all pages that watch it, and `reply` holds its text and figures.

Where it lasts: `kept` lists and opens the conversations of the library, `shelf` and `recording`
write one, `exact_ids` keeps its ids, `browser_copy` is the copy in the visitor's browser, and
`memory_file` the conversation with its state as one file, of whose figures `sound_facts` keeps what
can be true.
"""
