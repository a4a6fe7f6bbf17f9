"""A model in one GGUF file, as llama.cpp's converter writes it.

It knows neither requests nor engines. `header` reads what the file says about itself, within
bounds; `config` turns that into the fields of a config.json, `tokenizer` into a tokenizer.json;
`small_files` keeps both in a folder, as of any other checkpoint. `tensors` unpacks the weights.
`write` makes such a file of a checkpoint.

A Mamba-1 file says architecture "mamba", also for Falcon Mamba: there `mamba.ssm.dt_b_c_rms` is
true, and dt, B and C are normalised. A reader that does not look at that key computes something
else without a sign of it.
"""
