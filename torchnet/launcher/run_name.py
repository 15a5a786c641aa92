"""The name of a run that the user did not name."""

from __future__ import annotations

import os
import re


def run_name(script: str, random: str) -> str:
    """Return a run ID from the script's name and ``random``: a DNS-1123 label, as Kubernetes requires."""
    stem = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(os.path.basename(script))[0].lower()).strip("-")
    return f"{stem[:40].rstrip('-') or 'run'}-{random}"
