"""Puts a plan's questions to the planner."""

from __future__ import annotations

from planner import plan
from planner.client import Planner
from planner.errors import PlannerError
from runtime.messages import ColorImage


async def put(
    planner: Planner, question: plan.Question, head: ColorImage, wrist: ColorImage | None = None
) -> plan.StepResult:
    """The planner's reply to `question` about the newest pictures, or `plan.Failed`."""
    try:
        return await _put(planner, question, head, wrist)
    except PlannerError as error:
        return plan.Failed(error.kind, f"at {error.where}: {error.detail}" if error.where else error.detail)


async def _put(
    planner: Planner, question: plan.Question, head: ColorImage, wrist: ColorImage | None
) -> plan.Reply:
    match question:
        case plan.Classify(prompt):
            return await planner.classify_user_prompt(prompt)
        case plan.Decompose(prompt):
            return await planner.decompose_user_prompt(prompt, head)
        case plan.Propose(avoid):
            return await planner.generate_instruction(head, avoid)
        case plan.Mark(instruction):
            return await planner.mark_bounding_box(instruction, head)
        case plan.CheckGrasp(instruction):
            return await planner.check_grasp_success(head, wrist, instruction)
        case plan.CheckInstruction(instruction):
            return await planner.check_instruction_complete(instruction, head)
        case plan.CheckPrompt():
            return await planner.check_user_prompt_complete(head)
