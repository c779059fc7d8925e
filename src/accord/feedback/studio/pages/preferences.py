"""How pages look to me: theme, size of text, keys. Kept in cookies of this browser, readable by nobody else."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.datastructures import FormData

from accord.feedback.studio.context import OpenForm, StudioOf
from accord.feedback.studio.pages.login import inside
from accord.feedback.studio.view import SIZES, THEMES, redirect

__all__ = ["router"]

router = APIRouter()

_CHOICES = {"theme": THEMES, "size": SIZES, "keys": ("on", "off")}
YEAR = 365 * 86_400


@router.post("/preferences")
def set_preferences(studio: StudioOf, form: OpenForm) -> Response:
    """Set what was sent, and go back to where it was sent from."""
    response = redirect(inside(str(form.get("back", "/"))))
    for name, value in _chosen(form).items():
        response.set_cookie(name, value, max_age=YEAR, samesite="lax", secure=studio.config.secure, httponly=True)
    return response


def _chosen(form: FormData) -> dict[str, str]:
    return {name: str(form[name]) for name, choices in _CHOICES.items() if form.get(name) in choices}
