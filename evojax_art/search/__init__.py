"""Evolution: the protocol of algorithms, variation, the algorithms, the compiled generation.

May import `refine` and below.
"""
