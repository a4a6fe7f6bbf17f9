"""States of idle conversations as files that outlive the process, in a folder or an object store.

It knows bytes and names: no tensor, no text, no HTTP. `objects` has the four calls on the place,
`names` says what a file is called, `sealing` checks and encrypts its bytes, `index` knows what is
there, and `files` keeps the conversations' files within a budget.
"""
