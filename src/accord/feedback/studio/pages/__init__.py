"""The pages, a module each with a `router`. A new page is a module here, a line in PAGES and a template.

A page of a project for its admins has the address `/admin/WORD/{project_id}`, a template that extends
`admin_base.html` and is given `project`, and a line in `wording.ADMIN_PAGES`, which is the navigation beside them.
"""

from types import ModuleType

from accord.feedback.studio.pages import (
    account,
    admin,
    campaigns,
    chat,
    dashboard,
    explore,
    exports,
    home,
    login,
    parts,
    people,
    preferences,
    qualify,
    review,
    task,
    texts,
)

__all__ = ["PAGES"]

PAGES: tuple[ModuleType, ...] = (
    login,
    home,
    account,
    preferences,
    task,
    qualify,
    chat,
    review,
    admin,
    campaigns,
    dashboard,
    explore,
    exports,
    people,
    texts,
    parts,
)
