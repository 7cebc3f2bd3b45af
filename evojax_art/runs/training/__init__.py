"""How the embedded networks were made: training on CIFAR-100."""
