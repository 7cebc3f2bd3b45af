"""The commands, a module each; `cli` calls the function of their name."""
