"""The conversations of the page, their owners, and the replies being written.

It knows no component. `sessions` holds the conversations of all pages. `begin_turn` starts a reply,
`turn` is a reply in progress for all pages that watch it, `reply` holds its text and figures, and
`browser_copy` is the copy in the visitor's browser.
"""
