import torch
from torch.nn import functional

from hica.towers.tiny import END, PAD, START, UNKNOWN, TinyImageTower, TinyTextTower


def test_size() -> None:
    tower = TinyImageTower()
    assert (tower.dim, tower.grid, tower.depth, tower.preprocess.size) == (128, 8, 4, 64)
    assert 250_000 < sum(weight.numel() for weight in tower.parameters()) < 350_000


def test_an_image_is_the_mean_of_its_patches() -> None:
    pooled, patches = TinyImageTower()(torch.randn(2, 3, 64, 64))
    assert torch.allclose(pooled, patches.mean(dim=1), atol=1e-6)


@torch.no_grad()
def test_images_of_a_batch_do_not_meet() -> None:
    tower = TinyImageTower()
    images = torch.randn(3, 3, 64, 64)
    together, alone = tower(images).pooled[1], tower(images[1:2]).pooled[0]
    assert torch.allclose(together, alone, atol=1e-5)


@torch.no_grad()
def test_a_patch_lies_where_the_image_shows_it() -> None:
    tower = TinyImageTower()
    images = torch.zeros(2, 3, 64, 64)
    images[1, :, 40:48, 8:16] = 1.0  # row 5, column 1 of the grid
    black, square = tower(images).patches
    assert (square - black).norm(dim=-1).argmax().item() == 5 * 8 + 1


def test_it_learns_texture_from_few_images() -> None:
    generator = torch.Generator().manual_seed(0)

    def stripes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Stripes across (0) or down (1), of random width, phase, contrast and noise."""
        labels = torch.arange(count) % 2
        width = 2 + 6 * torch.rand(count, 1, 1, generator=generator)
        phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
        wave = torch.sin(torch.arange(64).float() / width + phase).expand(count, 64, 64)
        wave = torch.where(labels.view(-1, 1, 1) == 1, wave, wave.transpose(1, 2))
        noise = torch.randn(count, 3, 64, 64, generator=generator)
        return 0.3 * wave.unsqueeze(1) + 0.3 * noise, labels

    tower = TinyImageTower(seed=0)
    optimiser = torch.optim.AdamW(tower.parameters(), lr=1e-3)
    images, labels = stripes(32)
    for _ in range(8):
        loss = functional.cross_entropy(tower(images).pooled[:, :2], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images, labels = stripes(32)
    with torch.no_grad():
        correct = tower(images).pooled[:, :2].argmax(dim=1) == labels
    assert correct.float().mean().item() >= 0.9


TEXTS = ["A round mass with smooth margin.", "An irregular mass", "lungs are clear"]


def test_tokens_are_words() -> None:
    tower = TinyTextTower(TEXTS)
    tokens = tower.tokenize(["Round MASS!", "smooth unheard-of mass"])
    index = tower.vocabulary
    assert tokens.tolist() == [
        [START, index["round"], index["mass"], END, PAD, PAD],
        [START, index["smooth"], UNKNOWN, UNKNOWN, index["mass"], END],
    ]
    assert tower.token_embedding.shape == (UNKNOWN + 1 + len(index), 128)


def test_long_texts_are_cut_and_empty_ones_allowed() -> None:
    tower = TinyTextTower(TEXTS, context_length=6)
    tokens = tower.tokenize(["mass " * 50, ""])
    assert tokens.shape == (2, 6) and tokens[0, -1] == END
    assert torch.isfinite(tower(tokens)).all()


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    tower = TinyTextTower(TEXTS)
    together = tower(tower.tokenize(["round mass", TEXTS[0]]))
    assert torch.allclose(together[0], tower(tower.tokenize(["round mass"]))[0], atol=1e-5)


@torch.no_grad()
def test_a_token_sees_none_after_it() -> None:
    tower = TinyTextTower(TEXTS)
    states = tower.token_states(tower.tokenize(["round mass", "round lungs"]))
    assert states.shape == (2, 4, 128)
    assert torch.allclose(states[0, :2], states[1, :2], atol=1e-6)
    assert not torch.allclose(states[0, 2], states[1, 2], atol=1e-2)


@torch.no_grad()
def test_shared_words_bring_sentences_close_before_training() -> None:
    gaps = []
    for seed in range(8):
        tower = TinyTextTower(TEXTS, seed)
        rows = tower(tower.tokenize(["a round mass", "an irregular mass", "lungs are clear"]))
        rows = functional.normalize(rows - rows.mean(dim=0), dim=-1)
        gaps.append((rows[0] @ rows[1] - rows[0] @ rows[2]).item())
    assert sum(gaps) / len(gaps) > 0.1


def test_same_seed_same_weights_and_global_generator_untouched() -> None:
    state = torch.random.get_rng_state()
    one, two = TinyTextTower(TEXTS, 5), TinyTextTower(list(reversed(TEXTS)), 5)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
