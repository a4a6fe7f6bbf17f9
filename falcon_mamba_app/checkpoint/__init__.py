"""From a name to weights on a device.

It knows no command line, no engine and no text. `asked` is what somebody wants; `placement` decides
once what runs, where and in what form, by `locate` (which checkpoint: a folder, or through `hub`),
`small_files` (its JSON) and `quantization` (how many bits). `weights` reads the tensors,
`weights_4bit` those in 4 bits, `host_memory` gives back what that took; `generation` is how the
checkpoint's authors want it to generate.
"""
