"""What the planner asks, in words. Each function gives the text of one of the seven tasks.

The tasks and the reply formats are DexGraspVLA's; the wording is this project's. Text that comes from a
person or from an earlier reply is put between ``<<<`` and ``>>>`` so that it cannot be read as a request.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def classify_user_prompt(prompt: str) -> str:
    """Type I (says which objects) or Type II (does not). Reply: ``True: why`` or ``False: why``."""
    return f"""A person tells the robot: {quote(prompt)}

Requests are of two types.
- Type I says in some way which objects are meant: by colour ("the green things"), by place ("whatever is
  on the right"), by kind or another property ("all cups", "the small ones"), or by several of these at once.
- Type II is abstract and says nothing about the objects themselves ("clear the table", "tidy up",
  "take everything away").

Answer True if the request is Type I and False if it is Type II, then a colon and your reason:
True: <reason>
or
False: <reason>

For instance "fetch the green cup" gives "True: it names a cup and its colour", and "tidy up" gives
"False: nothing is said about any object"."""


def decompose_user_prompt(prompt: str) -> str:
    """Type I into single objects. Reply: a JSON list of strings, in grasping order."""
    return f"""A person tells the robot: {quote(prompt)}

Find in the picture every object on the table that the request speaks of. A description that fits several
objects stands for all of them. Leave out whatever the request does not mention and whatever cannot be seen.
Then put them in the order in which the arm can best take them one after the other, without knocking others
over; keep to the request's own order if it gives one.

Describe each object so that it can be told apart from the others, with its position. Reply with one list
and nothing else, empty if nothing fits:
["<object with its position>", "<object with its position>", ...]"""


def generate_instruction(avoid: Sequence[str] = ()) -> str:
    """Type II: the next object. Reply: JSON with ``analysis`` and ``target``."""
    skip = ""
    if avoid:
        skip = "\nThese were tried without success; choose another as long as there is one: " + "; ".join(
            quote(each) for each in avoid
        )
    return f"""Choose the one object on the table that the arm should grasp next.

Objects on the arm's side come first, so that reaching for later ones knocks nothing over; then those in the
middle, then those farthest away. Weigh how the objects stand to one another, what is in the way, and
whether the gripper's path would touch something else.{skip}

Reply in valid JSON of this form:
```json
{{
  "analysis": {{
    "priority_consideration": "<why this object comes first>",
    "accessibility": "<how well it can be reached>",
    "risk_assessment": "<what could go wrong>"
  }},
  "target": "<the object's colour, shape and position in one flowing phrase, and nothing else>"
}}
```
If there is no object on the table at all, "target" is null."""


def mark_bounding_box(instruction: str) -> str:
    """Where the instruction's object is. Reply: JSON with ``bbox_2d``, ``label``, ``description``."""
    return f"""Find the one object on the table that best fits this description: {quote(instruction)}

Reply with a single JSON object, not a list, for exactly one object:
```json
{{
  "bbox_2d": [x1, y1, x2, y2],
  "label": "<its name in at most four words>",
  "description": "<its position, colour, shape and surroundings in detail>"
}}
```
The box is in this picture's coordinates, from the top left corner (x1, y1) to the bottom right corner
(x2, y2), close around the object and inside the picture. If no object fits, "bbox_2d" is null and
"description" says why."""


def check_grasp_success(instruction: str, pictures: int) -> str:
    """Whether the gripper holds something. Reply: reasons, then True or False at the end."""
    views = (
        "The first picture is the camera over the table, the second the camera at the wrist, "
        "which sees the jaws."
        if pictures > 1
        else "The picture is the camera over the table."
    )
    meant = f" It was meant to grasp {quote(instruction)}." if instruction else ""
    return f"""{views}{meant}

Has the robot's gripper grasped an object? Look at where the object is in relation to the two jaws: is it
between them, and has it left the table with them?

Explain in a sentence or two what you see. Then end with a last line that holds one word:
True if an object is grasped, False if not."""


def check_instruction_complete(instruction: str) -> str:
    """Whether the instruction's object has left the table. Reply: ``True: why`` or ``False: why``."""
    return f"""Is this object still on the table: {quote(instruction)}?

Answer True if it is no longer there and False if it is, then a colon and your reason:
True: <reason>
or
False: <reason>"""


def check_user_prompt_complete() -> str:
    """Whether the table is empty. Reply: ``True`` or ``False: names of what is left``."""
    return """Look over the table. Is it empty?

Only solid things of noticeable height count. Paper, cloth and mats, printed patterns and textures, shadows
and spots of light do not count, and neither do the arm, the tray, and what lies in the tray.

Answer True if nothing is left on the table. Otherwise answer False, a colon, and the names of what is left:
True
or
False: <name>, <name>, ..."""


def ask_again(reason: str) -> str:
    """After a reply that could not be read."""
    return (
        f"Your reply could not be used: {reason}. "
        "Please answer the same question again, in exactly the format asked for."
    )
