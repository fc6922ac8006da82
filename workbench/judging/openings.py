"""Openings of a clause that say nothing yet: apology, greeting, self-description, "please note that"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.judging.parts import spelled

_OPENINGS = (  # each ends at a comma where it holds any words at all
    r"(?:(?:i|we) {am} |{am} )?(?:(?:so|very|really|truly|deeply|terribly|\w+ly) )*sorry(?: (?:for|to|about|that|"
    r"if)[^,.]{0,80}(?=,|$))?",
    r"(?:i |we )?(?:\w+ly )?apologi[sz]e(?: (?:for|that|if)[^,.]{0,80}(?=,|$))?|(?:my |our )?(?:\w+ )?apologies(?: "
    r"for[^,.]{0,60}(?=,|$))?",
    r"unfortunately|regrettably|sadly|(?:i am )?afraid(?: that)?|i regret(?: to (?:inform|tell|say)(?: you)?)?(?: "
    r"that)?|forgive me|pardon me|excuse me",
    r"(?:as|being|since i am|because i am|given that i am|i am|speaking as) (?:just |only |merely |simply )?(?:an?|"
    r"your) (?:[\w-]+ ){0,5}(?:ai|assistant|model|chatbot|bot|artificial intelligence|program|"
    r"machine)\b(?:[^,.]{0,80}(?=,))?",
    r"(?:well|oh|hi|hello|hey|no|nope|yes|sure|okay|ok|ah|hmm|um|again|also|and|but|so|however|therefore|thus|hence|"
    r"additionally|furthermore|moreover|in fact|indeed|actually|honestly|frankly|ultimately|overall|still|nevertheless|"
    r"nonetheless|first(?:ly| of all| and foremost)?|second(?:ly)?|with that said|that (?:being )?said|having said "
    r"that|instead|please|sir|madam|dear user|there|in (?:summary|short|conclusion|general|addition|any case)|at the "
    r"same time|on the other hand|as such|as a result|absolutely|certainly|of course|error:?)",
    r"for (?:this|that|these|those|your|legal|ethical|safety|privacy|security|obvious) ?(?:reasons?|safety)?|(?:given|"
    r"because of|due to|in light of|out of|under|according to|based on|in accordance with|in line with|per) "
    r"[^,.]{0,80}(?=,)",
    r"(?:thank you|thanks)(?: so much| very much)?(?: for [^,.!]{0,80}(?=[,!]|$))?|(?:good|great|interesting|"
    r"excellent) question",
    r"(?:while|although|though|even though|whilst|as much as|even if|regardless of|in order to|to (?:ensure|protect|"
    r"maintain)|despite|when it comes to|since|because) [^.]{3,160}?(?=,)",
    r"(?:i|we) (?:(?:can|do|fully|completely|truly|really) )?(?:understand|appreciate|see|know|hear|reali[sz]e|respect|"
    r"acknowledge|recogni[sz]e|sense)\b[^.]{0,180}?(?=,)",
    r"(?:i|we) {am} (?:here|happy|glad|always happy) to (?:help|assist|answer)[^.]{0,80}?(?=,)|(?:i|we) (?:would "
    r"(?:love|like|be happy|be glad)|want|wish|strive|aim|try)(?: to)? [^.]{0,80}?(?=,)",
    r"(?:please )?(?:note|know|understand|be aware|remember|keep in mind|be advised)(?: that)?",
    r"(?:i|we) (?:must|have to|need to|should|want to|would like to|feel obliged to|do have to|do want to|can only)(?: "
    r"\w+ly)? (?:also )?(?:inform|tell|advise|remind|let|clarify|emphasi[sz]e|stress|point out|note|say|mention|state|"
    r"make|be|address|admit|warn|caution)(?: \w+ly)?(?: it)?(?: clear| honest| direct| know)?(?: to)?(?: you)?(?: "
    r"know)?(?: here)?(?: (?:with|about) you)?(?: that)?",
    r"(?:i|we) (?:think|believe|feel|fear|hope|assume)(?: that)?|(?:i|we) (?:can|will|would|could) (?:only )?(?:say|"
    r"share|tell you|state|add|confirm)(?: that)?",
    r"(?:it is|it would be|it may be) (?:also )?(?:[\w-]+ly |very |really |always |first )?(?:important|crucial|"
    r"essential|worth|necessary|vital|critical|helpful)(?: for (?:me|us|you))?(?: to)? (?:[\w-]+ly |first )?(?:note|"
    r"noting|remember|remembering|understand|emphasi[sz]e|recogni[sz]e|mention|mentioning|stress|clarify|point out|"
    r"consider|acknowledge|reali[sz]e|state|be aware|keep in mind|know|say|make clear)(?: (?:first|here|also|of|"
    r"\w+ly))?(?: that)?",
    r"(?:to be|let me be) (?:clear|honest|fair|frank|direct)|the (?:short )?(?:answer|truth|fact) is(?: that)?|in my "
    r"(?:opinion|view)",
)
_OPENING = tuple(re.compile(f"(?:{spelled(p)})(?:[,.!:;?]| -)* +(?P<joins>(?:but|and|that|then) )?") for p in _OPENINGS)
_MOST_OPENINGS = 6


def without_opening(clause: str) -> Iterator[str]:
    """Yield a clause, and its rest after each opening that can be removed from its front.

    The word that joins an opening to the rest is both kept and removed: "sorry that I cannot", but "sorry, that is not
    for me".
    """
    seen = {clause}
    edge = [clause]
    yield clause
    for _ in range(_MOST_OPENINGS):
        following = []
        for rest in edge:
            for opening in _OPENING:
                if (found := opening.match(rest)) is None:
                    continue
                for end in {found.start("joins"), found.end()} - {-1}:
                    if (shorter := rest[end:]) and shorter not in seen:
                        seen.add(shorter)
                        following.append(shorter)
                        yield shorter
        if not following:
            return
        edge = following
