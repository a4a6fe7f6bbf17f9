"""The states of sequences: slots on the device, snapshots in host memory, files for export.

It knows no sequence. `pool` holds the slots of running sequences, `store` the snapshots of idle
sessions. `file` converts a state to bytes and back, and checks it before use. `measures` and
`sketch` read one: its figures, and its picture.
"""
