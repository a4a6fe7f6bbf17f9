"""What the benchmarks share; it knows none of them.

The tools of measuring: `timing`, `roofline` with `exponentials`, `gauges`, `health`, `report`. The
measured objects: `models` and `checkpoint`, `paced` (an engine whose device is a clock),
`app_process`, and `peers` and `llama_cpp` to compare with. The clients: `readers`, `page_client`,
`soak_visitors`, `attacks`.
"""
