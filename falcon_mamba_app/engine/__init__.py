"""Token ids in, token ids out: many sequences at once on one device.

It knows no text, no HTTP and no asyncio. `sequence` is one request; `scheduler` says who runs;
`engine` plans, runs and settles a step and tells it as `events`; `state_keeper` gives sequences
slots and keeps what they leave; `failures` is what a given-up sequence is told. `states` holds the
states, `runner` does all that runs on the device, `build` puts an engine together, and `worker`
gives it a thread.
"""
