"""Several whole copies of this app behind one address of one machine.

`plans` decides how many copies and what each gets, `routing` which copy a request belongs to. In
the parent, `supervisor` keeps the copies alive, `copy_process` is one of them, `router` accepts the
connections and hands each to a copy. In a copy, `door` receives them. A connection is handed over
as a file descriptor: no byte of an answer passes the parent, and a copy sees its visitors' own
addresses. No model, no torch, no page: a copy is an ordinary server.
"""
