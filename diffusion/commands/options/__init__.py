"""The options of every command, a file for each kind of command. Nothing heavy is imported, so that help and mistakes
answer at once.

The names that an option may take are read from the source of the registries (`registries.names`).
"""

from diffusion.commands.options.common import DrawArguments
from diffusion.commands.options.completing import Complete
from diffusion.commands.options.exchanging import Import
from diffusion.commands.options.inspecting import Cache, Completion, Doctor, Inspect, Schema
from diffusion.commands.options.measuring import Compare, Distance, Evaluate
from diffusion.commands.options.paging import Page
from diffusion.commands.options.publishing import Export, Publish
from diffusion.commands.options.restoring import Inpaint, Restorations, Restore
from diffusion.commands.options.sampling import Decode, Encode, Sample
from diffusion.commands.options.training import Demo, Distill, Train, VerifyResume

__all__ = [
    "Cache",
    "Compare",
    "Complete",
    "Completion",
    "Decode",
    "Demo",
    "Distance",
    "Distill",
    "Doctor",
    "DrawArguments",
    "Encode",
    "Evaluate",
    "Export",
    "Import",
    "Inpaint",
    "Inspect",
    "Page",
    "Publish",
    "Restorations",
    "Restore",
    "Sample",
    "Schema",
    "Train",
    "VerifyResume",
]
