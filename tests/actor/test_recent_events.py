from hypothesis import given
from hypothesis import strategies as st

from actor.recent_events import RecentEvents


def test_the_newest_events_are_kept_within_the_limit():
    recent = RecentEvents(max_bytes=10)
    for seq in range(1, 6):
        recent.add(seq, bytes([seq]) * 4)
    assert recent.after(3, 10, 100) == [(4, b"\4" * 4), (5, b"\5" * 4)]
    assert recent.after(2, 10, 100) == []  # The third is gone: the disk has it.
    assert recent.after(5, 10, 100) == []
    assert recent.after(3, 10, 5) == [(4, b"\4" * 4)]


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=20), forgotten=st.integers(0, 20), after=st.integers(0, 20)
)
def test_what_comes_back_is_what_was_added_after_it_or_nothing(sizes: list[int], forgotten: int, after: int):
    recent = RecentEvents(max_bytes=20)
    events = [(seq, bytes([seq]) * size) for seq, size in enumerate(sizes, 1)]
    for seq, encoded in events:
        recent.add(seq, encoded)
    recent.forget(forgotten)
    found = recent.after(after, 3, 1000)
    assert found in (events[after : after + 3], [])
    assert not any(seq <= forgotten for seq, _ in found)
