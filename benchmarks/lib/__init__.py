"""What the benchmarks share; it knows none of them.

The tools of measuring: `timing`, `roofline` with `exponentials`, `gauges`, `health`, `report`. The
measured objects: `models`, `checkpoint` and `random_gguf` make weights, `blocks` puts matrices into
a GGUF file's blocks, `forms` makes forms of replies, `paced` is an engine whose device is a clock,
`app_process` one server, `copies` several; `peers` and `llama_cpp` are what they are compared with.
The clients: `readers`, `page_client`, `long_page`, `soak_visitors`, `attacks`, `killed_writers`.
"""
