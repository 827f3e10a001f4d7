"""Figures -> the block of a document between their two markers."""

import re
from collections.abc import Iterable
from pathlib import Path


def write_block(document: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what is between `<!-- figures: NAME -->` and the next `<!-- end of figures -->`. Raises ValueError for no such block."""
    block = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end of figures -->)", re.DOTALL)
    text, found = block.subn(
        lambda match: match[1] + "".join(f"{line}\n" for line in lines) + match[2], document.read_text(encoding="utf-8")
    )
    if not found:
        raise ValueError(f"{document} has no block '<!-- figures: {name} -->'")
    document.write_text(text, encoding="utf-8")
