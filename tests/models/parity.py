"""What the tests of several networks share: two norms, weights taken over from the official network, and promises of every network."""

import copy

import torch
from torch import Tensor, nn

from irformer.norms import ILN, LayerNorm, NormScheme

LN = NormScheme("ln", LayerNorm)
OFFICIAL_ILN = NormScheme("iln", ILN, ends="affine", standardize_input=True)

# What official checkpoints save although it follows from the constructor's arguments: position indices and shift masks.
DERIVED = ("relative_position_index", "attn_mask")


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def without_derived_buffers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not any(word in name for word in DERIVED)}


def take_official_weights(network: nn.Module, reference: nn.Module) -> None:
    """Random weights everywhere, norms and biases too, so that nothing is compared at its trivial start."""
    generator = torch.Generator().manual_seed(0)
    for parameter in reference.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    network.load_state_dict(without_derived_buffers(reference.state_dict()), strict=True)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def assert_compiles_for_all_sizes(network: nn.Module, sizes: list[tuple[int, int]]) -> None:
    """One graph without breaks for the first size, one for all others, and the same output as without compiling.

    On one thread: on several, PyTorch's CPU convolutions change their backend at 20480 values, and each side of it is a graph of its own.
    """
    torch._dynamo.reset()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    graphs = 0

    def count(graph, _example_inputs):
        nonlocal graphs
        graphs += 1
        return graph.forward

    network.eval()
    compiled = torch.compile(network, fullgraph=True, backend=count)
    try:
        with torch.no_grad():
            for size in sizes:
                x = torch.rand(1, 3, *size)
                torch.testing.assert_close(compiled(x), network(x))
    finally:
        torch.set_num_threads(threads)
    assert graphs == 2, "one graph for the first size, one for all others"


def assert_can_be_copied_after_a_training_step(network: nn.Module) -> None:
    """Every parameter has a gradient, nothing of the step stays on the modules, and the copy gives the same output."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    network(torch.rand(2, 3, 16, 16)).mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    optimizer.step()
    twin = copy.deepcopy(network).eval()
    x = torch.rand(1, 3, 11, 13)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), network.eval()(x), rtol=0, atol=0)


def assert_gradients_are_right(network: nn.Module) -> None:
    """Analytic gradients of the input and of every parameter equal numeric ones, in float64."""
    network.double().eval()
    names = [name for name, _ in network.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in network.parameters()]
    x = torch.rand(2, 3, 7, 8, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)
