"""A project: `luthier.yaml`, its folder, and the chain of stages that it describes."""

from luthier.project.base import STAGES, Project, ProjectSpec

__all__ = ["STAGES", "Project", "ProjectSpec"]
