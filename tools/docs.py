"""Write the generated pages of docs/, or with --check fail if one is not what would be written."""

from __future__ import annotations

import sys
from pathlib import Path

from accord.cli.docs import reference as cli_reference
from accord.cli.memory_page import markdown as memory_markdown
from accord.cli.methods_page import markdown as methods_markdown
from accord.train.metrics import markdown as metrics_markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {
    "methods.md": methods_markdown,
    "metrics.md": metrics_markdown,
    "cli.md": cli_reference,
    "memory.md": memory_markdown,
}


def main() -> int:
    """Write or check every page."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" in sys.argv:
            stale += [name] if not path.exists() or path.read_text(encoding="utf8") != text else []
        else:
            path.write_text(text, encoding="utf8")
    if stale:
        sys.stderr.write(f"docs/{', docs/'.join(stale)} is not what the code says; run `make docs`\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
