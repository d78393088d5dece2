"""What a compiler made of the kernel's loops: vector code, which calls nothing for an element."""

import re

from _common import Failure, output

# By what the names of binutils begin with, by type: instructions that multiply one number, and
# those that multiply a vector.
MULTIPLY = {
    "": [(rf"\tv?(?:mul|fn?m\w+?)s{t}\b", rf"\tv?(?:mul|fn?m\w+?)p{t}\b") for t in "sd"],
    "aarch64-linux-gnu-": [
        (r"\tfn?m(?:add|sub)\ts\d", r"\tfml[as]\tv\d+\.4s"),
        (r"\tfn?m(?:add|sub)\td\d", r"\tfml[as]\tv\d+\.2d"),
    ],
}

# What an object may name besides: what copies, and where the linker puts addresses.
NOT_CALLED = ("memcpy", "memset", "_GLOBAL_OFFSET_TABLE_")


def check_loops(object_file, binutils=""):
    """Return in how many functions there is vector code of a type.

    Where numbers are multiplied one by one, as at a loop's end, the same function does so in whole
    vectors, too.
    """
    called, alone = set(), set()
    for line in output([f"{binutils}nm", object_file]).splitlines():
        kind, name = line.split()[-2:]
        if kind == "U" and name not in NOT_CALLED:
            called.add(name)
        # The loops are in an unnamed namespace, and the formulas of an element are not.
        if kind == "t" and "_GLOBAL__N_" not in name:
            alone.add(name)
    if called:
        raise Failure(f"{object_file.name} calls {', '.join(sorted(called))}")
    if alone:
        raise Failure(f"{object_file.name} does not inline {', '.join(sorted(alone))}")
    functions = 0
    text = output([f"{binutils}objdump", "-d", "--no-show-raw-insn", object_file])
    for body in text.split("\n\n"):
        for scalar, vector in MULTIPLY[binutils]:
            is_vector = bool(re.search(vector, body))
            functions += is_vector
            if re.search(scalar, body) and not is_vector:
                name = body.strip().splitlines()[0]
                raise Failure(f"no vector code in {object_file.name}: {name}")
    if not functions:
        raise Failure(f"no vector code in {object_file.name}")
    return functions
