"""Test settings that hold everywhere.

Property tests draw the same examples in every run, so that a run says something of the change that it tests; `make
test-all` draws new and more ones (`--hypothesis-profile=explore`), and what it finds becomes an `@example`. Tests with
dear examples take a part of the profile's `max_examples`. No example has a deadline: other work makes machines slow.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("explore", print_blob=True, deadline=None, max_examples=400)
settings.load_profile("repeatable")
