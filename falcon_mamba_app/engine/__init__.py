"""Token ids in, token ids out: many sequences at once on one device.

It knows no text, no HTTP and no asyncio. `sequence` is one request. `scheduler` decides which
sequences run. `engine` plans, runs and settles a step, and reports it as `events`. `state_keeper`
gives sequences their slots and saves their states, under ids in the form of `packing`. `matching`
and `masks` hold a reply to a form. `beside` reads a few tokens on a copy of a state. `failures`
makes the error of a sequence that was given up. `states/` holds the states. `runner/` does all work
on the device. `build` puts an engine together, and `worker` gives it a thread.
"""
