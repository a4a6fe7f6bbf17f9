"""What the benchmarks share; it knows none of them.

First how to measure: `timing`, `roofline` with `exponentials`, `gauges`, `health`, `report`. Then
what is measured: `models` and `checkpoint`, `paced` (an engine whose device is a clock),
`app_process`, and `peers` to compare with. Then who asks: `readers`, `page_client`,
`soak_visitors`, `attacks`.
"""
