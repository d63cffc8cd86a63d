"""Settings of spp_ria: our reconstruction of the SPP paper's Algorithm 2 (pruning of LLMs), of which no code exists.

The paper says that the solution path is combined with the RIA score. A path that a score drives orders the weights as
the score does, so `drive=minibatch` is RIA but for ties and for the mean over mini-batches; tests show it. Another
thing are the paper's dynamics of M, V and Gamma driven by the gradient of the error of the linear's outputs:
`drive=reconstruction`, a split Bregman iteration with a mask of zeros and ones that starts from RIA's. It is not
nested: each share removed has an iteration of its own.
"""

from dataclasses import dataclass

from spp.config import require
from spp.methods.weights.method import WeightMethodConfig

DRIVES = ("reconstruction", "minibatch")


@dataclass(frozen=True, kw_only=True)
class SPPRIAConfig(WeightMethodConfig):
    """Settings of the two drives; a field says where it plays a part in one of them alone."""

    name: str = "spp_ria"
    """Name of the method."""
    drive: str = "reconstruction"
    """What moves the masks: reconstruction (the error of the outputs) or minibatch (RIA scores of mini-batches)."""
    a: float = 0.5
    """Power of the norm of the input in RIA; 0 is RI."""
    num_steps: int = 16
    """Steps of the reconstruction."""
    rho: float = 0.1
    """First strength of the coupling of M and Gamma (reconstruction), next to a mean curvature of 1."""
    rho_growth: float = 1.3
    """Factor of rho from step to step (reconstruction)."""

    def __post_init__(self) -> None:
        require(self.drive in DRIVES, "drive", self.drive, ", ".join(DRIVES), "use reconstruction")
        require(self.a >= 0, "a", self.a, "0 or more", "use 0.5")
        require(self.num_steps >= 0, "num_steps", self.num_steps, "0 or more", "use 16")
        require(self.rho > 0, "rho", self.rho, "a positive number", "use 0.1")
        require(self.rho_growth >= 1, "rho_growth", self.rho_growth, "1 or more", "use 1.3")


CONFIG = SPPRIAConfig
