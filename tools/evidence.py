"""Take the evidence of runs into docs/evidence/ and write docs/evidence.md; with --check fail if the page is stale.

python tools/evidence.py runs/reproduce/frontier runs/reproduce/length
"""

from __future__ import annotations

import sys
from pathlib import Path

from accord.pipelines.reproduce.page import keep, markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> int:
    """Keep what is given, then write or check the page."""
    folder = DOCS / "evidence"
    for run in sys.argv[1:]:
        if run != "--check":
            sys.stdout.write(f"{keep(Path(run), folder)}\n")
    page, text = DOCS / "evidence.md", markdown(folder)
    if "--check" in sys.argv:
        if not page.exists() or page.read_text(encoding="utf8") != text:
            sys.stderr.write("docs/evidence.md is not what its files say; run `python tools/evidence.py`\n")
            return 1
        return 0
    page.write_text(text, encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
