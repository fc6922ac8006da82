"""A pair of models: where its weights come from, how prompts become token ids, how text is generated."""
