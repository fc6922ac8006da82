"""Completion of an alignment by distillation: losses, arms, rows, the loop and the adapter."""
