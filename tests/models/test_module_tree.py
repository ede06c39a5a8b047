"""Groups and blocks of networks whose structure only their module tree tells."""

from torch import nn

from irformer import create_model
from irformer.models.interface import groups_of, layer_names_of
from irformer.models.module_tree import repeated_parts


class Block(nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(size, size, 3)
        self.second = nn.Conv2d(size, size, 3)


class Other(Block):
    pass


class Group(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Module()
        self.body.blocks = nn.ModuleList([Block(), Other(), Block(), Other()])
        self.last = nn.Conv2d(4, 4, 1)


class Network(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3)
        self.parts = nn.ModuleList(parts)
        self.tail = nn.Conv2d(4, 3, 3)


def test_groups_are_outside_and_blocks_of_all_kinds_inside():
    groups, blocks = repeated_parts(Network(Group(), Group()))
    assert groups == ["parts.0", "parts.1"]
    assert blocks == [f"parts.{group}.body.blocks.{block}" for group in range(2) for block in range(4)]


def test_a_single_group_is_passed_through():
    groups, blocks = repeated_parts(Network(Group()))
    assert groups == [f"parts.0.body.blocks.{block}" for block in range(4)]
    assert blocks == [], "convolutions are no blocks"


def test_sequences_are_told_apart_by_what_they_hold():
    stages = [
        nn.Sequential(Block(), Block()),
        nn.Sequential(nn.Conv2d(4, 4, 1)),
        nn.Sequential(Block(), Block()),
        nn.Sequential(nn.Conv2d(4, 4, 1)),
    ]
    groups, blocks = repeated_parts(Network(*stages))
    assert groups == ["parts.0", "parts.2"], "the convolutions between hold less than a tenth of the parameters"
    assert blocks == ["parts.0.0", "parts.0.1", "parts.2.0", "parts.2.1"]


def test_a_chain_of_convolutions_has_them_as_groups():
    assert repeated_parts(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))) == (["0", "2"], [])
    assert repeated_parts(nn.Linear(3, 3)) == ([], [])
    assert repeated_parts(nn.Sequential()) == ([], [])


def test_the_tree_of_our_own_networks_has_the_groups_that_they_declare():
    for name in ("swinir_tiny", "hat_tiny"):
        network = create_model(name)
        groups, blocks = repeated_parts(network)
        assert groups == list(groups_of(network))
        assert blocks
        assert layer_names_of(network)["blocks"]
