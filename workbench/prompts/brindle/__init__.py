"""Hold the embedded pair: two tiny models, their prompts, their exact judge and the recipe for them.

`world` says what is true in the made-up town of Brindle, `judge` decides exactly whether a text tells it,
`measure` states what the pair does, and `recipe` trains both models from nothing.  Nothing here imports
another room.
"""
