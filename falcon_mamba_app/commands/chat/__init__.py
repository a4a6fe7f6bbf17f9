"""`falcon-mamba chat`: a conversation in the terminal, over any server of ours.

`command` reads the arguments; `local` starts a server for this one terminal where no other is
named; `client` speaks /v1/responses with it; `talk` is the conversation with its branches and
commands, and knows no terminal; `terminal` reads lines and shows what `talk` says.
"""
