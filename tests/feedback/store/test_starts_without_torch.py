from __future__ import annotations

import subprocess
import sys


def test_the_store_starts_without_torch():
    code = "import accord.feedback.store, sys; assert not sys.modules.keys() & {'torch', 'transformers'}"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
