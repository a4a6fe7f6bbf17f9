"""One reader for each kind of file: plain texts, web pages, PDF, and the two that are zip archives.

Each takes bytes and a `Budget`, and returns pieces of text in their order.
"""
