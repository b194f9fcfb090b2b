"""LoRA and its variants, searched with equal budgets and compared on dev: `adapt local --study`.

`space` says what is searched, `search` runs the trials, `finals` trains the best of each method
again and compares, `page` writes it down, `run` does it all. The test rows are never looked at.
"""
