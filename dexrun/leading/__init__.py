"""``dexrun lead``: this machine's leader, for an arm on another one."""
