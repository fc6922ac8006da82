"""Penalties at decoding time: formulas, penalised generation with its ledger, and a processor for transformers."""

from __future__ import annotations

from workbench.decode.config import METHODS, DecodeConfig, PenaltyConfig, check_generates, undertrained
from workbench.decode.ledger import Entry
from workbench.decode.live import Writing, write
from workbench.decode.model import PenalisedModel
from workbench.decode.penalised import NextToken, decode, next_token
from workbench.decode.penalty import leverage, leverage_bound, penalise, risk, strengths
from workbench.decode.processor import PenaltyProcessor
from workbench.decode.starts import Start
from workbench.decode.truncation import surviving_excess_mass

__all__ = [
    "METHODS",
    "DecodeConfig",
    "Entry",
    "NextToken",
    "PenalisedModel",
    "PenaltyConfig",
    "PenaltyProcessor",
    "Start",
    "Writing",
    "check_generates",
    "decode",
    "leverage",
    "leverage_bound",
    "next_token",
    "penalise",
    "risk",
    "strengths",
    "surviving_excess_mass",
    "undertrained",
    "write",
]
