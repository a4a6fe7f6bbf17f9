"""OpenAI's API over a GenerationService: chat, completions, sessions, health and metrics.

It knows no model, no page and no layer around it. In the way of a request: `routes` names the
endpoints; `access` says who asks and which session is theirs, `names` under which name the model is
offered; `fields`, `contents` and `schemas` check a body; `planning` makes replies of it, `running`
has them written, `generation` joins both; `answers` and `usage` are OpenAI's shapes. Beside it:
`sessions` takes states away and brings them back, `prometheus` tells the figures.
"""
