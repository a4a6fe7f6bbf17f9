"""The states: a slot for who runs, a snapshot for who comes back, a file for who leaves.

It knows no sequence. `pool` is the device's memory, `store` the snapshots of idle sessions in host
memory, `file` a state as bytes, checked before use.
"""
