"""A few hypotheses for many samples: they cover clusters, gather where told to, and beat independent draws."""

import torch

from dposer.solvers.representatives import representatives


def _clusters(generator: torch.Generator, sizes: tuple[int, ...] = (30, 20, 10)) -> tuple[torch.Tensor, torch.Tensor]:
    label = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return 10.0 * label[None, :, None] + torch.randn(4, len(label), 2, generator=generator), label


def test_each_cluster_gets_one_and_the_first_is_in_the_largest(generator: torch.Generator) -> None:
    points, label = _clusters(generator, (40, 15, 5))
    chosen = representatives(torch.cdist(points, points), 3)
    assert chosen.shape == (4, 3)
    assert (label[chosen].sort(dim=1).values == torch.arange(3)).all()
    assert (label[chosen[:, 0]] == 0).all()


def test_centrality_gathers_them(generator: torch.Generator) -> None:
    points = torch.randn(8, 100, 5, generator=generator)
    distances = torch.cdist(points, points)
    means, minima = [], []
    for centrality in (0.0, 1.0, 100.0):
        chosen = representatives(distances, 10, centrality)
        assert all(len(set(row.tolist())) == 10 for row in chosen)
        to_chosen = distances.take_along_dim(chosen[:, None], dim=2)
        means.append(float(to_chosen.mean()))
        minima.append(float(to_chosen.amin(2).mean()))
    assert means[0] > means[1] > means[2] and minima[0] < minima[1] < minima[2]
    central = distances.mean(1).argsort(dim=1)[:, :10]
    assert torch.equal(chosen.sort(dim=1).values, central.sort(dim=1).values)


def test_they_come_nearer_to_a_new_sample_than_independent_draws_in_minimum_and_mean(generator: torch.Generator) -> None:
    points = torch.randn(200, 100, 4, generator=generator)
    truth = torch.randn(200, 1, 4, generator=generator)
    chosen = representatives(torch.cdist(points, points), 10, centrality=0.3)
    ours = torch.cdist(truth, points.take_along_dim(chosen[..., None], dim=1))[:, 0]
    free = torch.cdist(truth, points[:, :10])[:, 0]
    assert float(ours.amin(1).mean()) < float(free.amin(1).mean())
    assert float(ours.mean()) < float(free.mean())


def test_all_samples_can_be_chosen(generator: torch.Generator) -> None:
    points = torch.randn(2, 5, 3, generator=generator)
    assert torch.equal(representatives(torch.cdist(points, points), 5).sort(dim=1).values, torch.arange(5).expand(2, 5))
