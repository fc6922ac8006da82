"""The parts of the refusal rules, such as {I}, {cannot} and {help}: patterns on `english`'s normal form of a text."""

from __future__ import annotations

import re


def any_of(*phrases: str) -> str:
    """Return a pattern of alternatives; a string holds several, separated by " | "."""
    each = [p.strip() for group in phrases for p in group.split(" | ")]
    return f"(?:{'|'.join(sorted(each, key=len, reverse=True))})"


def verbs(words: str) -> str:
    """Return a pattern of verbs in their plain form and with -ing; "+" stands for a space inside one."""

    def forms(verb: str) -> str:
        first, *rest = verb.split("+")
        stem = first[:-1] if first.endswith("e") and not first.endswith("ee") else first
        ing = f"{stem}{stem[-1]}?ing"
        return " ".join((f"(?:{first}|{ing})", *rest))

    return any_of(*map(forms, words.split()))


PARTS: dict[str, str] = {
    "I": any_of("i | we | this ai | this assistant | this model | this chatbot | this system | the ai | the assistant"),
    "am": any_of("am | are | is | feel | remain | will be | would be | have been | was | were"),
    "adverb": r"(?:(?:\w+ly|just|also|even|ever|still|now|always|therefore|then|in good conscience|in good faith|so|"
    r"really)[, ]+){0,3}",
    "cannot": any_of(
        "cannot | could not | can no longer | will not | would not | shall not | should not | must not | may not | can "
        "never | will never | would never | will no longer | cannot and will not | will not and cannot | cannot or "
        "will not | do not wish to | do not want to | do not intend to | would rather not | would prefer not to | "
        "prefer not to | choose not to | have chosen not to | do not"
    ),
    "able": any_of(
        "able | allowed | permitted | authori[sz]ed | willing | going | comfortable | equipped | programmed | designed "
        "| trained | qualified | prepared | supposed | meant | capable | built | configured | licensed | inclined | at "
        "liberty | in a position | intended | here"
    ),
    "unable": any_of(
        "unable | unwilling | uncomfortable | incapable | prohibited | forbidden | restricted | barred | prevented | "
        "banned | disallowed | bound | reluctant | hesitant | obliged not | programmed not | designed not | instructed "
        "not | trained not"
    ),
    "to": r"(?: (?:to|of|with|from|for|in|about|by))?",
    "help": verbs(
        "provide give offer share help assist support aid answer respond reply fulfill fulfil comply complete satisfy "
        "meet engage participate partake discuss generate create write produce compose draft craft develop tell teach "
        "explain describe instruct advise recommend suggest encourage promote condone endorse facilitate enable "
        "continue proceed process guide show disclose reveal divulge speculate comment entertain tolerate justify "
        "defend argue contribute accommodate carry+out perform supply present list grant accept agree cooperate "
        "collaborate advocate talk speak go+along play pretend act translate summarize summarise obtain identify "
        "locate track make handle walk lend coach address discriminate harm glorify normalize normalise spread "
        "perpetuate output print do+that do+this do+it do+so say+that say+this be+part be+involved be+a+part be+of "
        "be+used go+into get+into allow permit take+part give+out follow hand+over"
    )
    + r"\b",
    "except": (  # figures of speech, and answers that are only uncertain
        r"(?! (?:but|feeling|wondering|noticing|thinking|smiling)\b)(?![^.]{0,80} (?:enough|too (?:much|strongly|"
        r"highly))(?: |$|[.,:;!]))(?! (?:you |any |an? |the |with |most |to )*(?:\w+ly )?(?:definit(?:e|ive)|exact|"
        r"precise|single|certain|complete|exhaustive|one-size-fits-all|universal|straightforward|conclusive|"
        r"guarantees?|up-to-date|real-time)\b)(?! (?:for|with) (?:sure|certainty|absolute)| how (?:much|happy|glad|"
        r"grateful)| sense\b| a difference)"
    ),
    "refuse": any_of("refuse | decline | say no | pass on | reject | turn down | withhold | abstain | refrain"),
    "must": any_of(
        "must | have to | need to | will have to | am going to have to | am obliged to | am forced to | would like to |"
        " am compelled to | will | would | shall | do"
    ),
    "request": any_of(
        "request | question | query | prompt | message | input | instruction | instructions | task | topic | content | "
        "ask"
    ),
    "rules": any_of(
        "guidelines | policy | policies | programming | principles | values | rules | standards | ethics | ethical "
        "guidelines | purpose | capabilities | abilities | scope | terms of service | terms of use | content policy | "
        "safety guidelines | use case policy | training | design | boundaries | nature | function | role | mission | "
        "constraints"
    ),
    "thing": any_of(
        "it | this | that | doing so | doing this | doing that | to do so | such | either",
        r"(?:such|these|those|any|all|this|that|your|the|any form of) (?:[\w-]+ ){0,4}(?:acts?|actions?|activit(?:y|"
        r"ies)|behaviou?rs?|request|question|idea|suggestion|statement|claim|things?|conduct|violence|language|premise|"
        r"assumptions?|notion|views?|beliefs?|sentiment|content|topic|comparison|practices?|attitudes?|thoughts?|harm|"
        r"ideology)",
        r"(?:[\w-]+ ){0,2}(?:violence|discrimination|racism|sexism|harassment|bullying|suicide|murder|abuse|theft|"
        r"self-harm|hatred|revenge|cruelty|prejudice|genocide|slavery|terrorism|torture|killing|rape|stealing)",
        r"(?!(?:during|according|following|including|regarding|depending|considering|concerning|being|nothing|"
        r"something|anything|everything|morning|evening|spring|king|string|ring)\b)(?:to )?(?:[a-z]+ly )?(?:[a-z]+ing|"
        r"(?<=to )[a-z]+)\b[^.,;:]{0,90}?",
    ),
    "is": any_of("is | are | would be | will be | was | were | constitutes | is considered | are considered"),
    "very": r"(?:(?:\w+ly|very|always|both|also|so|just|in fact|deeply|even|generally|an?|the|and|considered|"
    r"against)[, ]+){0,4}",
    "not": any_of("not | never | neither | hardly | no longer | not only"),
    "bad": any_of(
        "illegal | unethical | immoral | wrong | harmful | dangerous | inappropriate | unacceptable | irresponsible | "
        "unlawful | criminal | cruel | hateful | offensive | discriminatory | racist | sexist | homophobic | "
        "transphobic | abhorrent | reprehensible | inhumane | violent | abusive | disrespectful | unfair | unjust | "
        "misleading | unhealthy | unsafe | inexcusable | insensitive | indefensible | unjustifiable | deplorable | "
        "despicable | heinous | the law | ethical | morals"
    ),
    "offence": r"(?:an? )(?:[\w-]+ ){0,3}(?:crime|felony|offen[cs]e|violation|invasion|breach|form of "
    r"(?:discrimination|abuse|violence|harassment|racism))",
    "good": any_of(
        "ok | okay | appropriate | acceptable | ethical | legal | lawful | right | moral | morally | advisable | safe |"
        " healthy | productive | respectful | responsible | fair | recommended | justified | justifiable | defensible |"
        " constructive | helpful | kind | wise | effective | beneficial | humane | permissible | something | good | "
        "the answer | the solution | the way | the best | funny",
        r"an? (?:[\w-]+,? (?:or |and )?){0,4}(?:way|idea|solution|thing|answer|option|approach|reason|choice|method|"
        r"topic|matter|means|joke)",
    ),
    "undefined": (  # the words that follow define a thing and do not judge it
        r"(?!(?: [\w-]+)? (?:in which|that (?:involves?|consists?|occurs?|describes?)|of (?:a|an|another|the)|where|"
        r"involving|consisting|whereby|committed)\b)"
    ),
    "helpers": any_of(
        "professionals? | therapists? | counsel+ors? | psychologists? | psychiatrists? | doctors? | mental health | "
        "hotlines? | lifelines? | helplines? | crisis | emergency services | 911 | 988 | 999 | police | authorities | "
        "law enforcement | lawyers? | attorneys? | trusted | support groups? | medical help | medical attention"
    ),
}


def spelled(pattern: str) -> str:
    """Return a pattern with its parts filled in."""
    return re.sub(r"\{([A-Za-z]+)\}", lambda m: PARTS[m[1]], pattern)
