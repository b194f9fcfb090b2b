"""Words and turns of phrase of a support e-mail: politeness, promises, greeting, sign-off.

The kinds of politeness are after the strategies of Danescu-Niculescu-Mizil et al., "A
computational approach to politeness with application to social factors" (ACL 2013, table 3), which
ConvoKit's PolitenessStrategies find by parse. Here they are short lists of our own, of what stands
in replies to customers. Of the published ones `I` and `we` are left out: every reply of a shop has
them. English; standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from tunelm.scoring.email_facts import KEPT


def _any(*forms: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(forms)})\b", re.IGNORECASE)


KINDS: Mapping[str, re.Pattern[str]] = {
    "gratitude": _any("thank(?:s| you| ful)?", "grateful", "appreciate[sd]?"),
    "apology": _any("sorry", r"apolog\w+", "forgive", "pardon", "regret"),
    "deference": _any(
        "you (?:are|were) (?:quite |absolutely |completely |perfectly )?right",
        "(?:good|great|excellent|fair|very good) (?:question|point|idea|eye|choice)",
        r"well (?:spotted|noticed)", "of course", "certainly", "rightly",
    ),
    "greeting": re.compile(r"\A\s*(?:dear|hello|hi|hey|good (?:morning|afternoon|evening|day))\b",
                           re.IGNORECASE),
    "please": re.compile(r"(?<=[\w,] )please\b", re.IGNORECASE),
    "indirect request": _any(
        "(?:could|would|can|will|may|might) (?:you|we|i) (?:please |kindly |just )?(?:ask|check|let"
        "|send|tell|reply|confirm|try|write|mind|have|keep|put|hold|take|give|share|look)",
        "would you mind", "if you (?:could|would)", "we would ask", "whenever (?:it )?suits",
    ),
    "hedge": _any("perhaps", "maybe", "might", "possibly", "seems?", "appears?",
                  "(?:we|i) (?:think|believe|suppose|assume|expect)", "it looks as if"),
    "positive words": _any("glad", "happy", "happily", "pleas(?:ed|ure)", "delight(?:ed|ful)?",
                           "lovely", "wonderful", "gladly", "enjoy", "welcome", "kind of you",
                           "(?:we|i) hope", "hopefully", "warmly"),
    "offer of help": _any("let (?:us|me) know", "(?:just |simply )?(?:write|reply|answer) to",
                          "here (?:for you|to help)", "(?:we|i) (?:will|can) (?:gladly |happily "
                          "|also )?help", "any(?:thing)? (?:other |further |more )?questions?",
                          "anything else", "feel free", "(?:just|simply) (?:reply|write|ask)",
                          "at your (?:service|disposal)"),
}  # fmt: skip
"""The kinds of politeness, and what shows each."""

PLEASE_START = re.compile(r"(?:\A|[.!?:\n])[ \t]*please\b", re.IGNORECASE)
"""An order with a please before it: the 2013 study finds it less polite than none."""

ROUGH: Mapping[str, re.Pattern[str]] = {
    "command": _any("you (?:must(?! have)|have to|need to|had better|are (?:required|obliged) to)",
                    "do not (?:write|contact|ask|call|send)", "don't (?:write|contact|ask|call)"),
    "blame": _any("you should have", "you (?:failed|forgot|neglected|ignored|misread)",
                  "(?<!not )your (?:own )?(?:fault|mistake|error|carelessness)",
                  "you (?:clearly|obviously|apparently) ", "had you (?:read|looked|checked)",
                  "next time,? (?:read|look|check)", "as (?:we|i) (?:have )?(?:already )?"
                  "(?:said|told|stated|explained)", "read (?:the|our) (?:terms|policy|rules)"),
    "scorn": _any("ridiculous", "stupid", "nonsense", "absurd", "whin(?:e|ing)",
                  "unreasonable", "complaining", "not our (?:problem|fault)", "calm down",
                  "obviously", "deal with it", "tough luck", "too bad"),
}  # fmt: skip
"""What makes a reply rough, by kind."""

PROMISES: Mapping[str, re.Pattern[str]] = {
    "refund": _any(r"refund\w*", r"reimburs\w*", "money back", "repa(?:y|id)", "pay you back"),
    "replacement": _any(
        r"replac\w*", r"exchang\w*", "swap (?:it|them|this)", "another one",
        "(?:send|sends|sent|sending|ship|shipping)(?: you| out)* (?:a|an|another|the) "
        "(?:new|fresh|second|spare)",
    ),
    "repair": _any(r"repair\w*"),
    "voucher": _any("vouchers?", "gift cards?", "store credit", "coupons?", "credit notes?"),
    "discount": _any(r"discount\w*", "rebate", r"reduc\w+ (?:the |in )?price", "price reduction"),
    "free": _any(
        "free of charge", "for free", "at no (?:extra |additional |further )?(?:cost|charge)",
        "(?:no|without) (?:extra |additional )?charge", "complimentary", "on the house",
        "at our (?:expense|cost)", "prepaid", "costs (?:you )?nothing", "we (?:will )?pay for",
        "free (?:delivery|shipping|return|gift|sample|postage|label|of cost)",
    ),
    "guarantee": _any(r"guarante\w+", "(?:we|i) promise", "you have (?:our|my) word",
                      "rest assured"),
    "warranty": _any(r"warrant\w+"),
    "compensation": _any(r"compensat\w+", "goodwill"),
    "collection": _any("couriers? (?:will|can|to)", "pick(?:ed)? (?:it |them )?up", "pick-?up",
                       "collect(?:s|ed|ion)? (?:it|them|the|from)"),
    "cancellation": _any(r"cancel\w*"),
    "express": _any("express", "overnight", r"expedit\w+", "same-day", "next-day"),
}  # fmt: skip
"""What a shop can promise or claim to have done, by kind."""

_CLAUSE = re.compile(r"[.!?;:\n]+(?!\d)|,? (?:but|however|although|though|instead,)\b|, so\b")
_DENIED = re.compile(
    r"\b(?:not?|cannot|never|neither|nor|without|unable|instead of|rather than|out of|outside"
    r"|beyond|excluded|declined?|run out|expired)\b|n't\b",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    r"\byou(?:'d| would) (?:like|prefer|rather)\b|\basking\b"
    r"|\byou(?: had| have| were)? (?:asked|wanted|requested|hop(?:ed|ing)|wished|told|wrote|said"
    r"|mention\w*|expected|promised)\b|\byour (?:request|wish|question|hope)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=KEPT)
def promises(text: str) -> frozenset[str]:
    """The kinds of promise a text makes: what is denied or only reported is none.

    A clause that holds a denial ("no", "cannot", "instead of") or says what the customer asked
    for promises nothing; one with "if" is an offer all the same.

    >>> sorted(promises("We cannot refund it, but we will send you a new lid for free."))
    ['free', 'replacement']
    >>> sorted(promises("You asked for a refund. If you would like a voucher, tell us."))
    ['voucher']
    """
    found: set[str] = set()
    for clause in _CLAUSE.split(text.replace("\u2019", "'")):
        for kind, form in PROMISES.items():
            match = form.search(clause)
            if match is None or kind in found:
                continue
            rest = clause[: match.start()] + " " + clause[match.end() :]
            offered = re.search(r"\bif\b", rest, re.IGNORECASE)
            if not _DENIED.search(rest) and (offered or not _REPORTED.search(rest)):
                found.add(kind)
    return frozenset(found)


@lru_cache(maxsize=KEPT)
def politeness(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The kinds of politeness in a text, and what is rough in it (`please-start` among it).

    >>> polite, rough = politeness("Dear Ann, thank you. You must send it back.")
    >>> sorted(polite), sorted(rough)
    (['gratitude', 'greeting'], ['command'])
    """
    plain = text.replace("\u2019", "'")
    rough = {kind for kind, form in ROUGH.items() if form.search(plain)}
    if PLEASE_START.search(plain):
        rough.add("please-start")
    return frozenset(k for k, form in KINDS.items() if form.search(plain)), frozenset(rough)
