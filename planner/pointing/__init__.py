"""A vision-language model as the slow half of a policy: where the instruction's object is."""
