"""What a pickle would build, worked out from its opcodes before any of it is built.

The interpreter's own unpickler keeps a table as large as the largest number that a file writes down, and
compares and hashes what lies in what as deep as it goes: a few bytes take gigabytes, or the stack.
"""

from __future__ import annotations

import pickletools
from typing import Any, cast

from policies.encoding.limits import Limits, WireError

_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""Put what they take into what lies below it, which is as deep as before or as that."""
_MARK = -1


def check_program(data: bytes, limits: Limits) -> None:
    """Go through the opcodes, keeping of each value on the stack how deep it is.

    Raises:
        WireError: values lie deeper than `limits.depth`, a value is kept under a number that no writer comes
            to, or the opcodes do not fit together.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > limits.items:
                raise WireError(f"more than {limits.items} pickle operations", "too_large")
            if opcode.name in _PUTS or opcode.name == "MEMOIZE":
                number = len(memo) if opcode.name == "MEMOIZE" else cast(int, argument)
                if number > count + 1:
                    raise WireError(
                        f"a value is kept under number {number}, of {count} operations", "too_large"
                    )
                memo[number] = stack[-1]
            elif opcode.name in _GETS:
                stack.append(memo[cast(int, argument)])
            else:
                _step(stack, opcode, limits)
    except WireError:
        raise
    except (ValueError, IndexError, KeyError) as error:
        raise WireError(f"not a pickle: {' '.join(str(error).split())[:200]}") from None


def _step(stack: list[int], opcode: Any, limits: Limits) -> None:
    """Any other operation: what it takes lies one deeper in what it gives."""
    taken, before = 0, list(opcode.stack_before)
    if pickletools.markobject in before:
        at = before.index(pickletools.markobject)
        while (depth := stack.pop()) != _MARK:
            taken = max(taken, depth + 1)
        before = before[:at]
    filled = before.pop(0) if opcode.name in _FILLS else None
    for _ in before:
        taken = max(taken, stack.pop() + 1)
    if filled is not None:
        taken = max(taken, stack.pop())
    if taken > limits.depth:
        raise WireError(f"more than {limits.depth} levels of nesting", "too_large")
    stack.extend(_MARK if kind is pickletools.markobject else taken for kind in opcode.stack_after)
