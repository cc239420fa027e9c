"""The bundle: a model, its signature and the proof of its answers, in one folder that travels unchanged.

`format` says what a bundle holds and verifies it (standard library only), `rows` turns requests and tables
into the model's inputs, `scorer` turns inputs into answers. Evaluation, the server and monitoring all use
these, so that what was evaluated is what is served.
"""
