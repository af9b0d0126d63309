"""The one way in which the planner fails."""

from __future__ import annotations

from runtime.masking import masked


class PlannerError(Exception):
    """A question got no usable reply in spite of all retries.

    Attributes:
        task: the question's, or ``start``.
        kind: a short, countable word: ``timeout``, ``unreachable``, ``unknown_host``, ``malformed``,
            ``refused``, ``broken_off`` (by the server, in the middle of its reply), ``no_object`` (the model
            says that what was asked for is not in the picture), ``http_<status>``, ``redirected`` (to
            another server, which is asked nothing), ``closed``.
        detail: one line about what happened.
        where: the server's address, without credentials.
    """

    def __init__(self, task: str, kind: str, detail: str, where: str = "") -> None:
        where, detail = masked(where), masked(detail)
        super().__init__(f"planner task {task}{f' at {where}' if where else ''}: {kind}: {detail}")
        self.task = task
        self.kind = kind
        self.detail = detail
        self.where = where
