"""From genomes to what runs: values, tapes of instructions, and their packed form.

May import `language` and below.
"""
