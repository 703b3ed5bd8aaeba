"""Mask proposals: class-agnostic masks of one image.

proposer = load_proposer("mobile-sam")
proposals = propose(proposer, image)
"""

from ovseg_demo.proposals.base import (
    Proposals,
    ProposalStep,
    Proposer,
    SizedProposer,
    Steps,
    proposal_progress,
    propose,
    working_image,
)
from ovseg_demo.proposals.loading import DENSITIES, PROPOSERS, find_proposer, load_proposer

__all__ = [
    "DENSITIES",
    "PROPOSERS",
    "ProposalStep",
    "Proposals",
    "Proposer",
    "SizedProposer",
    "Steps",
    "find_proposer",
    "load_proposer",
    "proposal_progress",
    "propose",
    "working_image",
]
