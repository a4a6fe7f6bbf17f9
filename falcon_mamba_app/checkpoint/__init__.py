"""From a name to weights on a device.

It knows no command line, no engine and no text. `asked` is the request for a model; `placement`
decides once what runs, where and in what form. For that `locate` finds the checkpoint (a folder, or
through `hub`, with `download` for a large file), `small_files` reads its JSON, `quantization`
chooses the number of bits, and `without_gpu` the published file where there is no GPU.

`weights` reads the tensors: `plain_files` without transformers, `weights_8bit`, `weights_4bit` and
`weights_gguf` in those forms. `progress` reports how far it is, and `host_memory` returns freed
memory to the system. `gguf/` is a model in one file. `generation` reads the authors' defaults for
generating.
"""
