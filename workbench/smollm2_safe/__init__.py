"""The refusal adapter of the preset `smollm2-safe` (data), and the recipe that trained it."""
