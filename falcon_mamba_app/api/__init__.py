"""OpenAI's API over a GenerationService: chat, completions, sessions, health and metrics.

It knows no model, no page and no layer around it. In the order of a request: `routes` names the
endpoints; `access` identifies the caller and the session, `names` holds the model's names;
`reading` reads a body, `body_shape` counts its values, `fields`, `contents`, `forms`,
`generation_config` and `schemas` check it; `planning` makes replies of it, `running` runs them,
`generation` joins both; `answers`, `logprobs` and `usage` are OpenAI's shapes.

`tools` describes functions, `tool_messages` and `tool_calls` are their calls as text; `anthropic`
is its Messages API as a chat; `telling` is what vLLM tells beside a reply, `tokenization` its
endpoints of the tokenizer. `sessions` exports and imports states, `kept_sessions` serves the
library's conversations, `session_files` its files, `listing` the pages of lists; `books` are
documents read once. `information` and `prometheus` are models, health and figures, `description`
is the API in OpenAPI. `responses/` are the answers that are kept, `batches/` those to whole files
of requests.
"""
