"""The stack machine that a pickle is a program for, run on values alone: nothing is called.

A class or function that the protocol needs becomes a mark (`Named`), a call becomes a note of it (`Call`),
everything else is refused where it stands. See `policies.pickles.reader`.
For peers' messages; `policies.checkpoint` reads files.

Opcodes: protocols 2 to 5 as CPython writes them (``Lib/pickletools.py``); text opcodes of protocols 0 and 1,
extension codes, out-of-band buffers and classes by value are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policies.encoding.limits import Limits, WireError

Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Named:
    """A class or function on the list of those allowed."""

    name: Name


class Call:
    """A noted call: what, with which arguments, and the state set on the result afterwards."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: Name, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args
        self.state: Any = None


@dataclass(frozen=True, slots=True)
class Persistent:
    """A persistent id (torch's storages have one)."""

    key: Any


_MAX_LONG = 16
_STOP = 0x2E


class Machine:
    """One pickle's stack, memo and place in the message."""

    __slots__ = ("_allowed", "_limits", "_marks", "_memo", "_stack", "at", "steps", "view")

    def __init__(self, view: memoryview, allowed: Mapping[Name, Any], limits: Limits) -> None:
        self.view = view
        self.at = 0
        self.steps = 0
        self._allowed = allowed
        self._limits = limits
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The pickled value; `at` is behind its last byte, `steps` counts the operations.

        Raises:
            WireError: forbidden, malformed or over a limit.
        """
        view, operations, end = self.view, _OPERATIONS, len(self.view)
        for step in range(self._limits.items):
            at = self.at
            if at >= end:
                break
            code = view[at]
            self.at = at + 1
            if code == _STOP:
                self.steps = step + 1
                return self._result()
            operations[code](self)
        if self.at >= end:
            raise WireError("a pickle ends in the middle of a value")
        raise WireError(f"more than {self._limits.items} pickle operations", "too_large")

    def _result(self) -> Any:
        if self._marks or len(self._stack) != 1:
            raise WireError("a pickle ends with an unfinished value")
        return self._stack[0]

    def _refuse(self) -> None:
        code = self.view[self.at - 1]
        raise WireError(f"pickle operation 0x{code:02x} is not taken", "forbidden")

    # --- bytes

    def _take(self, count: int) -> memoryview:
        end = self.at + count
        if end > len(self.view):
            raise WireError("a pickle ends in the middle of a value")
        piece = self.view[self.at : end]
        self.at = end
        return piece

    def _size(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _frame(self) -> None:
        self._take(8)

    def _line(self) -> str:
        rest = bytes(self.view[self.at : self.at + 256])
        end = rest.find(b"\n")
        if end < 0:
            raise WireError("a name in a pickle does not end")
        self._take(end + 1)
        return rest[:end].decode("utf-8", "replace")

    # --- plain values

    def _none(self) -> None:
        self._stack.append(None)

    def _true(self) -> None:
        self._stack.append(True)

    def _false(self) -> None:
        self._stack.append(False)

    def _int1(self) -> None:
        self._stack.append(self._take(1)[0])

    def _int2(self) -> None:
        self._stack.append(self._size(2))

    def _int4(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(_FLOAT.unpack(self._take(8))[0])

    def _long(self) -> None:
        size = self._size(1)
        if size > _MAX_LONG:
            raise WireError(f"an integer of {size} bytes; at most {_MAX_LONG} are taken", "too_large")
        self._stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def _text(self, width: int) -> None:
        size = self._size(width)
        if size > self._limits.text_bytes:
            raise WireError(f"text of {size} bytes; at most {self._limits.text_bytes} are taken", "too_large")
        try:
            self._stack.append(str(self._take(size), "utf-8"))
        except UnicodeDecodeError:
            raise WireError("text in a pickle is not UTF-8") from None

    def _bytes(self, width: int) -> None:
        self._stack.append(self._take(self._size(width)))

    def _new_list(self) -> None:
        self._stack.append([])

    def _new_tuple(self) -> None:
        self._stack.append(())

    def _new_dict(self) -> None:
        self._stack.append({})

    # --- stack

    def _top(self) -> Any:
        if not self._stack:
            raise WireError("a pickle takes from an empty stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        if not self._stack:
            raise WireError("a pickle takes from an empty stack")
        return self._stack.pop()

    def _mark(self) -> None:
        if len(self._marks) >= 4 * self._limits.depth:
            raise WireError(f"more than {4 * self._limits.depth} levels of nesting", "too_large")
        self._marks.append(len(self._stack))

    def _to_mark(self) -> list[Any]:
        if not self._marks:
            raise WireError("a pickle closes what it did not open")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise WireError("a pickle takes from an empty stack")
        items = tuple(self._stack[-count:])
        self._stack[-count:] = [items]

    def _marked_tuple(self) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise WireError("a pickle appends to what is not a list")
        target += items

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _set_items(self) -> None:
        self._update(self._to_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise WireError("a pickle sets items of what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._limits.check_key(key)
            target[key] = value

    # --- memo

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _put(self, width: int) -> None:
        index = self._size(width)
        self._limits.check_key(index)
        self._memo[index] = self._top()

    def _get1(self) -> None:
        index = self._take(1)[0]
        found = self._memo.get(index, self)
        if found is self:
            raise WireError(f"a pickle asks for value {index}, which it did not keep")
        self._stack.append(found)

    def _get4(self) -> None:
        index = self._size(4)
        if index not in self._memo:
            raise WireError(f"a pickle asks for value {index}, which it did not keep")
        self._stack.append(self._memo[index])

    # --- names and calls

    def _named(self, name: Name) -> None:
        if name not in self._allowed:
            raise WireError(f"{name[0]}.{name[1]} is not on the list of allowed classes"[:200], "forbidden")
        self._stack.append(Named(name))

    def _global(self) -> None:
        self._named((self._line(), self._line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise WireError("a class name is not text")
        self._named((module, name))

    def _reduce(self) -> None:
        args, what = self._pop(), self._pop()
        if not isinstance(what, Named) or not isinstance(args, tuple):
            raise WireError("a pickle calls what is not an allowed class", "forbidden")
        self._stack.append(Call(what.name, args))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if not isinstance(target, Call):
            raise WireError("a pickle sets the state of what is not an object", "forbidden")
        if target.state is not None:
            raise WireError("a pickle sets an object's state twice")
        target.state = state

    def _persistent(self) -> None:
        self._stack.append(Persistent(self._pop()))

    def _protocol(self) -> None:
        version = self._size(1)
        if not 2 <= version <= 5:
            raise WireError(f"pickle protocol {version}; 2 to 5 are taken", "version")

    @classmethod
    def operations(cls) -> list[Callable[[Machine], None]]:
        """What each opcode does."""
        plain = {
            0x28: cls._mark,
            0x29: cls._new_tuple,
            0x47: cls._float,
            0x4A: cls._int4,
            0x4B: cls._int1,
            0x4D: cls._int2,
            0x4E: cls._none,
            0x51: cls._persistent,
            0x52: cls._reduce,
            0x5D: cls._new_list,
            0x61: cls._append,
            0x62: cls._build,
            0x63: cls._global,
            0x65: cls._appends,
            0x68: cls._get1,
            0x6A: cls._get4,
            0x73: cls._set_item,
            0x74: cls._marked_tuple,
            0x75: cls._set_items,
            0x7D: cls._new_dict,
            0x80: cls._protocol,
            0x81: cls._reduce,
            0x88: cls._true,
            0x89: cls._false,
            0x8A: cls._long,
            0x93: cls._stack_global,
            0x94: cls._memoize,
            0x95: cls._frame,
        }
        sized = {
            cls._text: {0x8C: 1, 0x58: 4, 0x8D: 8},
            cls._bytes: {0x43: 1, 0x42: 4, 0x8E: 8, 0x96: 8},
            cls._put: {0x71: 1, 0x72: 4},
            cls._tuple: {0x85: 1, 0x86: 2, 0x87: 3},
        }
        table: list[Callable[[Machine], None]] = [cls._refuse] * 256
        for code, operation in plain.items():
            table[code] = operation
        for function, codes in sized.items():
            for code, width in codes.items():
                table[code] = _with(function, width)
        return table


def _with(function: Callable[[Machine, int], None], width: int) -> Callable[[Machine], None]:
    return lambda machine: function(machine, width)


_FLOAT = struct.Struct(">d")
_OPERATIONS = Machine.operations()
