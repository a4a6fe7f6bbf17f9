"""Falcon Mamba in the browser and behind an OpenAI-compatible API.

`server` puts everything together and runs it; `protocol` is the vocabulary that all parts share.
The packages, in the order of a request: `commands`, `settings`, `middleware`, `people`, `http`,
`api`, `ui`, `documents`, `books`, `lab`, `library`, `files`, `service`, `state_store`, `text`,
`engine`, `checkpoint`, `model`, `ops`; and `cluster`, several copies of all this behind one
address. Nothing is imported here.
"""

__version__ = "0.2.0"
