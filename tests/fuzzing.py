"""Damaged files, the same ones in each run; CONTRIBUTING says how to damage more."""

import os

SEEDS = range(int(os.environ.get("FUZZ_SEEDS", "2")))


def mutated(data, random):
    """Some bytes changed, cut out, doubled, or the end cut off."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 50))):
        at = random.randrange(len(data) + 1)
        length = random.choice((1, 1, 2, 4, 8, 64, 512))
        change = random.randrange(6)
        if change < 3:
            special = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
            data[at : at + length] = bytes([special]) * len(data[at : at + length])
        elif change == 3:
            del data[at : at + length]
        elif change == 4:
            data[at:at] = data[at : at + length]
        else:
            data[at:] = data[at : at + 4096]
    return bytes(data)
