"""OpenAI's Responses and Conversations over the library: answers that are kept and go on.

A response is a reply in the library's tree of messages, under its own id; `previous_response_id`
goes on from that message with the ids that its model read and wrote. In the order of a request:
`endpoints` and `conversations` name what can be called; `bodies` and `items` check and convert;
`beginning` finds what came before and makes the prompt; `writing` writes the reply for any number
of readers; `record` is a response's JSON, `events` its stream; `shelf` keeps it.
"""
