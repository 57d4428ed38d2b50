"""Training: recipes, the run of one network, and the run of a whole model."""

from __future__ import annotations

from mammodensity.training.history import EpochFigures, read_history
from mammodensity.training.joint_run import JointPlan
from mammodensity.training.loop import Step
from mammodensity.training.model_run import RECEIPT_FILE, RECIPE_FILE, train_model
from mammodensity.training.network_run import NetworkTask, train_network
from mammodensity.training.processes import Processes, joined, own_device
from mammodensity.training.recipes import DEFAULT_RECIPE, RECIPES, Recipe, adapted, find_recipe, recipe_from_dict

__all__ = [
    "DEFAULT_RECIPE",
    "RECEIPT_FILE",
    "RECIPES",
    "RECIPE_FILE",
    "EpochFigures",
    "JointPlan",
    "NetworkTask",
    "Processes",
    "Recipe",
    "Step",
    "adapted",
    "find_recipe",
    "joined",
    "own_device",
    "read_history",
    "recipe_from_dict",
    "train_model",
    "train_network",
]
