"""What looks like a date, a telephone, a number or an address in a text, whoever is meant by it."""

import re

MONTHS = (
    # English, German, French, Spanish, Italian, Portuguese, Dutch
    r"january|february|march|april|may|june|july|august|september|october|november|december|"
    r"januar|jänner|jaenner|februar|feber|märz|maerz|mai|juni|juli|oktober|dezember|"
    r"janvier|f[ée]vrier|mars|avril|juin|juillet|ao[ûu]t|septembre|octobre|novembre|d[ée]cembre|"
    r"enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|"
    r"diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|"
    r"janeiro|fevereiro|março|marco|maio|junho|julho|setembro|outubro|novembro|dezembro|"
    r"januari|februari|maart|mei|augustus"
)
SHORT = (
    r"jan|janv|jän|ene|gen|feb|febr|f[ée]v|f[ée]vr|fev|mar|mär|mrz|mrt|apr|avr|abr|mag|jun|giu|jul|"
    r"juil|lug|aug|ago|sep|sept|set|oct|okt|ott|out|nov|dec|dez|dic|d[ée]c"
)
MONTH = rf"(?:{MONTHS}|{SHORT})(?![^\W\d_])\.?"
PLAIN_MONTH = rf"(?!may\b|mai\b|mei\b|mars\b)(?:{MONTHS})(?![^\W_])"
"""That is hardly another word: `3 may be` is no date."""
DAY = r"\d{1,2}(?:\.|st|nd|rd|th|er|e|º|°|ª)?"
OF = r"[\s./_-]{0,2}(?:of\s|de\s|del\s|di\s|d['’])?"
TIME = r"(?:T\d{1,2}(?::?\d{2}){1,2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?)?"
BEGIN, END = r"(?<![^\W_])", r"(?![^\W_])"
"""Of a word; an underscore is none of it."""
MORE_DIGITS = r"(?:[\s()/.–-]{0,3}\d){5,}"

MAIL = r"\b[\w.+-]{1,64}@[\w.-]+\w"
LOOKS_LIKE = re.compile(
    "|".join(
        (
            MAIL,
            rf"{BEGIN}\d+(?:\.\d+){{4,}}",  # a UID
            rf"{BEGIN}\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}(?!\d){TIME}",  # a date
            rf"{BEGIN}\d{{1,4}}\s?[-/.]\s?\d{{1,2}}\s?[-/.]\s?(?:\d{{4}}|\d{{2}})(?!\d){TIME}",
            rf"{BEGIN}(?:0[1-9]|1[0-2]|[1-9])\s?[/.]\s?(?:19|20)\d{{2}}{END}",  # month and year
            rf"{BEGIN}[0-3]\d\.(?:0[1-9]|1[0-2])\.(?!\d)",
            r"\d{2,4}年\d{1,2}月(?:\d{1,2}日)?",
            rf"{BEGIN}{DAY}{OF}{MONTH}[\s.,/_-]{{0,2}}(?:del?\s)?\d{{2,4}}(?!\d)",
            rf"{BEGIN}{MONTH}\s+{DAY},?\s+\d{{4}}(?!\d)",
            rf"{BEGIN}{MONTH},?[\s/_-]{{0,2}}(?:del?\s)?(?:19|20)\d{{2}}(?!\d)",
            rf"{BEGIN}{DAY}{OF}{PLAIN_MONTH}",
            rf"{BEGIN}\d{{1,2}}\.\s?(?:mai|mei|mars|{SHORT})(?![^\W_])",
            rf"{BEGIN}{PLAIN_MONTH}\s{DAY}{END}",
            # a telephone
            rf"(?<!\d)(?:\+\s?\(?\d|\(\+?0\d|0\d){MORE_DIGITS}",
            rf"\(\d{{2,5}}\){MORE_DIGITS}",
            r"\b(?:tel|tél|phone|telefon|téléphone|teléfono|telefono|fax)\b[\s.:]{0,3}\d"
            r"(?:[\s()/.–-]{0,3}\d){3,}",
            rf"\+?{BEGIN}\d{{2,5}}[ /-]\d{{3,}}(?:[ /-]?\d{{2,}})*{END}",
            rf"{BEGIN}\d{{3,}}(?:[.-]\d{{2,}}){{2,}}",  # a number in groups
            r"[^\W\d_]{0,8}\d{5,}\w*",
        )
    ),
    re.IGNORECASE,
)
