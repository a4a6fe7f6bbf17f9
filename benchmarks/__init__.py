"""Programs that measure; each prints a table and a line of JSON, and says so in its first lines.

They know the product, and the product knows none of them. What they share is in `lib`; what they
found is in `results`, and `all` runs those of one machine.
"""
