"""The recipe of the embedded pair: corpus, tokenizer, optimiser, training and measurement."""
