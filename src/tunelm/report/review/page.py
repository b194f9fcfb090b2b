"""The sheet as one HTML page: to print, or to fill in and save as a file of ratings.

It needs no network. Its one script is named by its hash in the page's own policy, so that nothing
a model wrote could run even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from tunelm.report.html import page_environment
from tunelm.report.review.criteria import LEVELS
from tunelm.report.review.items import Sheet

TEMPLATE, SCRIPT = "page.html.j2", "page.js"


def html_page(sheet: Sheet, heads: Sequence[str]) -> str:
    """The whole page; `heads` is the first row of the file that it saves. All text is escaped."""
    folder = Path(__file__).parent
    script = (folder / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = page_environment(folder)
    return environment.get_template(TEMPLATE).render(
        sheet=sheet,
        heads=list(heads),
        levels=list(reversed(LEVELS)),
        script=Markup(script),
        digest=digest,
        answers=sum(len(item.answers) for item in sheet.items),
    )
