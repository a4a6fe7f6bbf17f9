"""The parts of HTTP that the API and the middleware share.

It knows no endpoint, no page and no service. `transport` moves bodies, JSON and events; `encodings`
expands compressed bodies, `json_bodies` counts their values. `errors` formats our errors for
OpenAI's clients, and `refusals` formats those of the middleware for the caller's kind of client.
"""
