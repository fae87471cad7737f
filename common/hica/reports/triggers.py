"""triggers: the words that deny, doubt, or end what is denied or doubted; English only.

After NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009), with what radiologists write.
Each is a regular expression over one sentence, whatever its case.
"""

import re


def _any(*words: str) -> str:
    return r"\b(?:" + "|".join(words) + r")\b"


PSEUDO = _any(
    r"no (?:\w+ ){0,2}?(?:change|increase|decrease|worsening|improvement)s?",
    r"without (?:\w+ ){0,2}?(?:change|increase|worsening|improvement)",
    "not (?:only|necessarily)",
    "not (?:significantly )?changed",
    "(?:has|have) not (?:significantly )?changed",
    "no (?:prior|previous|comparison)s?",
    "normal variant",
)
"""What looks like a denial and denies nothing."""

DENIES_AFTER = _any(
    "no longer",
    r"no (?:\w+ ){0,2}?(?:evidence|signs?|indication|suggestion|findings?)"
    "(?: of| for| to suggest)?",
    "negative for",
    "free of",
    "absence of",
    "absent",
    "without(?: evidence of| any)?",
    "rather than",
    "neither",
    "nor",
    "no",
    "den(?:y|ies)",
    "resol(?:ution of|ved)",
    "clearing of",
    "removal of",
)
"""Denies what follows in the clause."""

DENIES_CLAUSE = _any(
    r"(?:is|are|was|were|has|have|does|do) ?(?:not|n't)",
    "not (?:seen|identified|visuali[sz]ed|appreciated|evident|present|enlarged|dilated)",
    "(?:has|have) (?:been )?(?:resolved|cleared|removed)",
    "ruled out",
    "negative",
    "normal",
    "unremarkable",
    "clear",
    "intact",
    "(?:well|fully)[- ]expanded",
    "midline",
    "sharp",
)
"""Denies the whole clause: who calls an organ normal denies what could be wrong with it."""

DOUBTS_AFTER = _any(
    r"(?:can|could|may) ?not (?:be )?(?:\w+ )?exclude[ds]?(?: the possibility of)?",
    "not excluded?",
    "difficult to exclude",
    "rule out",
    "evaluate for",
    "question(?:able)?(?: of)?",
    "possib(?:le|ly|ility of)",
    "(?:may|might|could|can) (?:also )?"
    "(?:represent|reflect|be(?: (?:secondary|due|related) to)?|indicate|suggest|relate to)",
    "concern(?:ing)? for",
    "suspicious for",
    "suspicion (?:of|for)",
    "suspected",
    "worrisome for",
    "equivocal",
    "perhaps",
    "differential(?: diagnosis)?(?: includes)?",
)
"""Leaves open what follows in the clause."""

DOUBTS_CLAUSE = _any(
    "versus",
    r"vs\.?",
    "is questioned",
    r"can ?not be (?:\w+ )?(?:excluded|ruled out)",
    "not (?:entirely |completely )?excluded",
    "is possible",
    "borderline",
    "(?:upper|top|high) (?:limits? of )?normal",
)
"""Leaves open the whole clause."""

ENDS = re.compile(
    r"[;:]|\.(?=\s|$)|"
    + _any(
        "but",
        "however",
        "(?:al)?though",
        "except(?: for)?",
        "a(?:part|side) from",
        "other(?:wise| than)",
        "nevertheless",
        "yet",
        "which",
        "whereas",
        "besides?",
        "given",
        "because of",
    )
    + r"|(?<!\bbe )\b(?:secondary|due) to\b"
    + r"|(?<!consistent )(?<!compatible )(?<!associated )(?<!compared )\bwith\b"
    + r"|,\s+(?:and\s+)?(?=(?:there|the|this|these|it|an?|no|is|are)\b)"
    + r"|\band\s+(?=(?:there|the|no|without)\b)",
    re.IGNORECASE,
)
"""Where a scope ends at the latest."""

BETWEEN_ITEMS = re.compile(r",|/|\b(?:and|or|nor|versus|vs)\b", re.IGNORECASE)
"""Between the items of a list."""

TRIGGER = re.compile(
    "|".join(
        f"(?P<{name}>{words})"
        for name, words in (
            ("pseudo", PSEUDO),
            ("clause_uncertain", DOUBTS_CLAUSE),
            ("after_uncertain", DOUBTS_AFTER),
            ("clause_denied", DENIES_CLAUSE),
            ("after_denied", DENIES_AFTER),
        )
    ),
    re.IGNORECASE,
)
"""Any of them; the name of the group says where it reaches and what it makes of it."""

OF_A_WHOLE = r"(?:chest|stud(?:y|ies)|exam(?:ination)?|radiographs?|x-?ray|films?|mammograms?|scan)"
ALL_NORMAL = re.compile(
    rf"^(?:the |this )?(?:(?:normal|unremarkable|negative) (?:\S+ ){{0,2}}?{OF_A_WHOLE}\b"
    rf"|{OF_A_WHOLE}(?: \S+)? (?:is|are) (?:within )?(?:normal|unremarkable|negative)\b)"
    r"|^no (?:radiographic )?(?:abnormalit(?:y|ies)|disease)(?: \S+)?$",
    re.IGNORECASE,
)
"""A sentence that calls the whole image normal. "No acute disease" does not: it leaves old ones."""

FILLERS = re.compile(
    _any(
        "there",
        "are",
        "was",
        "were",
        "ha(?:s|ve|d)",
        "been",
        "seen",
        "noted",
        "identified",
        "th(?:is|at|ese|e)",
        "its",
        "and",
        "also",
        "for",
        "from",
        "which",
        "visuali[sz]ed",
        "demonstrated",
        "present",
        "evidence",
        "again",
        "any",
    ),
    re.IGNORECASE,
)
"""Words that name nothing by themselves."""
