"""A regularizer of features: the KL divergence of each group's output from the standard normal distribution."""

from functools import partial

import torch
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.models.interface import groups_of


class FeatureKL(nn.Module):
    """The KL divergence of the features of a network's groups from N(0, 1), for a weighted sum of losses (`loss=l1_feature_kl`).

    The output of each group is taken as a normal distribution with the mean m and the variance v of an image over all tokens and channels.
    The divergence is (m^2 + v - 1 - ln v) / 2, averaged over images and groups: 0 for m = 0 and v = 1, and about v / 2 for a diverging
    stream. The i-LN paper (arXiv 2504.06629, Table 8) names such a regularization without a formula; this is one reading of it.

    It reads the features with hooks, which `trainer.compile` may not call.

    Raises:
        UserError: the network has no groups.
    """

    def __init__(self) -> None:
        super().__init__()
        self._features: dict[str, Tensor] = {}

    def watch(self, network: nn.Module) -> None:
        """Read the features of a network in each of its training steps."""
        groups = groups_of(network)
        if not groups:
            raise UserError(f"loss: FeatureKL needs the groups of the network, and {type(network).__name__} declares none; use loss=l1")
        for name, group in groups.items():
            group.register_forward_hook(partial(self._record, name))

    def _record(self, name: str, group: nn.Module, inputs: object, features: Tensor) -> None:
        if group.training:
            self._features[name] = features

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return the divergence of the features of the last forward pass, a scalar; the images are not used."""
        if not self._features:
            raise UserError("loss: FeatureKL saw no features in this step; expected trainer.compile=false")
        divergences = [normal_divergence(features).mean() for features in self._features.values()]
        self._features.clear()  # they hold the graph of the step
        return torch.stack(divergences).mean()


def normal_divergence(features: Tensor) -> Tensor:
    """Return KL(N(m, v) || N(0, 1)) for each image of [B, ...], where m and v are the mean and the variance of its features."""
    rows = features.float().flatten(1)
    variance, mean = torch.var_mean(rows, 1, correction=0)
    return (mean.square() + variance - 1 - variance.clamp_min(torch.finfo(torch.float32).tiny).log()) / 2
