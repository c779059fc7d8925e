"""Task data -> instructions by templates, several per task (FLAN, Wei et al. 2022, arXiv:2109.01652).

    tasks = read_tasks(["rte", "my-task.yaml"])
    convert(tasks, ConvertConfig(tasks=("rte", "my-task.yaml"), root="data", out="instructions"))

docs/instruction-data.md has the format of a task file and an example that runs.
"""

from accord.data.tasks.config import ConvertConfig, TaskReport
from accord.data.tasks.convert import convert
from accord.data.tasks.files import read_tasks, shipped
from accord.data.tasks.render import Renderer
from accord.data.tasks.task import Source, Task, Template

__all__ = [
    "ConvertConfig",
    "Renderer",
    "Source",
    "Task",
    "TaskReport",
    "Template",
    "convert",
    "read_tasks",
    "shipped",
]
