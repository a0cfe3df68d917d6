import math

import pytest
import torch

from melody_diffusers.models.dual_path import AngleEmbedding, DualPathDiffusionModel, coarse_widths


def tiny_model(**changes):
    torch.manual_seed(0)
    config = dict(latent_dim=4, num_frames=40, semantic_codebook_size=8, hidden_size=16, num_blocks=3)
    config |= dict(segment_length=8, num_attention_heads=2, num_coarse_layers=1, mlp_size=24, angle_embedding_size=8)
    return DualPathDiffusionModel(**config | changes).eval()


def inputs(batch_size=3, num_frames=40):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch_size, num_frames, 4, generator=generator)
    angle = torch.rand(batch_size, num_frames, generator=generator) * math.pi / 2
    return latents, angle, torch.randint(0, 8, (batch_size, num_frames // 2), generator=generator)


def test_paper_parameter_count():
    with torch.device("meta"):
        model = DualPathDiffusionModel()
    assert model.num_parameters() == pytest.approx(296.6e6, rel=0.01)


def test_coarse_widths_are_the_papers():
    assert coarse_widths(8, 64) == [64, 32, 16, 8, 8, 16, 32, 64]
    with pytest.raises(ValueError, match="divisible by 8"):
        coarse_widths(8, 36)


def test_angle_embedding_meets_its_two_vectors_at_the_ends():
    embedding = AngleEmbedding(8, 16, 4)
    ends = embedding(torch.tensor([[0.0, math.pi / 2]]))
    torch.testing.assert_close(ends[0, 0], embedding.mlp(embedding.start))
    torch.testing.assert_close(ends[0, 1], embedding.mlp(embedding.end), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_batch_equals_its_single_samples_conditional_or_not():
    model, (latents, angle, tokens) = tiny_model(), inputs()
    mixed = model(latents, angle, tokens[:2]).sample  # the third sample is unconditional
    for i in range(2):
        single = model(latents[i : i + 1], angle[i : i + 1], tokens[i : i + 1]).sample
        torch.testing.assert_close(mixed[i : i + 1], single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[2:], model(latents[2:], angle[2:]).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_split_frames_are_the_frames_of_a_network_of_narrower_latents():
    """Whose two halves of a wide frame are two frames, if each half is projected as those are."""
    narrow, (latents, angle, tokens) = tiny_model(latent_dim=4), inputs()
    wide, weights = tiny_model(latent_dim=8, num_frames=20, split_frames=2), narrow.state_dict()
    for name in ("proj_in.weight", "proj_out.weight"):
        weights[name] = torch.block_diag(weights[name], weights[name])
    for name in ("proj_in.bias", "proj_out.bias"):
        weights[name] = weights[name].repeat(2)
    wide.load_state_dict(weights)
    angle = angle[:, ::2]
    expected = narrow(latents, angle.repeat_interleave(2, 1), tokens).sample
    made = wide(latents.unflatten(1, (-1, 2)).flatten(2), angle, tokens).sample
    torch.testing.assert_close(made.unflatten(-1, (2, 4)).flatten(1, 2), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mulan_tokens_begin_unheard_and_each_sample_hears_its_own():
    model, (latents, angle, tokens) = tiny_model(num_mulan_codebooks=2, mulan_codebook_size=4, mulan_dim=6), inputs()
    embedding = model.mulan_embedding
    torch.nn.init.normal_(embedding.codebooks)
    mulan_tokens = torch.tensor([[0, 3], [1, 2]])
    without = model(latents, angle, tokens[:2]).sample
    torch.testing.assert_close(model(latents, angle, tokens[:2], mulan_tokens).sample, without)
    torch.nn.init.ones_(embedding.mlp.norm.weight)
    decoded = torch.stack([embedding.codebooks[0, t] + embedding.codebooks[1, u] for t, u in mulan_tokens])
    torch.testing.assert_close(embedding(mulan_tokens), embedding.mlp(decoded * 6**0.5))
    heard = model(latents, angle, tokens[:2], mulan_tokens).sample
    partly = model(latents, angle, tokens[:2], torch.tensor([[0, 3], [-1, -1]])).sample
    torch.testing.assert_close(partly[0], heard[0])
    torch.testing.assert_close(partly[1:], without[1:])
    assert not torch.allclose(heard[0], without[0]) and not torch.allclose(heard[1], without[1])


@torch.no_grad()
@pytest.mark.parametrize("frame_conditioning", [False, True])
def test_tokens_change_conditional_samples_only(frame_conditioning):
    model, (latents, angle, tokens) = tiny_model(frame_conditioning=frame_conditioning), inputs(2)
    before = model(latents, angle, tokens[:1]).sample
    after = model(latents, angle, (tokens[:1] + 1) % 8).sample
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


@torch.no_grad()
def test_every_output_frame_depends_on_every_input_frame_and_on_angles():
    model, (latents, angle, tokens) = tiny_model(), inputs(1)
    before = model(latents, angle, tokens).sample
    moved = latents.clone()
    moved[:, 0] += 1
    assert (model(moved, angle, tokens).sample - before).abs().amax(-1).min() > 0
    turned = angle.clone()
    turned[:, -1] *= 0.5
    assert (model(latents, turned, tokens).sample - before).abs().amax() > 0


@torch.no_grad()
def test_scalar_angle_equals_the_same_angle_in_every_frame():
    model, (latents, _, tokens) = tiny_model(), inputs()
    scalar = model(latents, torch.tensor(0.4), tokens).sample
    torch.testing.assert_close(scalar, model(latents, torch.full((3, 40), 0.4), tokens).sample)


def test_every_parameter_learns_and_checkpointing_gives_the_same_gradients():
    model, (latents, angle, tokens) = tiny_model(), inputs()
    model(latents, angle, tokens[:2]).sample.pow(2).mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
    model.zero_grad()
    model.enable_gradient_checkpointing()
    model(latents, angle, tokens[:2]).sample.pow(2).mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


@torch.no_grad()
def test_save_and_load_round_trip_is_bit_equal(tmp_path):
    model, batch = tiny_model(), inputs()
    model.save_pretrained(tmp_path)
    assert torch.equal(DualPathDiffusionModel.from_pretrained(tmp_path).eval()(*batch).sample, model(*batch).sample)


@torch.no_grad()
def test_any_number_of_frames_is_accepted():
    model = tiny_model()
    for num_frames in (1, 7, 8, 41):
        latents, angle, tokens = inputs(1, num_frames)
        tokens = torch.zeros(1, max(1, num_frames // 2), dtype=torch.long)
        assert model(latents, angle, tokens).sample.shape == latents.shape


@torch.no_grad()
def test_compiled_blocks_share_a_graph_where_their_widths_are_equal():
    """More graphs than that would reach PyTorch's limit of 8 at the second batch size, with the paper's 8 blocks."""
    model, batch = tiny_model(num_blocks=3, segment_length=4), inputs(1)
    expected = model(*batch).sample
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    model.compile_repeated_blocks(backend=count, fullgraph=True)
    torch.testing.assert_close(model(*batch).sample, expected)
    assert len(graphs) == len({block.coarse_width for block in model.blocks}) == 2
