"""The training that made the embedded networks: photographs, augmentation, the loop."""
