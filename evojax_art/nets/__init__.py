"""Image classifiers: one architecture per file, their weights and their classes."""
