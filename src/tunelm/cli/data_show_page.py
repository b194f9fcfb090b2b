"""`data show` as one HTML page that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

from pathlib import Path

from tunelm.cli import data_show_text as text
from tunelm.report.html import page_environment
from tunelm.training.lens import visible
from tunelm.training.show import Showing

TEMPLATE = "data_show.html.j2"


def html_page(showing: Showing) -> str:
    """The whole page. All text of the rows is escaped."""
    environment = page_environment(Path(__file__).parent)
    environment.filters["plain"] = text.shown
    profile = showing.profile
    return environment.get_template(TEMPLATE).render(
        showing=showing,
        profile=profile,
        header=text.header(showing),
        remarks=text.remarks,
        visible=visible,
        tables=[text.field_table(field) for field in profile.fields],
        word_lines=[line for line in text.word_lines(profile) if line],
        length_lines=[line.strip() for line in list(text.length_lines(profile))[:2]],
        most=max((bin.rows for bin in profile.lengths.histogram), default=1),
        comparisons=text.comparisons_line(profile),
        between=text.between_percent,
    )
