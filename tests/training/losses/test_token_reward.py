"""The differentiable token reward: noise given its outcome, straight-through tokens, CTC."""

from __future__ import annotations

import math

import torch

from training.losses.recognition import ctc_loss
from training.losses.token_reward import posterior_gumbels, straight_through


def uniforms(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_was_drawn_is_always_the_largest() -> None:
    logits = 3 * torch.randn(4, 50, 9, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(9, (4, 50), generator=torch.Generator().manual_seed(2))
    found = posterior_gumbels(logits, tokens, uniforms(4, 50, 9))
    assert torch.equal(found.argmax(dim=-1), tokens)
    assert bool(found.isfinite().all())
    edges = torch.tensor([0.0, 1.0 - 1e-8]).expand(4, 50, 2).reshape(4, 50, 2)
    assert bool(posterior_gumbels(logits[..., :2], tokens % 2, edges).isfinite().all())


def test_the_posterior_is_that_of_gumbel_noise() -> None:
    """Noise that is drawn given its largest, itself drawn, is noise as it always is."""
    logits = torch.tensor([0.5, -1.0, 0.0]).expand(1, 200_000, 3)
    free = logits - torch.log(-torch.log(uniforms(1, 200_000, 3, seed=3).clamp(min=1e-30)))
    tokens = free.argmax(dim=-1)
    given = posterior_gumbels(logits, tokens, uniforms(1, 200_000, 3, seed=4))
    # A Gumbel variable about x has the mean x + 0.5772 and the variance pi² / 6.
    for found in (free, given):
        mean = found.mean(dim=1)[0]
        torch.testing.assert_close(mean, logits[0, 0] + 0.5772, atol=0.02, rtol=0)
        variance = found.var(dim=1)[0]
        torch.testing.assert_close(variance, torch.full((3,), math.pi**2 / 6), atol=0.04, rtol=0)


def test_tokens_go_straight_through() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    tokens = torch.tensor([[2, 0]])
    drawn = straight_through(logits, tokens, uniforms(1, 2, 3), 1.0)
    torch.testing.assert_close(drawn.detach(), torch.tensor([[[0.0, 0, 1], [1, 0, 0]]]))
    (drawn[..., 2].sum()).backward()
    assert logits.grad is not None and bool(logits.grad.any())
    # A class gains what the others lose.
    torch.testing.assert_close(logits.grad.sum(dim=-1), torch.zeros(1, 2), atol=1e-6, rtol=0)


def test_gradient_ascent_on_the_reward_makes_a_reader_read() -> None:
    """Logits of tokens learn what a fixed reader wants to see, from drawn tokens alone."""
    torch.manual_seed(0)
    reader = torch.randn(6, 3)
    characters, length = torch.tensor([[1, 2, 1]]), torch.tensor([3])
    logits = torch.zeros(1, 6, 6, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)

    def loss(seed: int) -> torch.Tensor:
        with torch.no_grad():
            noise = -torch.log(-torch.log(uniforms(1, 6, 6, seed=seed).clamp(1e-20, 1 - 1e-7)))
            tokens = (logits + noise).argmax(dim=-1)
        drawn = straight_through(logits, tokens, uniforms(1, 6, 6, seed=seed + 1), 1.0)
        log_probs = (3 * drawn @ reader).log_softmax(dim=-1)
        return ctc_loss(log_probs, characters, torch.tensor([6]), length)[0]

    before = sum(float(loss(1000 + 2 * n)) for n in range(20))
    for step in range(100):
        optimizer.zero_grad()
        loss(2 * step).backward()
        optimizer.step()
    after = sum(float(loss(1000 + 2 * n)) for n in range(20))
    assert after < 0.3 * before
