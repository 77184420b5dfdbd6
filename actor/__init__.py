"""One robot or simulator: acts, lets a person take over, records, evaluates. Imports no torch by default."""
