"""Running an evaluation's job in a test, and finding its figures."""

import json
import math

from accord.pipelines.evaluation import perform
from accord.train.progress import Quiet


def evaluated(kind, job, config, out):
    """The outcome of a job that wrote into `out`."""
    return perform(kind, config, out, job, Quiet())


def value(outcome, name, of=""):
    """The value of a result."""
    return result(outcome, name, of).value


def result(outcome, name, of=""):
    """A result by its name and subject."""
    found = [one.result for one in outcome.results if (one.name, one.of) == (name, of)]
    assert len(found) == 1, [(one.name, one.of) for one in outcome.results]
    return found[0]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


def close(a, b, tolerance=1e-9):
    return math.isclose(a, b, abs_tol=tolerance)
