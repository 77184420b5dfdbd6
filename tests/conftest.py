"""Test settings that hold everywhere.

Property tests draw the same examples in every run, so that a run says something of the change that it tests; `make
test-all` draws new ones (`--hypothesis-profile=explore`), and what it finds becomes an `@example`.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile("repeatable")
