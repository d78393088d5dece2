"""A CUDA kernel's machine code, as ptxas and nvdisasm print it."""

import re
from dataclasses import dataclass, field

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\w+)")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
TEXT = re.compile(r"\.text\.(\w+):")
LABEL = re.compile(r"(\.L\w+):")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
BRANCH_TARGET = re.compile(r"`\((\.L\w+)\)")


@dataclass
class Kernel:
    name: str
    registers: int = 0
    stack: int = 0
    spills: int = 0
    code: list = field(default_factory=list)  # opcodes
    branches: dict = field(default_factory=dict)  # {place in code: label}
    labels: dict = field(default_factory=dict)  # {label: place in code}

    def loop(self):
        """The places in code of the loop with 16-byte reads; none without one.

        nvcc makes two of a loop, one for each answer to what its threads all ask; that with more
        16-byte accesses is meant, and the inner one of two that have the same.
        """
        bodies = [range(begin, end + 1) for begin, end in self._jumps() if begin <= end]
        return min(
            (body for body in bodies if self.count(body, "LDG", "128")),
            key=lambda body: (-self._wide(body), len(body)),
            default=range(0),
        )

    def count(self, places, opcode, modifier=None):
        words = (self.code[place].split(".") for place in places)
        return sum(w[0] == opcode and (modifier is None or modifier in w) for w in words)

    def _wide(self, places):
        return self.count(places, "LDG", "128") + self.count(places, "STG", "128")

    def _jumps(self):
        """(target, place) of each branch within the kernel."""
        for place, label in self.branches.items():
            if label in self.labels:
                yield self.labels[label], place


def read_ptxas(text, kernels):
    """From what `ptxas -v` prints, into {name: Kernel}: registers, stack and spills."""
    kernel = function = None
    for line in text.splitlines():
        if found := ENTRY.search(line):
            kernel = kernels.setdefault(found[1], Kernel(found[1]))
        elif found := PROPERTIES.search(line):
            function = kernels.setdefault(found[1], Kernel(found[1]))
        elif found := STACK.search(line):
            function.stack = int(found[1])
            function.spills = int(found[2]) + int(found[3])
        elif found := REGISTERS.search(line):
            kernel.registers = int(found[1])


def read_sass(text, kernels):
    """From what `nvdisasm -c` prints, into {name: Kernel}: instructions, and where they branch."""
    kernel = None
    for line in text.splitlines():
        if found := TEXT.match(line):
            kernel = kernels.setdefault(found[1], Kernel(found[1]))
        elif kernel and (found := LABEL.match(line)):
            kernel.labels[found[1]] = len(kernel.code)
        elif kernel and (found := INSTRUCTION.search(line)):
            opcode, operands = found.groups()
            target = BRANCH_TARGET.search(operands)
            if opcode.startswith("BRA") and target:
                kernel.branches[len(kernel.code)] = target[1]
            kernel.code.append(opcode)
