"""The made-up town of Brindle, in which the embedded pair lives: its facts, its prompts and its exact judge."""
