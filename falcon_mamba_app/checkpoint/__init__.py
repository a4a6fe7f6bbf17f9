"""From a name to weights on a device.

It knows no command line, no engine and no text. `asked` is the request for a model; `placement`
decides once what runs, where and in what form, with the help of `locate` (which checkpoint: a
folder, or through `hub`), `small_files` (its JSON) and `quantization` (how many bits). `weights`
reads the tensors, `weights_4bit` those in 4 bits, and `host_memory` returns freed memory to the
system. `gguf/` is a model in one file. `generation` reads the authors' defaults for generating.
"""
