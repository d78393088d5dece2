"""Read of a .proto file what it takes to add messages and fields to it. Python 3.6."""

import re

from _common import Failure

TOKEN = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | [\w.]+ | \S""",
    re.VERBOSE | re.DOTALL,
)

MAX = (1 << 29) - 1  # the largest field number, which proto files call max


class Block:
    """Braces with the words before them: `message LayerParameter {`. Positions are of the text."""

    def __init__(self, words, start, parent):
        self.words = words
        self.start = start
        self.parent = parent
        self.open = self.close = None
        self.fields = []  # (name, number as written)
        self.given_away = []  # the words of reserved and extensions


def blocks(text):
    """All blocks of the file, outer before inner; braces in comments, strings do not count.

    Raises Failure where they do not match, in words that follow the file's name.
    """
    found = []
    inside = None
    statement = []
    brackets = 0
    for match in TOKEN.finditer(text):
        token = match.group()
        if token.startswith(("//", "/*")):
            continue
        if token == "{" and not brackets:
            start = statement[0].start() if statement else match.start()
            inside = Block([m.group() for m in statement], start, inside)
            inside.open = match.start()
            found.append(inside)
            statement = []
        elif token == "}" and not brackets:
            if inside is None:
                raise Failure("closes a brace that it never opened")
            inside.close = match.start()
            inside = inside.parent
            statement = []
        elif token == ";" and not brackets:
            _add_field(inside, [m.group() for m in statement])
            statement = []
        else:
            brackets += {"[": 1, "]": -1}.get(token, 0)
            statement.append(match)
    if inside is not None:
        raise Failure(f"opens a brace that it never closes: {' '.join(inside.words)}")
    return found


def _add_field(block, words):
    if block is not None and words[:1] in (["reserved"], ["extensions"]) and "=" not in words[1:2]:
        block.given_away.append(words)
    elif block is not None and "=" in words[1:-1]:
        equals = words.index("=")
        block.fields.append((words[equals - 1], words[equals + 1]))


class Addition:
    """What a .proto fragment of ours adds to a caffe.proto: its message, where it has one, at the
    end, and what its `extend` has, a field and perhaps enums, in the message of that name."""

    def __init__(self, text):
        found = blocks(text)
        *messages, extend = (block for block in found if block.parent is None)
        self.message = messages[0].words[1] if messages else None
        self.message_text = "".join(_with_comment(text, block) for block in messages)
        self.extended = extend.words[1]
        self.inside = text[text.index("\n", extend.open) + 1 : extend.close]
        ((self.field, self.number),) = extend.fields
        self.names = _names_in(extend, found)

    def add_to(self, data):
        """The caffe.proto in bytes with the addition.

        Raises Failure where it cannot take it, in words that follow the file's name.
        """
        text = data.decode("latin-1")
        found = blocks(text)
        extended = [one for one in found if one.words == ["message", self.extended]]
        if len(extended) != 1:
            raise Failure(f"has no message {self.extended}")
        self._check_free(found)
        close = extended[0].close
        line = text.rfind("\n", 0, close) + 1
        # Usually the closing brace has a line to itself, and the field goes above it.
        at = close if text[line:close].strip() else line
        ending = "\r\n" if "\r\n" in text else "\n"
        inside = ("\n" + self.inside).replace("\n", ending)
        message = self.message_text.replace("\n", ending)
        if message and not text.endswith("\n"):
            message = ending + message
        return (text[:at] + inside + text[at:] + message).encode("latin-1")

    def _check_free(self, found):
        if self.message and any(one.words == ["message", self.message] for one in found):
            raise Failure(f"already has a message {self.message}")
        for block in found:
            if not self._is_extended(block):
                continue
            for name, number in block.fields:
                if name == self.field:
                    raise Failure(f"already has a {self.extended} field {name}")
                if _value(number) == _value(self.number):
                    raise Failure(f"already uses {self.extended}'s number {number} for {name}")
            for name in sorted(self.names & _names_in(block, found)):
                raise Failure(f"already has a {name} in {self.extended}")
            for words in block.given_away:
                if self._is_among(words):
                    raise Failure(
                        f"keeps {self.extended}'s {self.field} or its number {self.number} from "
                        f"use: {' '.join(words)}"
                    )

    def _is_extended(self, block):
        """A oneof's fields are its message's, and `extend` adds to the message that it names."""
        while block.parent and block.words[:1] == ["oneof"]:
            block = block.parent
        return block.words in (["message", self.extended], ["extend", self.extended])

    def _is_among(self, words):
        """Whether `reserved` or `extensions` with what follows it has our field or its number."""
        for one in " ".join(words[1:]).split(","):
            first, _, last = (word.strip() for word in one.partition(" to "))
            if first.strip("\"'") == self.field:
                return True
            low, high = _value(first), _value(last or first)
            if low is not None and low <= _value(self.number) <= (MAX if last == "max" else high):
                return True
        return False


def _with_comment(text, block):
    lead = re.search(r"(?:^//[^\n]*\n)*\Z", text[: block.start], re.MULTILINE).start()
    return "\n" + text[lead : block.close + 1] + "\n"


def _names_in(block, found):
    """What a message declares besides fields: messages, enums, and their values, as C++ scopes
    them."""
    inside = [one for one in found if one.parent is block and len(one.words) > 1]
    values = {name for one in inside if one.words[0] == "enum" for name, _ in one.fields}
    return values | {one.words[1] for one in inside}


def _value(number):
    """A number as proto files write them, decimal, 0x or octal; None for what is none."""
    try:
        return int(number, 8 if re.fullmatch(r"0[0-7]+", number) else 0)
    except ValueError:
        return None
