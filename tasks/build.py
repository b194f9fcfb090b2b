"""Write the data of the bundled tasks whose sources stand here.

python tasks/build.py
"""

from __future__ import annotations

import importlib
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "tunelm" / "tasks"
SOURCES = ("support_email", "docstrings", "faq_decline", "headlines")


def main() -> None:
    """Build each."""
    for name in SOURCES:
        importlib.import_module(name).build(TARGET)
        print(name)


if __name__ == "__main__":
    main()
