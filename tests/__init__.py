"""The specification: the product's folders, each name a sentence. `support` is what tests share."""
