"""The drawings in contracts.artifacts -> the names in them, for tests that hold a real folder against them."""

from promolift.contracts import artifacts


def drawn(folder: str) -> set[str]:
    """Names under the heading that starts with `folder`: what stands between a branch and two spaces."""
    lines = iter((artifacts.__doc__ or "").splitlines())
    next(line for line in lines if line.startswith(folder))
    names: set[str] = set()
    for line in lines:
        if line[:4] not in ("├── ", "└── "):
            break
        names.update(name.rstrip("/") for name in line[4:].split("  ", maxsplit=1)[0].split())
    return names
