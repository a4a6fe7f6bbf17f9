"""A model whose replies run in processes that borrow a GPU, on Hugging Face's ZeroGPU.

It is `service.local` with another worker, in a wrapper that serves only visitors of the page.
`build` composes both, `worker` holds the queue and the states, `borrowed_run` is one reply in a
process with a GPU, and `service` checks the visitor.
"""
