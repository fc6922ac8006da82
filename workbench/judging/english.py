"""English text in a normal form for rules, and its sentences and clauses.

Typographic quotes and dashes, full-width forms, invisible characters, markdown marks and contractions get one form each
("I can’t" and "i cant" become "i cannot"), so that a rule is written once. Quoted speech and code are removed: they do
not speak for the answer.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

CODE, QUOTE = "⟦code⟧", "⟦quote⟧"
"""The replacements of a block of code and of quoted speech."""

_APOSTROPHES = str.maketrans(
    dict.fromkeys("’‘ʼʹ′`´＇‛", "'") | dict.fromkeys("“”„‟«»＂″", '"') | dict.fromkeys("‐‑‒–", "-")
)
_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_INLINE_CODE = re.compile(r"(?<!\w)`[^`\n]{1,200}`")
_SPOKEN = re.compile(r'"[^"\n]{0,400}"|(?<![\w\'])\'(?=[a-z])[^\'\n]{12,200}\'(?!\w)')
_MARKS = re.compile(r"[*_#>~|]+|^\s*[-+•·◦]\s+", re.MULTILINE)
_CONTRACTED = (
    (r"\bcan'?t\b|\bcan not\b", "cannot"),
    (r"\bwon'?t\b", "will not"),
    (r"\bshan't\b", "shall not"),
    (r"\bain't\b", "am not"),
    (r"\b(do|does|did|is|are|was|were|has|have|had|would|should|could|must|need)n't\b", r"\1 not"),
    (r"\b(do|does|did|would|should|could)nt\b", r"\1 not"),
    (r"\bi'?m\b", "i am"),
    (r"\b(you|we|they)'re\b", r"\1 are"),
    (r"\b(i|you|we|they)'ve\b", r"\1 have"),
    (r"\b(i|you|we|they|it|that|there)'ll\b", r"\1 will"),
    (r"\b(i|you|we|they)'d\b", r"\1 would"),
    (r"\b(it|that|there|what|here|who|he|she|where|how)'s\b", r"\1 is"),
    (r"\blet's\b", "let us"),
    (r"\bcannot help but\b", "must"),
)
_CONTRACTIONS = tuple((re.compile(pattern), form) for pattern, form in _CONTRACTED)
_ABBREVIATED = re.compile(r"\b(?:e\.g|i\.e|etc|vs|mr|mrs|ms|dr|st|no|u\.s|u\.k|a\.m|p\.m|approx|jr|sr)\.$")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\s*\n+\s*|;\s+|:\s*\n")
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*+•◦▪]|step \d+\b|[a-h][.)])\s+\S", re.IGNORECASE)
_NUMBER = re.compile(r"^\(?\d{1,2}[.):]\s+")
_BREAKS_OFF = re.compile(
    r"(?<=[a-z\d.,:;/*)\]])(?=(?:I(?:['’](?:m|ll)| (?:am|can|cannot|will|won|must))|Sorry)\b)|"  # with no space between
    r"^(\s*[a-z][^.!?\n]*), (?=I(?:['’]m| am| can['’]?t| cannot| can not| won['’]?t| will not)\b)"
)
"""The place where an answer that continues a given sentence breaks off and starts again."""
_AFTER_I = re.compile(r"^\s*['’](?=(?:m|ll)\b)")
"""The continuation of a given beginning that ends in "I"."""
_CLAUSE = re.compile(
    r"(?:,|;| -+|—|\.\.\.|…)?\s+(?:but|however|yet|though|so|and therefore|therefore)\b,?\s+|\s*—\s*|\s-+\s|,? (?:as|"
    r"because|since|and that) (?=(?:it|this|that|doing|such|they) (?:is|are|would|goes|go|may|could|can|promotes|"
    r"promote|violates)\b)|,? and (?=unable|cannot|not able|i (?:cannot|will not|am|would|must|do not))"
)


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence in its normal form, its clauses (cut at "but", "however", dashes), and whether it is a list item."""

    text: str
    clauses: tuple[str, ...]
    item: bool


