"""What of a study travels to another machine, and what the user's own code is."""

from __future__ import annotations

from cluster import Bundle
from search_spaces import Study, Values
from trials import travel, usercode


def fingerprint(study: Study) -> str | None:
    """Hash of the user's own files that the study names and of what they import beside them; None if there are none."""
    return usercode.fingerprint(components(study))


def earlier_fingerprint(study: Study) -> str | None:
    """What earlier versions wrote into the column ``code`` of each trial of the study."""
    return usercode.earlier_fingerprint(components(study))


def own_code(study: Study) -> list[str]:
    """The models and tasks of the user's own that the study names."""
    return [name for name in dict.fromkeys(components(study)) if usercode.is_usercode(name)]


def bundle(study: Study) -> Bundle:
    """Our code, the study with all its overrides as ``study.yaml``, and the user's own code.

    Raises UserError where that is too much to travel.
    """
    return Bundle.of({"study.yaml": study.resolved().encode(), **travel.files(components(study), study.name)})


def stays(study: Study) -> list[str]:
    """Files and folders beside the user's own code that do not travel with it."""
    return travel.stays(components(study), study.name)


def components(study: Study) -> list[str]:
    """Names of the tasks and models of a study, in its base and as values of an axis; among them the user's own."""
    found = [study.base.task, study.base.model]
    for axis in study.axes:
        if axis.path in (("task",), ("model",)) and isinstance(axis, Values):
            found += [{"name": value} if isinstance(value, str) else value for value in axis.values]
    return [component["name"] for component in found]
