"""The documents, and the code blocks in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks_in(text, language=r"\w+"):
    """The contents of the fenced code blocks in a language, or in any."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks(document, language=r"\w+"):
    return blocks_in(read(document), language)
