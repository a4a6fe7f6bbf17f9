"""Books: documents that the model has read once, and that any conversation may begin from.

A book is a frozen state with a name. `standing` knows which ids a book has and what a prompt that
stands on it looks like, `records` and `bookcase` keep what is known of it in a library, `reading`
reads it behind everybody else, and `books` is what the page and the API hold. The state itself lies
in the service, under the book's id. Nothing here knows HTTP, pages or tensors.
"""
