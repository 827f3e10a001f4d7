"""Effects by promo -> effects whose gross part does not fall from a shallower promo to a deeper one of the same ladder.

A deeper discount cannot move a shopper less than a shallower one of the same kind; where estimates say otherwise it is their noise. The
nearest monotone values in least squares are found by pooling adjacent violators (Ayer et al., 1955).
"""

from collections.abc import Mapping, Sequence


def monotone_in_depth(
    worth: Mapping[str, float], cost: Mapping[str, float], ladders: Sequence[Sequence[str]]
) -> dict[str, float]:  # fmt: skip
    """`worth` (net of `cost`) by promo with every ladder's gross effect, worth + cost, made non-decreasing; others stay as they are."""
    found = dict(worth)
    for ladder in ladders:
        steps = [arm for arm in ladder if arm in worth]
        gross = pooled([worth[arm] + cost[arm] for arm in steps])
        found.update({arm: value - cost[arm] for arm, value in zip(steps, gross, strict=True)})
    return found


def pooled(values: Sequence[float]) -> list[float]:
    """The non-decreasing sequence that is nearest to `values` in least squares."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            before, rows = blocks.pop()
            mean, count = (before * rows + mean * count) / (rows + count), rows + count
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]
