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
from ovseg_demo.proposals.loading import DENSITIES, NAMING_PROPOSERS, PROPOSERS, find_proposer, load_proposer
from ovseg_demo.proposals.prompted import Box, Point, Prompt, PromptableProposer, PromptedMasks, promptable

__all__ = [
    "DENSITIES",
    "NAMING_PROPOSERS",
    "PROPOSERS",
    "Box",
    "Point",
    "Prompt",
    "PromptableProposer",
    "PromptedMasks",
    "ProposalStep",
    "Proposals",
    "Proposer",
    "SizedProposer",
    "Steps",
    "find_proposer",
    "load_proposer",
    "promptable",
    "proposal_progress",
    "propose",
    "working_image",
]
