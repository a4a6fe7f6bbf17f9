"""Files and batches: many requests in one file, answered when nobody else waits.

It knows no model. `endpoints` are OpenAI's; `lines` reads the file's requests and writes their
answers, `record` is what is known of a batch, `places` says where it is kept, and `running` answers
it in the background.
"""
