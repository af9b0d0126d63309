"""What was being done at every row of an episode, in words, as DexVLA's ``substep_reasonings``."""

from __future__ import annotations

from typing import Any

from planner.questions.check_grasp import CheckGrasp
from planner.questions.decompose import Decompose
from planner.questions.propose import Propose
from planner.reply_text import ReplyError
from policies.data.annotated import annotated_substeps, at_rows
from policies.data.sampled import Sampled
from runtime.recording.bounds import reading

PLANNER = "/planner"


def reasonings(sampled: Sampled) -> list[str]:
    """One text per row: the newest of the planner's replies by then; where it never said anything, the
    annotation's sub-step, else the task.
    """
    episode = sampled.recording
    spoken: list[tuple[int, str]] = []
    if episode.topics.get(PLANNER):
        with reading(sampled.ref.path, PLANNER):
            spoken = [(s.stamp_ns, sentence(s.values)) for s in episode.samples(PLANNER)]
    known = sorted((stamp, text) for stamp, text in spoken if text)
    return at_rows(sampled, known or annotated_substeps(sampled.ref, episode))


def sentence(exchange: Any) -> str:
    """What an exchange says about what to do next; empty if nothing, or if it failed."""
    reply = exchange.get("reply")
    if not reply or exchange.get("error"):
        return ""
    read = _READERS.get(exchange.get("task", ""))
    if read is None:
        return ""
    try:
        return str(read(reply))
    except ReplyError:
        return ""


def _decomposition(reply: str) -> str:
    return "Grasp, in this order: " + "; ".join(Decompose.parse(reply).objects) + "."


def _instruction(reply: str) -> str:
    found = Propose.parse(reply)
    if found.target is None:
        return "The table is empty."
    return f"{found.analysis.priority_consideration.rstrip('. ')}. Grasp {found.target}."


def _grasped(reply: str) -> str:
    verdict = CheckGrasp.parse(reply)
    return "The object is grasped; place it." if verdict.value else "The object is not grasped; try again."


_READERS = {
    Decompose.task: _decomposition,
    Propose.task: _instruction,
    CheckGrasp.task: _grasped,
}
