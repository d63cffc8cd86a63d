import pytest

from spp.sparsity.config import SparsityConfig


def test_the_share_is_that_of_n_of_m_where_there_is_one():
    assert SparsityConfig(sparsity=0.3).share == 0.3
    assert SparsityConfig(sparsity=0.3, keep=1, of=4).share == 0.75


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparsity": 1.0}, r"^sparsity: 1\.0 is not allowed; allowed: a share removed, in \[0, 1\); use 0\.5$"),
        ({"keep": 2}, r"^keep: \(2, None\) is not allowed; allowed: keep and of with 0 < keep < of"),
        ({"keep": 4, "of": 4}, r"^keep: \(4, 4\) is not allowed"),
        ({"group": "column"}, r"^group: 'column' is not allowed; allowed: null, row, matrix, block; use row$"),
        (
            {"permutation": "assignment"},
            r"^permutation: 'assignment' is not allowed; allowed: none where the pattern",
        ),
        ({"keep": 2, "of": 4, "allocation": "owl"}, r"^allocation: 'owl' is not allowed; allowed: uniform where the"),
        ({"update": "exact"}, r"^update: 'exact' is not allowed; allowed: null, none, obs, least_squares; use none$"),
        ({"damping": -1.0}, r"^damping: -1\.0 is not allowed"),
        ({"shrinkage": 2.0}, r"^shrinkage: 2\.0 is not allowed"),
        ({"allocation_cap": 1.0}, r"^allocation_cap: 1\.0 is not allowed"),
    ],
)
def test_what_cannot_be_is_refused_with_one_line(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        SparsityConfig(**values)
    assert "\n" not in str(caught.value)
