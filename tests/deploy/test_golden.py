"""What counts as the same answer."""

import re

import pytest

from deploy.golden import GoldenAnswer, compare

EXPECTED = GoldenAnswer(items=["a", "b", "c", "d"], scores=[4.0, 3.0, 2.95, 1.0])


@pytest.mark.parametrize(
    ("items", "scores", "said"),
    [
        (["a", "b", "c", "d"], [4.0, 3.0, 2.95, 1.0], None),
        (["a", "b", "c", "d"], [4.1, 2.9, 2.95, 1.1], None),
        (["a", "c", "b", "d"], [4.0, 2.99, 2.96, 1.0], None),  # b and c are closer than the tolerance
        (["a", "b", "c", "e"], [4.0, 3.0, 2.95, 1.05], None),  # e ties with the last place
        (["b", "a", "c", "d"], [4.0, 3.0, 2.95, 1.0], "place 1 must be item 'a' .got 'b'"),
        (["a", "b", "e", "d"], [4.0, 3.0, 2.95, 1.0], "place 3 must be item 'c' .got 'e'"),
        (["a", "b", "c", "d"], [4.0, 3.0, 2.95, 1.2], "place 4 must score 1 within 0.11 .got 1.2"),
        (["a", "b", "c", "d"], [float("nan"), 3.0, 2.95, 1.0], "place 1 must score 4"),
        (["a", "b", "c", "c"], [4.0, 3.0, 2.95, 1.0], "must be 4 different items"),
        (["a", "b", "c"], [4.0, 3.0, 2.95], "must be 4 different items .got 3"),
    ],
)
def test_compare(items, scores, said):
    difference = compare(EXPECTED, items, scores, 0.11)
    assert (difference is None) if said is None else (difference and re.match(said, difference))
