"""A model whose replies run in processes that borrow a GPU, on Hugging Face's ZeroGPU.

It is `service.local` with another worker, and a wrapper for visitors of the page alone. `build`
composes both, `worker` keeps the line and the states, `borrowed_run` is one reply where a GPU is,
`service` asks who is there.
"""
