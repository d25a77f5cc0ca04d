"""Answers that decline: how they begin, in several languages."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

OPENING = 300
"""Characters at an answer's beginning in which it declines, where it does."""

# An apostrophe is any one character: typewriters', printers' and forgotten ones are all about.
_I_CANNOT = (
    r"i (?:can.?t|cannot|can not|won.?t|will not|am (?:not able|unable)|do(?: not|n.?t) feel comfortable)"
    r"|i.m (?:not able|unable|not comfortable)"
)
_HELP = (
    r"(?:help|assist|provide|fulfil|comply|answer|create|generate|write|discuss|offer|engage|share|support|continue"
    r"|respond|participate|give|produce|complete|do that|do this|browse|accommodate)"
)
_ENGLISH = (
    r"as an ai(?: language)? (?:model|assistant)|as an ai,|as a (?:large )?language model",
    r"(?:sorry|afraid|unfortunately|regrettably|apologi[sz]e)(?: for [^.,]{1,40})?[,;]?(?: but| that)?,? "
    rf"(?:{_I_CANNOT})",
    rf"(?:^|[.!?\n] ?)(?:{_I_CANNOT})(?: to)?(?: \w+ly)? {_HELP}",
    r"(?:^|[.!?\n,] ?)i (?:must|have to|will have to) (?:\w+ly )?(?:decline|refuse)",
)
_OTHERS = (
    # German, Dutch
    r"tut mir (?:sehr )?leid,?(?: aber)? (?:ich|das|dabei|bei|diese)[^.]{0,40}(?:nicht|kein)",
    r"leider (?:kann|darf) ich[^.]{0,60}(?:nicht|kein)",
    r"als (?:ki\b|ki-|künstliche intelligenz|sprachmodell|ai-|taalmodel)",
    r"spijt me,?(?: maar)? (?:ik|dat|daar)[^.]{0,30}niet",
    # French
    r"désolée?s?,?(?: mais)? je ne (?:peux|puis)",
    r"en tant (?:qu.ia\b|qu.intelligence artificielle|que modèle de langage|qu.assistant ia)",
    r"^je ne (?:peux|puis) pas (?:vous |t.)?(?:aider|fournir|répondre|accomplir)",
    # Spanish, Portuguese, Italian
    r"lo siento,?(?: mucho,?)?(?: pero)? no (?:puedo|me es posible)",
    r"^no puedo (?:ayudar|proporcionar|responder|cumplir)",
    r"(?:sinto muito|desculpe|lamento),?(?: mas)? (?:eu )?não posso",
    r"mi dispiace,?(?: ma)? non posso",
    r"(?:como|come) (?:un |um )?(?:modelo de lenguaje|modelo de linguagem|modello linguistico)",
    r"(?:como|come) (?:una |uma |un.)?(?:ia\b|inteligencia artificial|inteligência artificial)",
    r"come un.(?:ia\b|intelligenza artificiale)",
    # Russian, Chinese, Japanese
    r"(?:извините|простите|к сожалению)[^.]{0,12} не могу",
    r"как (?:языковая модель|искусственный интеллект)",
    r"(?:抱歉|对不起|很遗憾)[^。]{0,12}(?:无法|不能)",
    r"作为(?:一个|一名)?(?:ai|人工智能|语言模型)",
    r"申し訳(?:ありません|ございません)[^。]{0,24}(?:できません|できかねます)",
)
_DECLINES = "|".join((*_ENGLISH, *_OTHERS))


def declines(answers: "Sequence[str] | pa.Array") -> "pa.Array":
    """For each answer whether its beginning declines to answer: an array of booleans."""
    import pyarrow as pa
    import pyarrow.compute as pc

    beginnings = pc.utf8_slice_codeunits(pa.array(answers, pa.string()), 0, OPENING)
    return pc.match_substring_regex(beginnings, _DECLINES, ignore_case=True)
