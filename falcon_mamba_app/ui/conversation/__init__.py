"""What is said on the page, to whom it belongs, and what becomes of it.

It knows no component. `sessions` are the conversations of all pages, `begin_turn` has a reply
written, `turn` is that reply for all who watch, `reply` what is known of it, `browser_copy` what
the visitor's browser keeps.
"""
