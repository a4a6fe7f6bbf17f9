"""Another server that speaks OpenAI's API, as a GenerationService.

It knows no model and no tensor. `service` is the front; `wire` says what goes there, `sender` sends
it, `event_stream` reads what comes back, `shapes` what it means, and `reply` makes events of it.
"""
