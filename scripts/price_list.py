"""Condense LiteLLM's price list into the snapshot that is bundled.

Run it at a release with the list of a LiteLLM wheel:
    python scripts/price_list.py model_prices_and_context_window_backup.json VERSION YYYY-MM-DD
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

from tunelm.price_list import LIST_URL, TABLES, condense, to_text


def main() -> None:
    """Write the snapshot, and say what it holds."""
    file, version, day = sys.argv[1:]
    raw = json.loads(Path(file).read_text(encoding="utf-8"))
    prices = condense(raw, date.fromisoformat(day), LIST_URL, version)
    path = TABLES / "inference.json"
    path.write_text(to_text(prices), encoding="utf-8")
    print(f"{path}: {prices.size} models, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
