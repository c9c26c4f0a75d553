"""What weighs a mix finds the least of a function that can be solved by hand."""

import torch

from compress.training.convex import minimise


def test_a_quadratic_ends_at_its_solution_and_leaves_the_start_alone() -> None:
    matrix, wanted = torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([1.0, -2.0])
    start = torch.zeros(2)
    found = minimise(start, lambda x: 0.5 * x @ matrix @ x - wanted @ x)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, wanted), atol=1e-4, rtol=1e-4)
    assert not found.requires_grad and not start.any()
