"""Short lists of English words by which a teacher's replies differ; own choice, none from a set.

Each is a pattern over lower-case text. A judge for another language learns from word counts and
numbers alone: these features are then zero everywhere, which does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CUES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"(?<!\w)(?:{words})(?!\w)")
    for name, words in {
        "praise": (
            "great|good (?:job|work|effort|try|start|thinking|question|idea)|well done|excellent"
            "|awesome|nice(?:ly)?|perfect(?:ly)?|fantastic|wonderful|super|amazing|impressive"
            "|brilliant|proud|love how|love your|bravo"
        ),
        "effort": (
            "effort|try(?:ing)?|tried|appreciate|thank(?:s| you)|hard work|keep it up|keep going"
        ),
        "agrees": (
            "that(?:'s| is) (?:exactly )?(?:right|correct|it|true|great)|exactly|you(?:'re| are)"
            " (?:absolutely |exactly )?(?:right|correct)|yes|yep|yeah|correct(?:ly)?|indeed"
            "|absolutely|makes sense|got it right"
        ),
        "almost": (
            "almost|close|on the right track|right track|nearly|right idea|not quite|quite"
            "|partially|part of"
        ),
        "contrast": "but|however|although|though|actually|instead|rather|yet|except|unfortunately",
        "denies": (
            "not|no|isn't|aren't|doesn't|don't|didn't|wasn't|can't|cannot|shouldn't|never|n't|nope"
        ),
        "mistake": (
            "mistakes?|errors?|wrong|incorrect(?:ly)?|mix(?:ed)?(?:[- ]up)|mixing|confus\\w+"
            "|misunderst\\w+|misread|miscalculat\\w+|missed|missing|forgot(?:ten)?|overlooked"
            "|slip|typo|discrepancy|mistaken|off"
        ),
        "recheck": (
            "check|double[- ]check|re-?check|re-?read|re-?visit|re-?examine|re-?consider|review"
            "|look (?:at|again|back|closely|closer)|closer look|go back|again|verify|take another"
            "|re-?think|re-?calculate|re-?do|re-?evaluate|step back"
        ),
        "recall": "remember|recall|don't forget|keep in mind|note that|notice|reminder?|hint|clue",
        "consider": (
            "think about|think of|consider|imagine|suppose|what if|picture|see if|focus(?:ing)?"
            "|pay attention"
        ),
        "invites": (
            "can you|could you|would you|will you|do you|did you|have you|are you|try|let me know"
            "|tell me|show me|explain|talk me|walk me|give it"
        ),
        "together": "let's|let us|together|we|we'll|we're|our|us",
        "you": "you|your|you're|you've|you'll|yours|yourself",
        "i": "i|i'm|i'd|i'll|i've|me|my",
        "should": "should|need(?:s|ed)? to|must|have to|supposed to|ought|ought to",
        "tells": (
            "the (?:correct |right |final |actual )?answer (?:is|would be|should be)"
            "|correct answer|right answer|should be|would be|which (?:is|gives|means|equals)"
            "|equals|is equal to|means|so (?:the|it|you|we|he|she|they)|therefore|thus|gives"
            "|because|since|it's"
        ),
        "first": "first|next|then|second|before|after|start|begin|step|steps|finally|last",
        "how": "how",
        "howmany": "how (?:many|much|long|far|old)",
        "what": "what|what's|which",
        "why": "why|how (?:did|do|come|does|would)|explain|reason",
        "where": "where|when|who",
        "moveson": (
            "move on|moving on|next (?:problem|question|challenge|step|one|topic)|another"
            "|similar|continue|practice|keep practicing|explore|further|more examples"
        ),
        "general": (
            "in general|always|formula|concept|method|strategy|strategies|topic|skills?"
            "|understanding|problem-solving|learning|subject|approach|process|specific"
        ),
        "hedges": "might|maybe|perhaps|seems?|may|looks like|sounds like|a bit|little|i think",
        "comfort": "worry|okay|ok|it's fine|no problem|easy to|common|happens|take your time|sorry",
        "please": "please|kindly",
        "mirrors": (
            "you said|so you|you(?:'re| are) saying|you mean|you think|you got|you found|you used"
            "|what you|how did you|so what"
        ),
        "operates": (
            "add(?:ed|ing)?|subtract(?:ed|ing)?|multipl\\w+|divid\\w+|sum|total|difference"
            "|product|times|plus|minus|half|twice|double|percent\\w*|per|each|fraction\\w*"
        ),
        "closing": "good luck|bye|goodbye|see you|that's all|welcome|you're welcome|good day",
        "greets": "hi|hello|hey|good (?:morning|afternoon|evening)",
    }.items()
}
"""Name of a cue -> what shows it."""

STOP = frozenset(
    re.findall(
        r"\S+",
        "a an and are as at be been but by can could did do does for from had has have he her him"
        " his how i if in into is it its just let like me my no not of on one or our out she so"
        " some than that the their them then there these they this to up us was we were what when"
        " where which who why will with would you your it's that's let's you're i'm okay ok yes",
    )
)
"""Words that say nothing of what a sentence is about."""
