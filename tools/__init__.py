"""Command-line tools. They may import everything; nothing imports them."""
