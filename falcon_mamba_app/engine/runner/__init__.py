"""All that runs on the device: sequences in, sampled tokens out.

It does not decide who runs. `step_tensors` packs a step into one tensor, `passes` runs the model
over it, `graphs` replays that on a GPU, and `model_runner` does it for sequences, with `penalties`
and `scoring` for those who asked. `warm_up` has everything compiled before anybody waits.
"""
