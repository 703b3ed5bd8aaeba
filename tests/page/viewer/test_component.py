"""The viewer's program: files that share one scope."""

from __future__ import annotations

import re
from collections import Counter

from ovseg_demo.page.viewer.component import script


def test_no_two_files_declare_the_same_name() -> None:
    # Of two functions with one name the later one is used, without a word.
    declared = re.findall(
        r"^(?:async )?(?:function\*? |const |let |class )(\w+)", script({"words": ""}), re.MULTILINE
    )
    assert [name for name, count in Counter(declared).items() if count > 1] == []
