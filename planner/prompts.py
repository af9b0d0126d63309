"""What the texts for the model have in common: who it is, and how other people's words are quoted.

Text that comes from a person or from an earlier reply is put between ``<<<`` and ``>>>`` so that it cannot be
read as a request. Each question's own text is in `planner.questions`.
"""

from __future__ import annotations

QUOTE_OPEN, QUOTE_CLOSE = "<<<", ">>>"


def quote(text: str) -> str:
    """`text` on one line between the quotation marks that the prompts use."""
    inner = " ".join(text.replace(QUOTE_OPEN, "").replace(QUOTE_CLOSE, "").split())
    return f"{QUOTE_OPEN}{inner}{QUOTE_CLOSE}"


def system(arm_location: str) -> str:
    """Who the model is and what it looks at."""
    return (
        "You are the planner of a one-armed robot that moves small things from a table into a tray. "
        f"Pictures come from a fixed camera that looks at the table; the arm is {arm_location}. "
        "Left and right are as in the picture; near is towards its bottom edge and far towards its top. "
        "What already lies in the tray is done and no longer counts as being on the table. "
        "Keep exactly to the reply format that is asked for: a program reads it."
    )
