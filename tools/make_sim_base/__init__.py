"""Makes the base checkpoint of the demo."""
