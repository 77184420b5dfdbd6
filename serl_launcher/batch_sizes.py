"""Sizes that batches are padded to where every other size costs a recording or a compilation."""


def padded_size(size: int) -> int:
    """Returns the power of two that holds `size` rows: 1, 2, 4, 8, 16, ..."""
    return 1 << (size - 1).bit_length() if size > 0 else 0
