"""What pictures are judged by: networks' opinions, naturalness, nearness, and their sum.

May import `nets` and below.
"""
