"""The param_str of the article's Python layer."""

import ast

FLOAT_MAX = 3.4028234663852886e38  # the native layer's cls_weight is a float


def read_cls_weight(param_str):
    """Return the weight in a param_str such as {"cls_weight": 100}; ValueError says what is wrong.

    The article evaluates param_str as Python code; this reads a dictionary and runs nothing.
    """
    try:
        params = ast.literal_eval(param_str.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RuntimeError):
        params = None
    if not isinstance(params, dict):
        raise ValueError(
            'param_str must be a dictionary of plain values, as {"cls_weight": 100}, '
            "with no expression; it is " + param_str
        )
    if set(params) != {"cls_weight"}:
        names = ", ".join(sorted(map(repr, params))) or "no key"
        raise ValueError("param_str must have the key 'cls_weight' and no other; it has " + names)
    value = params["cls_weight"]
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        weight = -1.0
    if not 0 <= weight <= FLOAT_MAX:
        raise ValueError("cls_weight must be a finite number, not negative; it is " + repr(value))
    return weight
