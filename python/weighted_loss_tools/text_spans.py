"""Where the fields of a protobuf text file stand, for edits that leave every other byte alone.

This knows the syntax alone. What a text means, and whether it is valid, text_format says.
"""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
      | (?P<word>[\w.+-]+)
      | (?P<mark>[][{}<>:;,])""",
    re.VERBOSE | re.ASCII,
)
CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclass
class Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass
class Value:
    """A scalar (its strings side by side count as one), or a message with its fields."""

    start: int
    end: int
    fields: list = field(default_factory=list)

    def named(self, name):
        return [field for field in self.fields if field.name == name]


@dataclass
class Field:
    """A field from its name to the end of its value, and of the separator that may follow.

    It has one value, or those of a list such as `dim: [1, 3]`.
    """

    name: str
    start: int
    end: int
    after: int
    values: list


def parse(text):
    """Return the whole text as one message, and where its comments start."""
    parser = Parser(text)
    message = Value(0, len(text), parser.fields(None))
    return message, parser.comments


class Parser:
    """Reads a text that text_format accepts. Anything else is a ValueError."""

    def __init__(self, text):
        self.comments = []
        self.tokens = list(self.tokenize(text))
        self.position = 0

    def tokenize(self, text):
        start = 0
        while start < len(text):
            match = TOKEN.match(text, start)
            if not match:
                raise ValueError(f"no token at character {start}")
            if match.lastgroup == "comment":
                self.comments.append(start)
            elif match.lastgroup != "space":
                yield Token(match.lastgroup, match[0], start, match.end())
            start = match.end()
        yield Token("end", "", start, start)

    def next(self):
        token = self.tokens[self.position]
        self.position += 1
        return token

    def take(self, *texts):
        """The next token if it is a mark among these."""
        token = self.tokens[self.position]
        return self.next() if token.kind == "mark" and token.text in texts else None

    def fields(self, closing):
        found = []
        while not (self.take(closing) if closing else self.tokens[self.position].kind == "end"):
            found.append(self.field())
        return found

    def field(self):
        name = self.next()
        if name.kind != "word":
            raise ValueError(f"no field name at character {name.start}")
        self.take(":")
        values = self.values() if self.take("[") else [self.value()]
        end = self.tokens[self.position - 1].end
        self.take(",", ";")
        after = self.tokens[self.position - 1].end
        return Field(name.text, name.start, end, after, values)

    def values(self):
        found = []
        while not self.take("]"):
            found.append(self.value())
            self.take(",")
        return found

    def value(self):
        token = self.next()
        fields = []
        if token.text in ("{", "<"):
            fields = self.fields(CLOSING[token.text])
        elif token.kind == "string":
            while self.tokens[self.position].kind == "string":
                self.next()
        elif token.kind != "word":
            raise ValueError(f"no value at character {token.start}")
        return Value(token.start, self.tokens[self.position - 1].end, fields)
