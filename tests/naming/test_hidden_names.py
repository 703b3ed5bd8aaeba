"""Hidden names compete with the typed ones, but for those that mean the same."""

from __future__ import annotations

import numpy as np

from ovseg_demo.naming.hidden_names import competing_names, hidden_names


def test_a_name_steps_back_for_the_words_it_shares_and_for_what_is_close() -> None:
    hidden = ("fence", "dining table", "horse", "sofa")
    typed = ("wooden fence", "tables", "couch", "zebra")
    close = np.zeros((4, 4), dtype=np.float32)
    close[2, 3] = 0.9  # couch, sofa
    assert competing_names(typed, close, hidden, np.eye(4, dtype=np.float32), 0.75).tolist() == [
        False,
        False,
        True,
        False,
    ]
    assert competing_names(typed[3:], close[3:], hidden, np.eye(4, dtype=np.float32), 0.75).all()


def test_every_hidden_name_is_there_once() -> None:
    assert len(hidden_names()) == len(set(hidden_names())) > 200
