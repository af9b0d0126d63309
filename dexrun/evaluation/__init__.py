"""``dexrun eval``: how often a policy does what it is asked, over scenes that anybody can play again."""
