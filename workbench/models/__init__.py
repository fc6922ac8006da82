"""A pair of models: its weights, the encoding of prompts, and generation."""
