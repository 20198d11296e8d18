"""ReST^EM as pure functions.

What a round uses, which edits it keeps, and what its numbers are worth. No I/O, no torch.
"""
