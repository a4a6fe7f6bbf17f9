"""Books: documents that the model has read once, and that any conversation may begin from.

A book is a frozen state with a name. `standing` knows which ids a book has and what a prompt that
stands on it looks like, `rows` puts several in a row, `records` and `bookcase` keep what is known
of a book in a library. `reading` reads it behind everybody else, `desk` holds those being read now,
and `books` is what the page and the API call. The state itself is in the service, under the book's
id. Nothing here knows HTTP, pages or tensors.
"""
