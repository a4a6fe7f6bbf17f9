"""Who is who: users with passwords, and API keys that belong to users, each in one file.

The files are read again whenever they change, so that `falcon-mamba user` and `falcon-mamba key`
work beside a running server. `users` and `keys` are the two files, `files` reads and writes them
safely. It knows no HTTP and no pages; passwords and keys are kept as hashes only.
"""
