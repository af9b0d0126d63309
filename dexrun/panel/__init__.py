"""The panel: what a run shares with processes beside it, the server of its page, and the page."""
