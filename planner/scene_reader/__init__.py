"""A stand-in for a VLM: answers the planner's questions about pictures of the table by classical vision."""
