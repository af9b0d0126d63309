"""``dexrun data``: looking into data sets, checking, editing and converting them."""
