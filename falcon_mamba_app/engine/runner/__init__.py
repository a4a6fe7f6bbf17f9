"""All work on the device: sequences in, sampled tokens out.

It does not decide which sequences run. `step_tensors` packs a step into one tensor. `passes` runs
the model over it, and `graphs` replays that on a GPU. `model_runner` does so for sequences, with
`penalties` and `scoring` where a request asks for them, and with drafts by `prompt_lookup` on a
CPU. `warm_up` compiles everything in advance.
"""