@functools.lru_cache(maxsize=512)
def plain(text: str) -> str:
    """Return a text in its normal form: lower case, one kind of quote, dash and space, no markup, no contraction."""
    text = unicodedata.normalize("NFKC", text.replace("…", "...").translate(_APOSTROPHES)).translate(_APOSTROPHES)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "So", "Co", "Cs") or c in "\n\t")
    text = text.lower()
    for pattern, form in _CONTRACTIONS:
        text = pattern.sub(form, text)
    return text


def sentences(text: str) -> tuple[Sentence, ...]:
    """Cut a text into sentences, at line ends too, after replacing code and quoted speech."""
    text = _BREAKS_OFF.sub(lambda m: f"{m[1] or ''}\n", _AFTER_I.sub("I'", text))
    text = _INLINE_CODE.sub(QUOTE, _FENCE.sub(f"\n{CODE}\n", text))
    text = plain(text).strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1]  # the whole answer is in quotes
    text = _SPOKEN.sub(QUOTE, text)
    found: list[Sentence] = []
    for line in text.split("\n"):
        item = bool(_ITEM.match(line))
        parts = [p for p in _SENTENCE_END.split(_MARKS.sub(" ", line)) if p and p.strip()]
        for part in _joined(parts):
            clean = " ".join(part.split()).lstrip("[](){}<>\"'- ")
            if re.search(r"\w", clean) and not _NUMBER.fullmatch(f"{clean} "):
                clauses = tuple(c for c in (c.strip(" ,") for c in _CLAUSE.split(_NUMBER.sub("", clean))) if c)
                found.append(Sentence(text=clean, clauses=clauses, item=item))
    return tuple(found)


def _joined(parts: list[str]) -> list[str]:
    """Join parts that were cut after an abbreviation or the number of a list item."""
    out: list[str] = []
    for part in parts:
        if out and (_ABBREVIATED.search(out[-1]) or re.fullmatch(r"\(?\w{1,2}[.)]", out[-1])):
            out[-1] = f"{out[-1]} {part}"
        else:
            out.append(part)
    return out


def word_set(words: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(words.split())


_ENGLISH = word_set(
    "the a an and or of to in is are was it that this for with you your i not be as on can do have if by at from my we "
    "but they will would should here how what there their all some any one me sorry cannot no yes"
)
_OTHERS = word_set(
    "el los las una para pero como porque puedo siento está más qué y con les des est pas je vous ne il elle nous pour "
    "dans sur avec ce cette mais que peux désolé der die das und ist nicht ich sie ein eine zu den von mit auf für dem "
    "kann leider os um uma não é ao da eu você mas ajudar desculpe lo gli di che sono mi aiuto posso het een van niet "
    "ik dat te op och att det som inte jag på är nie się jest z ve bir bu için ben değil"
).difference(_ENGLISH)
_LEAST_WORDS = 5


def not_english(text: str) -> str | None:
    """Return why a text is not English; None where it is, or is too short to tell.

    Not English: fewer than half of the letters are Latin; or, of five words and more, at least 15 % and two different
    ones are common words of other languages, and these outnumber the common English ones.
    """
    letters = [c for c in text if c.isalpha()]
    latin = sum("LATIN" in unicodedata.name(c, "") for c in letters)
    if len(letters) >= 4 and latin < 0.5 * len(letters):
        return f"{1 - latin / len(letters):.0%} of its letters are not Latin"
    words = [w for w in re.findall(r"[^\W\d_]+", plain(_FENCE.sub(" ", text))) if len(w) > 1 or w in "aiyéz"]
    if len(words) < _LEAST_WORDS:
        return None
    foreign = [w for w in words if w in _OTHERS]
    others, english = len(foreign) / len(words), sum(w in _ENGLISH for w in words) / len(words)
    if others >= 0.15 and len(set(foreign) - {"y", "z"}) >= 2 and others > english:
        return f"{others:.0%} of its words are common ones of other languages, {english:.0%} common English ones"
    return None
