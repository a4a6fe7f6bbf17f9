"""HTTP's plumbing that the API and the layers around it share.

It knows no endpoint, no page and no service. `transport` moves bodies, JSON and events, with
`json_bodies` counting what a body holds; `errors` are our errors as OpenAI's clients expect them,
`refusals` those of the doors, in the words of whoever knocks.
"""
