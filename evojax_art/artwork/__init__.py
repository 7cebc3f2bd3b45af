"""Pictures as files: PNGs that say where they came from, video, sheets, files of formulas.

May import `render` and below.
"""
