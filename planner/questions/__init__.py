"""What the planner can ask: one module per question, with its text, its reply and its wording in one class.

The tasks and the reply formats are DexGraspVLA's; the wording is this project's.
"""
