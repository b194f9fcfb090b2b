"""From a run directory to a report that people decide with.

`build` reads the files of a run and makes `report.json`; `verdict` puts the result into plain
words; `markdown` and `html` lay it out. Nothing here runs a model or imports one.
"""
