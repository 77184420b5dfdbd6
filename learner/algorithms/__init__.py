"""Ways of learning, one per module; `build` names them."""
