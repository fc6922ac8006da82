"""What a test checks of an error: its type, and the names and numbers in its message.

The wording itself stands in tests/messages.txt only: tests/test_messages.py writes that file.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest


def refuses(call: Callable[[], object], error: type[Exception], *names: object) -> str:
    """Assert that `call` raises `error` with all of `names` in its message; return the message."""
    with pytest.raises(error) as caught:
        call()
    said = str(caught.value)
    missing = [n for n in names if str(n) not in said]
    assert not missing, f"{missing} not in {said!r}"
    return said
