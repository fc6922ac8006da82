"""Penalties at decoding time: formulas, penalised generation with its ledger, and a transformers processor."""
