"""Published prompt sets and formats: by which columns each is recognised, and what its columns mean.

Only what the general rules of `prompts.columns` would read wrongly, or cannot know, is in the table: the labels of a
set whose rows are all harmful, a column that judges the answer and not the request, data that belong to the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workbench.core.records import Label
from workbench.prompts.rows import Source


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """One published set or format; columns are named without case, spaces, hyphens and underscores.

    name      its name in notes
    columns   columns that it has, separated by spaces
    values    further condition: a column, and the pattern of all its values
    called    further condition: a pattern in the name of the file or dataset
    roles     role -> column, before any guess
    label     the label of every row; None: see the others
    by        a column and (pattern, label) pairs, the first that matches a row's value counts; column "" is the row's
              split and the source's name
    harmless  the label of rows that a label column calls harmless
    answers   a column that judges the response: it is no label of the request
    """

    name: str
    columns: str
    values: Mapping[str, str] = field(default_factory=dict)
    called: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    label: Label | None = None
    by: tuple[str, tuple[tuple[str, Label], ...]] | None = None
    harmless: Label = "harmless"
    answers: str = ""


_XSTEST = "homonyms|figurative_language|(safe|unsafe)_(targets|contexts)|definitions|historical_events|(contrast_.*)|"
_OR_BENCH = "deception|harassment|harmful|hate|illegal|privacy|self-?harm|sexual|unethical|violence"
_MT_BENCH = "writing|roleplay|reasoning|math|coding|extraction|stem|humanities"

KNOWN_SETS: Sequence[KnownSet] = (
    KnownSet(
        name="JailbreakBench",
        columns="goal target behavior category",
        by=("", (("^(?!.*harmful).*benign", "lookalike"), ("^(?!.*benign).*harmful", "harmful"))),
    ),
    KnownSet(name="AdvBench", columns="goal target", label="harmful"),
    KnownSet(name="HarmBench", columns="behavior functionalcategory semanticcategory", label="harmful"),
    KnownSet(name="StrongREJECT", columns="forbiddenprompt category", label="harmful"),
    KnownSet(name="Do-Not-Answer", columns="riskarea typesofharm question", label="harmful"),
    KnownSet(name="SimpleSafetyTests", columns="prompt harmarea category", label="harmful"),
    KnownSet(
        name="XSTest",
        columns="prompt type focus",
        by=("type", (("^contrast", "harmful"), ("", "lookalike"))),
        harmless="lookalike",
    ),
    KnownSet(
        name="XSTest",
        columns="prompt type",
        values={"type": _XSTEST + "real_group_nons_discr|nons_group_real_discr|privacy_(public|fictional)"},
        by=("type", (("^contrast", "harmful"), ("", "lookalike"))),
        harmless="lookalike",
    ),
    KnownSet(
        name="OR-Bench",
        columns="prompt category",
        values={"category": _OR_BENCH},
        called="or.?bench",
        by=("", (("toxic", "harmful"), ("", "lookalike"))),
    ),
    KnownSet(name="SORRY-Bench", columns="turns category", values={"category": r"\d+"}, label="harmful"),
    KnownSet(name="MT-Bench", columns="turns category", values={"category": _MT_BENCH}, label="harmless"),
    KnownSet(name="BeaverTails", columns="prompt response issafe", answers="issafe"),
    KnownSet(name="WildGuardMix", columns="prompt promptharmlabel", roles={"label": "promptharmlabel"}),
    KnownSet(
        name="ToxicChat",
        columns="userinput modeloutput toxicity",
        roles={"prompt": "userinput", "response": "modeloutput", "label": "toxicity"},
    ),
    KnownSet(name="HEx-PHI", columns="text", called=r"hex.?phi|^category_\d+", label="harmful"),
    KnownSet(name="Alpaca", columns="instruction input output", roles={"context": "input"}),
    KnownSet(name="preference pairs", columns="chosen rejected", roles={"response": "chosen"}),
)
"""Known sets; the first that fits a source is taken."""


def key_of(name: str) -> str:
    """Return a column's name without case, spaces, hyphens and underscores."""
    return re.sub(r"[\W_]+", "", name).casefold()


def known_set(source: Source) -> KnownSet | None:
    """Return the first known set whose columns, values and name fit a source, or None."""
    columns = {key_of(column): column for column in reversed(source.columns)}

    def fits(known: KnownSet) -> bool:
        return (
            set(known.columns.split()) <= columns.keys()
            and re.search(known.called, source.name, re.IGNORECASE) is not None
            and all(
                re.fullmatch(pattern, str(row.values.get(columns[column])).strip(), re.IGNORECASE)
                for column, pattern in known.values.items()
                for row in source.rows
            )
        )

    return next(filter(fits, KNOWN_SETS), None)
