"""One reader for each kind of file.

Each takes bytes and a `Budget`, and returns pieces of text in their order. `plain` reads texts and
tables, `pages` web pages and EPUB, `pdf` PDF, `office` DOCX. `archives` unpacks the two that are
zip archives, and `xml` parses what is in them; both within limits.
"""
